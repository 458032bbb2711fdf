"""Runs as tasks of Ray. Ray's own processes take seconds to start: the long test is by hand, `-m slow`."""

import functools
import importlib.util
import json
import sys
import threading
import time
import types
from pathlib import Path

import pytest

from campaigns.chaos.compare import differences
from continual_agents.runs.lock import born, holder
from tests.helpers import refusal
from tests.tools.test_launchers import SMOKE
from tools.command_line import UsageError
from tools.launchers import make_launcher
from tools.train import jobs, train_one


def test_without_ray_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(
        UsageError, match=r"^the package ray is missing: pip install --constraint constraints.txt -e '.\[ray\]'$"
    ):
        make_launcher(["hydra/launcher=ray"])


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="the extra ray is not installed")
@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("at_once=0", "hydra.launcher.at_once=0: at least 1, or -1 for as many as there is room for"),
        ("num_cpus=0", "hydra.launcher.num_cpus=0: at least 1"),
        ("num_gpus=-1", "hydra.launcher.num_gpus=-1: must not be negative"),
        ("max_retries=-2", "hydra.launcher.max_retries=-2: at least 0, or -1 for always"),
        ("num_cpu=1", "hydra.launcher.num_cpu is unknown: did you mean 'num_cpus'?"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_settings_that_cannot_be(word: str, said: str) -> None:
    assert refusal(UsageError, make_launcher, ["hydra/launcher=ray", f"hydra.launcher.{word}"]) == said


@pytest.mark.parametrize(
    ("error", "address", "tries"),
    [
        (Exception("timed out"), None, 5),
        (Exception("timed out"), "auto", 1),
        (ConnectionError("nobody there"), None, 1),
    ],
)
def test_a_cluster_that_is_slow_to_start_is_started_again(
    monkeypatch: pytest.MonkeyPatch, error: Exception, address: str | None, tries: int
) -> None:
    calls = []

    def begin(late: int) -> None:
        def init(**_: object) -> None:
            calls.append("init")
            if calls.count("init") <= late:
                raise error

        shutdown = functools.partial(calls.append, "shutdown")
        ray = types.SimpleNamespace(
            init=init, shutdown=shutdown, is_initialized=lambda: False, cluster_resources=lambda: {"CPU": 2},
            remote=lambda function: types.SimpleNamespace(options=lambda **_: function),
        )  # fmt: skip
        monkeypatch.setitem(sys.modules, "ray", ray)
        calls.clear()
        make_launcher(["hydra/launcher=ray", f"hydra.launcher.address={address or 'null'}"])

    with pytest.raises(UsageError, match=rf"^hydra.launcher.address={address}: {error}$"):
        begin(late=9)
    assert calls.count("init") == tries
    if tries > 1:
        begin(late=2)
        assert calls == ["init", "shutdown", "init", "shutdown", "init"]


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.filterwarnings("ignore")
def test_runs_of_a_killed_node_end_elsewhere_bit_for_bit_and_a_stop_saves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three nodes on this machine, a run on each; one node is killed when its run has a checkpoint."""
    cluster_utils = pytest.importorskip("ray.cluster_utils")
    monkeypatch.setenv("RAY_worker_niceness", "0")
    words = [*SMOKE, "experiment.steps=40960", "progress=false"]
    configs = [jobs([*words, f"seed={seed}", f"folder={tmp_path}/{seed}"])[0] for seed in range(3)]
    folders = [Path(config["folder"]) for config in configs]
    for config in configs:
        whole = {**config, "folder": f"{config['folder']}_undisturbed"}
        assert train_one(whole, quiet=True) == 0

    def checkpoints(folder: Path) -> list[Path]:
        return sorted((folder / "checkpoints").glob("step_*.pt"))

    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    dead: list[Path] = []

    def kill() -> None:
        while not all(checkpoints(folder) for folder in folders):
            time.sleep(0.01)
        claims = {folder: holder(folder) for folder in folders}
        cluster.remove_node(nodes[0], allow_graceful=False)
        until = time.monotonic() + 60
        while not dead and time.monotonic() < until:
            dead.extend(folder for folder, one in claims.items() if one is not None and born(one.pid) is None)

    try:
        launcher = make_launcher(["hydra/launcher=ray", f"hydra.launcher.address={cluster.address}"])
        with launcher:
            thread = threading.Thread(target=kill)
            thread.start()
            outcomes = launcher.run(configs)
            thread.join()
            assert [outcome.kind for outcome in outcomes] == ["finished"] * 3, outcomes
            (lost,) = dead
            for folder in folders:
                steps = [session["step"] for session in json.loads((folder / "environment.json").read_text())]
                # nothing is done twice but the steps since the last checkpoint
                assert len(steps) == 1 + (folder == lost)
                assert (steps[-1] > 0) == (folder == lost)
                assert list(differences(Path(f"{folder}_undisturbed"), folder)) == []

            endless = jobs([*words, "experiment.steps=10000000", f"folder={tmp_path}/endless"])[0]
            started = launcher.start(endless)
            while not checkpoints(tmp_path / "endless"):
                time.sleep(0.1)
            while (outcome := launcher.outcome(started, endless, stopping=True)) is None:
                launcher.stop(started)
                time.sleep(0.1)
            assert outcome.kind == "stopped"
            assert holder(tmp_path / "endless") is None  # saved, and the folder given back
    finally:
        cluster.shutdown()
