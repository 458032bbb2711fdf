import copy
import csv
import math
import signal
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from continual_agents.runs import (
    CheckpointError,
    Checkpoints,
    Run,
    RunError,
    Table,
    generator_state,
    read_checkpoint,
    set_generator_state,
)
from continual_agents.runs.checkpoint import FORMAT
from continual_agents.runs.provenance import git_state
from continual_agents.runs.tags import tag_of
from tests.errors.files import Touch
from tests.helpers import ROOT, events_of, refusal, same_tables

CONFIG = {"experiment": {"name": "walk", "steps": 10}, "seed": 0}


def curve(folder: Path, name: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in events_of(folder, scalars=0).Scalars(tag_of(name))]


def drive(run: Run, until: int, *, save_at: int | None = None) -> None:
    """A run whose metric is a running sum of random draws: any lost state shows."""
    generator = np.random.default_rng(0)
    total = 0.0
    if run.state is not None:
        set_generator_state(generator, run.state["generator"])
        total = run.state["total"]
    for step in range(run.step + 1, until + 1):
        total += float(generator.normal())
        run.log(step, {"return/mean": total, "plasticity/dead_units": math.nan}, timing={"time/x": 1.0})
        if step == save_at:
            run.save(step, {"generator": generator_state(generator), "total": total})
    if until == 10:
        run.finish(until, {"generator": generator_state(generator), "total": total})


def test_interrupted_run_continues_table_and_curves_exactly(tmp_path: Path) -> None:
    with Run.open(tmp_path / "a", CONFIG) as run:
        drive(run, 10)
    with Run.open(tmp_path / "b", CONFIG) as run:
        drive(run, 7, save_at=4)  # steps 5 to 7 are lost with the process
    with Run.open(tmp_path / "b", CONFIG) as run:
        assert run.step == 4
        drive(run, 10)
    same_tables(tmp_path / "a", tmp_path / "b", ("metrics.csv",))
    for tag in ("return/mean", "glance/return"):
        assert curve(tmp_path / "a", tag) == curve(tmp_path / "b", tag)
    assert [step for step, _ in curve(tmp_path / "b", "return/mean")] == list(range(1, 11))
    with Run.open(tmp_path / "b", CONFIG) as run:
        assert run.finished


def test_run_killed_before_its_first_checkpoint_starts_over_without_overlap(tmp_path: Path) -> None:
    with Run.open(tmp_path, CONFIG) as run:
        drive(run, 3)
    with Run.open(tmp_path, CONFIG) as run:
        drive(run, 10)
    assert len(pd.read_csv(tmp_path / "metrics.csv")) == 10
    assert [step for step, _ in curve(tmp_path, "return/mean")] == list(range(1, 11))


def test_other_configuration_is_refused_with_the_keys_that_differ(tmp_path: Path) -> None:
    Run.open(tmp_path, CONFIG).close()
    other = {"experiment": {"name": "walk", "steps": 20}, "seed": 1}
    with pytest.raises(RunError, match=r"\(experiment.steps: 10 there, 20 asked for; seed: 0 there, 1 asked for\)"):
        Run.open(tmp_path, other)
    said = refusal(RunError, Run.open, tmp_path, other, may_change=["experiment.steps"])
    assert "seed" in said
    assert "steps" not in said


def test_second_process_on_the_folder_is_refused(tmp_path: Path) -> None:
    run = Run.open(tmp_path, CONFIG)
    with pytest.raises(RunError, match=r"in use by process \d+ on .* since \d{4}-.*: wait for it"):
        Run.open(tmp_path, CONFIG)
    run.close()
    Run.open(tmp_path, CONFIG).close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_ask_the_run_to_stop(tmp_path: Path, number: signal.Signals) -> None:
    script = textwrap.dedent(f"""
        import os, signal, time
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup hands an ignored one on, and a run then ignores it too
        from continual_agents.runs import Run
        with Run.open({str(tmp_path)!r}, {{"seed": 0}}) as run:
            assert not run.stop_requested
            os.kill(os.getpid(), {int(number)})
            time.sleep(0.01)
            assert run.stop_requested
            run.save(5, {{}})
    """)
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)
    with Run.open(tmp_path, {"seed": 0}) as run:
        assert run.step == 5


def test_log_runs_writes_one_row_per_run_and_the_interval_of_each_group(tmp_path: Path) -> None:
    with Run.open(tmp_path, CONFIG) as run:
        run.log_runs(100, {"accuracy": torch.tensor([0.2, 0.4, 0.9, 0.9])}, groups=["sgd", "sgd", "cbp", "cbp"])
    frame = pd.read_csv(tmp_path / "metrics.csv")
    assert frame["run"].tolist() == [0, 1, 2, 3]
    np.testing.assert_allclose(frame["accuracy"], [0.2, 0.4, 0.9, 0.9], rtol=1e-6)
    # mean .3, standard deviation .1414, standard error .1: interval .3 -+ .196
    assert curve(tmp_path / "sgd", "accuracy")[0] == pytest.approx((100, 0.3))
    assert curve(tmp_path / "sgd", "interval/accuracy/low")[0] == pytest.approx((100, 0.104), abs=1e-6)
    assert curve(tmp_path / "cbp", "interval/accuracy/high")[0] == pytest.approx((100, 0.9))


def test_hyperparameters_and_layout_are_in_the_event_file(tmp_path: Path) -> None:
    with Run.open(tmp_path, CONFIG) as run:
        drive(run, 10)
    events = events_of(tmp_path)
    # without a summary of the experiment: the tab makes its own, in which the settings that differ lead
    assert set(events.PluginTagToContent("hparams")) == {"_hparams_/session_start_info", "_hparams_/session_end_info"}
    assert "custom_scalars__config__" in events.Tags()["tensors"]
    assert not [tag for tag in events.Tags()["scalars"] if tag.startswith("final/")]


def test_table_cuts_what_came_after_the_checkpoint_and_keeps_bits(tmp_path: Path) -> None:
    table = Table(tmp_path / "t.csv")
    values = [0.1 + 0.2, 1e-310, -0.0, math.pi, np.float32(0.1)]
    for value in values:
        table.append({"x": value, "n": 1})
    table.close()
    table = Table(tmp_path / "t.csv", rows=4)
    table.append({"x": 7.0})
    table.close()
    with open(tmp_path / "t.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["x"]) for row in rows] == [*[float(v) for v in values[:4]], 7.0]
    assert rows[-1]["n"] == "nan"


def test_table_refuses_a_late_column_and_missing_rows(tmp_path: Path) -> None:
    table = Table(tmp_path / "t.csv")
    table.append({"x": 1.0})
    with pytest.raises(ValueError, match=r"has no column \['y'\]"):
        table.append({"y": 2.0})
    table.close()
    with pytest.raises(ValueError, match="has 1 whole rows but the checkpoint counted 3"):
        Table(tmp_path / "t.csv", rows=3)


def test_a_run_of_another_version_is_refused_in_one_line(tmp_path: Path) -> None:
    with Run.open(tmp_path, CONFIG) as run:
        run.log(1, {"loss": 1.0})
        run.save(1, {"weights": torch.zeros(2, 4)})
        with pytest.raises(ValueError, match="no column"):  # within a session it is the caller's mistake
            run.log(2, {"loss": 1.0, "new": 0.0})
    with Run.open(tmp_path, CONFIG) as run:
        other = r"does not fit this version of the code \(.*\): continue it with the version that wrote it"
        with pytest.raises(RunError, match=other), run.continuing():
            torch.zeros(2, 16).copy_(run.state["weights"])
        with pytest.raises(RunError, match=other):
            run.log(2, {"loss": 1.0, "new": 0.0})
        with pytest.raises(RunError, match=other):
            run.log_runs(2, {"new": np.zeros(1)})
        run.log(2, {"loss": 2.0})


def test_rows_that_were_taken_out_are_missed_in_one_line(tmp_path: Path) -> None:
    with Run.open(tmp_path, CONFIG) as run:
        run.log(1, {"loss": 1.0})
        run.save(1, {})
    (tmp_path / "metrics.csv").write_text("step,loss\n")
    for look in (Run.check, Run.open):
        with pytest.raises(RunError, match="the file was edited; start in a new folder"):
            look(tmp_path, CONFIG)
    (tmp_path / "metrics.csv").unlink()
    with pytest.raises(RunError, match="metrics.csv is gone and the checkpoint counted 1 rows of it: put it back, or"):
        Run.check(tmp_path, CONFIG)


def test_damaged_checkpoint_falls_back_to_the_last_good_one(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for step in (1, 2, 3):
        checkpoints.save(step, {"x": torch.full((1000,), float(step))})
    assert [path.name for path in checkpoints.paths()] == ["step_000000000002.pt", "step_000000000003.pt"]
    newest = checkpoints.paths()[-1]
    newest.write_bytes(newest.read_bytes()[:-100])
    with pytest.warns(UserWarning, match="does not match its .sha256; falling back to step_000000000002.pt"):
        content = checkpoints.load()
    assert content is not None
    assert content["step"] == 2
    assert content["state"]["x"][0] == 2
    checkpoints.paths()[0].with_suffix(".sha256").unlink()
    with pytest.raises(CheckpointError, match="none of the 2 checkpoints"):
        checkpoints.load()


def test_checkpoint_with_code_is_refused_without_running_it(tmp_path: Path) -> None:
    torch.save({"format": FORMAT, "step": 0, "state": Touch(tmp_path)}, tmp_path / "evil.pt")
    with pytest.raises(CheckpointError, match="asks for code to be run: do not use this file"):
        read_checkpoint(tmp_path / "evil.pt")
    assert not (tmp_path / "it_ran").exists()


def test_checkpoint_that_would_unpack_to_more_than_it_is_is_refused(tmp_path: Path) -> None:
    """One stored member under many names of the directory, as in an overlapping zip bomb."""
    path = tmp_path / "bomb.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("bomb/data/0", bytes(100_000))
        for number in range(1, 1000):
            member = copy.copy(archive.infolist()[0])
            member.filename = member.orig_filename = f"bomb/data/{number}"
            archive.filelist.append(member)
            archive.NameToInfo[member.filename] = member
    assert path.stat().st_size < 200_000
    with pytest.raises(CheckpointError, match="would unpack from .* to 100,000,000 bytes: do not use this file"):
        read_checkpoint(path)


def test_state_that_would_need_code_to_load_is_refused_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"state\['agent'\]\[1\] is a Touch"):
        Checkpoints(tmp_path).save(0, {"agent": [1.0, Touch(tmp_path)]})
    assert not Checkpoints(tmp_path).paths()


def test_checkpoint_of_another_version_is_refused(tmp_path: Path) -> None:
    torch.save({"format": 99, "step": 0, "state": {}}, tmp_path / "future.pt")
    with pytest.raises(CheckpointError, match="has checkpoint format 99, this version reads 2"):
        read_checkpoint(tmp_path / "future.pt")


def test_generator_states_round_trip_through_a_checkpoint(tmp_path: Path) -> None:
    torch_generator, numpy_generator = torch.Generator().manual_seed(5), np.random.default_rng(5)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(0, {"torch": generator_state(torch_generator), "numpy": generator_state(numpy_generator)})
    expected = torch.rand(3, generator=torch_generator), numpy_generator.random(3)
    content = checkpoints.load()
    assert content is not None
    other_torch, other_numpy = torch.Generator(), np.random.default_rng()
    set_generator_state(other_torch, content["state"]["torch"])
    set_generator_state(other_numpy, content["state"]["numpy"])
    assert torch.equal(torch.rand(3, generator=other_torch), expected[0])
    np.testing.assert_array_equal(other_numpy.random(3), expected[1])
    with pytest.raises(ValueError, match="is of a 'torch' generator"):
        set_generator_state(other_numpy, content["state"]["torch"])


def test_the_commit_is_this_projects_wherever_it_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    if own.returncode:
        pytest.skip("this is no git checkout")
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    monkeypatch.chdir(tmp_path)
    state = git_state()
    assert state is not None
    assert state["commit"] == own.stdout.strip()
