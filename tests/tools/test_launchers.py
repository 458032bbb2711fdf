"""Runs in processes of a launcher: deaths, failures, stops, and what is told of them."""

import json
import os
import signal
import threading
import time
from pathlib import Path

import pandas as pd
import pytest

from continual_agents.runs import LockedError
from continual_agents.runs.files import StrangeFileError
from tests.helpers import ROOT, begun, refusal, same_tables, stopped, wait_for_rows
from tools.command_line import UsageError
from tools.launchers import Outcome, Pool, make_launcher, split, worker
from tools.launchers.overview import Overview, fraction
from tools.train import jobs, train_one

SMOKE = ["experiment=gymnasium", "scale=smoke", "experiment.steps=3072", "method=ppo", "save_seconds=0"]


class Killing(Pool):
    """Kills the process of the run with seed 0, once, when it has written two rows."""

    def start(self, config):
        started = super().start(config)
        if config["seed"] == 0:
            threading.Thread(target=self._kill, args=(started[0], Path(config["folder"]))).start()
        return started

    def _kill(self, worker, folder: Path) -> None:
        wait_for_rows(folder / "metrics.csv", 2)
        os.kill(worker.pid.result(), signal.SIGKILL)


def test_a_log_that_is_a_link_is_not_written_through(tmp_path: Path) -> None:
    """The run folder may be a stranger's."""
    outside = tmp_path / "outside"
    outside.write_text("mine")
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "log.txt").symlink_to(outside)
    with pytest.raises(StrangeFileError, match=r"log\.txt"):
        worker.train({"folder": str(folder)})
    assert outside.read_text() == "mine"


def test_what_dies_fails_or_diverges_ends_nothing_else_and_is_named(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def config(seed: int, *words: str) -> dict:
        return jobs([*SMOKE, f"seed={seed}", f"folder={tmp_path / str(seed)}", *words])[0]

    failing = config(1)
    failing["experiment"] = failing["experiment"] | {"kind": "nothing"}  # past the checks of the command line
    diverging = config(2, "experiment.optimizer.step_size=1e38", "experiment.agent.max_gradient_norm=null")
    configs = [config(0), failing, diverging, config(3)]
    with Killing(n_jobs=1) as launcher:
        outcomes = launcher.run(configs)
    assert [outcome.kind for outcome in outcomes] == ["failed", "failed", "diverged", "finished"]
    capfd.readouterr()
    assert launcher.tell(outcomes, len(configs)) == 1
    died, failed, diverged, left = capfd.readouterr().err.splitlines()
    assert died.startswith(f"{tmp_path / '0'} failed: its process died")
    assert failed.startswith(f"{tmp_path / '1'} failed: experiment.kind=nothing: agent or stream")
    assert failed.endswith(f" (its log: {tmp_path}/1/log.txt)")
    assert "UsageError" in (tmp_path / "1/log.txt").read_text()
    assert diverged.startswith(f"{tmp_path / '2'} diverged: ")
    assert left == "ended with 2 of 4 runs left: the same command continues"
    # the run that died continues as if nothing had been
    assert train_one(configs[0], quiet=True) == 0
    assert train_one(config(0, f"folder={tmp_path / 'undisturbed'}"), quiet=True) == 0
    same_tables(tmp_path / "0", tmp_path / "undisturbed")


def test_a_run_that_was_started_again_waits_for_the_lock_of_its_lost_predecessor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    slept, refusals = [], [LockedError("node1 has it", 70.0), None, LockedError("it is dying"), None]

    def train_one(config: dict, *, quiet: bool) -> int:
        if (refusal := refusals.pop(0)) is not None:
            raise refusal
        return 0

    monkeypatch.setattr("tools.train.train_one", train_one)
    monkeypatch.setattr(worker.time, "sleep", slept.append)
    for _ in range(2):
        assert worker.train({"folder": str(tmp_path)}) == "finished"
    assert slept == [71.0, worker.DYING]
    assert capsys.readouterr().err == "node1 has it\nit is dying\n"  # in a process of its own: log.txt
    refusals += [LockedError("node1 has it", 70.0)] * 2  # it lives: nobody waits for ever
    assert worker.train({"folder": str(tmp_path)}) == "failed node1 has it"


def test_sigterm_to_several_saves_those_that_run_and_starts_no_other(tmp_path: Path) -> None:
    words = [*SMOKE, "experiment.steps=20480", "seed=0,1,2", f"folder={tmp_path}/${{seed}}", "hydra.launcher.n_jobs=2"]
    process = begun("tools.train", *words, "-m")
    for seed in (0, 1):
        wait_for_rows(tmp_path / f"{seed}/metrics.csv", 2, process)
    said = stopped(process, signal.SIGTERM)
    assert "stopped with 3 of 3 runs left: the same command continues" in said.splitlines()
    assert (tmp_path / "figure.png").exists()
    assert not (tmp_path / "2/metrics.csv").exists()
    for seed in (0, 1):
        assert list((tmp_path / f"{seed}/checkpoints").glob("*.pt"))


def test_overview_counts_runs_and_parts_of_runs(tmp_path: Path) -> None:
    for name, rows in (("a", "step,x\n100,1\n250,2\n30"), ("b", "step,x\n"), ("c", "")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.csv").write_text(rows)
    assert [fraction(tmp_path / name, 1000) for name in "abcd"] == [0.25, 0, 0, 0]
    overview = Overview("runs", 5, shown=False)
    for number, name in enumerate("abc"):
        overview.begin(number, {"folder": tmp_path / name, "experiment": {"steps": 1000}})
    overview.end(0)
    overview.end(1, failed=True)
    assert str(overview) == "runs: 1 done, 1 running, 2 left, 1 failed"


def test_an_outcome_names_the_log_if_there_is_one(tmp_path: Path) -> None:
    outcome = Outcome(tmp_path, "failed", "why")
    assert str(outcome) == f"{tmp_path} failed: why"
    (tmp_path / "log.txt").write_text("more")
    assert str(outcome) == f"{tmp_path} failed: why (its log: {tmp_path}/log.txt)"


def test_words_of_the_launcher_are_told_from_those_of_the_runs() -> None:
    words = ["seed=1", "hydra/launcher=pool", "hydra.launcher.n_jobs=3", "method=ppo", "-m"]
    assert split(words) == (words[1:3], ["seed=1", "method=ppo", "-m"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["hydra/launcher=pol"], "hydra/launcher=pol: no such launcher; did you mean pool?"),
        (["hydra.launcher.n_job=1"], "hydra.launcher.n_job is unknown: did you mean 'n_jobs'?"),
        (["hydra.launcher.n_jobs=0"], "n_jobs=0: at least 1, or -1 for one per core"),
        (["hydra.launcher.n_jobs=two"], "hydra.launcher.n_jobs=two: a whole number is needed"),
        (["hydra.launcher.n_jobs=1,2"], "hydra.launcher.n_jobs=1,2: one value is needed"),
    ],
)
def test_launchers_that_cannot_be(words: list[str], message: str) -> None:
    assert refusal(UsageError, make_launcher, words) == message


def test_a_cluster_that_is_not_there_or_cannot_be() -> None:
    pytest.importorskip("submitit")
    for words, message in (
        (["hydra/launcher=submitit_local", "hydra.launcher.partition=long", "hydra.launcher.at_once=0"], "at_once=0"),
        (["hydra/launcher=submitit_local", "hydra.launcher.signal_delay_s=3600"], "signal_delay_s=3600"),
        (["hydra/launcher=submitit_local", "hydra.launcher.cluster=slurm"], "hydra.launcher.cluster is unknown"),
        (["hydra/launcher=submitit_slurm"], "hydra/launcher=submitit_slurm: "),  # no sbatch here
    ):
        with pytest.raises(UsageError, match=message):
            make_launcher(words)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_job_out_of_time_is_queued_again_and_ends_bit_for_bit_as_undisturbed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)  # jobs import the project from where they were submitted
    words = [*SMOKE, "experiment.steps=1000000000", "save_seconds=1000"]  # a quick machine does a million in 90 s
    launcher_words = [f"hydra.launcher.folder={tmp_path / 'jobs'}", "hydra.launcher.timeout_min=2"]
    config = jobs([*words, f"folder={tmp_path / 'run'}"])[0]
    with make_launcher(
        ["hydra/launcher=submitit_local", "hydra.launcher.signal_delay_s=70", *launcher_words]
    ) as launcher:
        started = launcher.start(config)
        sessions = tmp_path / "run/environment.json"
        while not sessions.exists() or len(json.loads(sessions.read_text())) < 3:  # time has run out twice
            assert not started.done()
            time.sleep(0.5)
        launcher.stop(started)  # saves
        while launcher.outcome(started, config, stopping=True) is None:
            time.sleep(0.5)
    steps = [session["step"] for session in json.loads(sessions.read_text())]
    assert 0 == steps[0] < steps[1] < steps[2]  # each time from where the last one had come
    assert "this job is timed-out" in next((tmp_path / "jobs").glob("*_log.err")).read_text()
    rows = pd.read_csv(tmp_path / "run/metrics.csv")
    end = int(rows["step"].iloc[-1])
    assert train_one(jobs([*words, f"experiment.steps={end}", f"folder={tmp_path / 'whole'}"])[0], quiet=True) == 0
    same_tables(tmp_path / "run", tmp_path / "whole")
