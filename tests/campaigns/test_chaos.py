"""The kill campaign: what it counts as a difference, and a short one."""

import os
import shutil
import signal
from pathlib import Path

import pandas as pd
import pytest
import torch

from campaigns.chaos.compare import differences, unequal
from campaigns.chaos.launched import process_of
from continual_agents.runs import Checkpoints, Lock, Run
from tests.helpers import command, ended
from tests.runs.test_run import CONFIG, drive


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    for name in ("a", "b"):
        with Run.open(tmp_path / name, CONFIG) as run:
            drive(run, 10)
    return tmp_path / "a", tmp_path / "b"


def test_two_runs_of_the_same_seed_do_not_differ(pair: tuple[Path, Path]) -> None:
    assert list(differences(*pair)) == []


def test_a_digit_of_the_table_a_bit_of_the_state_and_a_point_of_a_curve_are_differences(
    pair: tuple[Path, Path],
) -> None:
    whole, other = pair
    table = other / "metrics.csv"
    text = table.read_text()
    table.write_text(text.replace("\n5,", "\n6,"))
    assert list(differences(*pair)) == ["metrics.csv differs"]
    table.write_text(text)

    checkpoints = Checkpoints(other / "checkpoints")
    content = checkpoints.load()
    assert content is not None
    content["state"]["run"]["total"] += 1e-15
    checkpoints.save(content["step"], content["state"])
    (found,) = differences(*pair)
    assert found.startswith("state/run/total: ")
    shutil.copytree(whole / "checkpoints", other / "checkpoints", dirs_exist_ok=True)

    with Run.open(other, CONFIG) as run:  # its own point of step 10, again
        run._logged = 9
        run.log(10, {"return/mean": 0.0}, table=False)
    assert list(differences(*pair)) == [
        "curve charts/episodic_return differs: 10 and 10 points",
        "curve glance/return differs: 10 and 10 points",  # the same points to scale, for the overview
    ]


def test_a_curve_that_overlaps_itself_is_said(pair: tuple[Path, Path]) -> None:
    for folder in pair:
        with Run.open(folder, CONFIG) as run:
            run._logged = 10  # as if nothing had to be hidden
            run.log(10, {"return/mean": 0.0}, table=False)
    assert [found.split(":")[0] for found in differences(*pair)] == [
        f"curve {tag} of {name} overlaps itself"
        for tag in ("charts/episodic_return", "glance/return")
        for name in ("a", "b")
    ]


def test_states_are_compared_by_their_bits() -> None:
    nan = float("nan")
    assert list(unequal({"x": [nan, 1.0]}, {"x": [nan, 1.0]})) == []
    assert list(unequal({"x": torch.tensor([nan])}, {"x": torch.tensor([nan])})) == []
    assert list(unequal({"x": torch.tensor(0.0)}, {"x": torch.tensor(-0.0)})) == ["state/x differs"]
    assert list(unequal([0.0], [-0.0])) == ["state/0: 0.0 and -0.0"]
    assert list(unequal({"x": 1}, {"y": 1})) != []
    assert list(unequal(torch.zeros(2), torch.zeros(2, dtype=torch.float64))) == ["state differs"]


def test_a_short_campaign_survives(tmp_path: Path) -> None:
    words = ["--kills", "2", "--runs", "slowly_changing_regression", "--folder", str(tmp_path / "runs")]
    result = command("campaigns.chaos", *words)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.endswith("2 of 2 identical\n")
    undisturbed = tmp_path / "runs/slowly_changing_regression/undisturbed"
    assert len(pd.read_csv(undisturbed / "metrics.csv")) == 12 * 4
    assert "slowly_changing_regression" in result.stdout


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_whole_campaign_survives() -> None:
    result = command("campaigns.chaos", timeout=3600)
    assert result.stdout.endswith("100 of 100 identical\n"), result.stdout + result.stderr


def test_wrong_options_are_told_before_anything_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from campaigns.chaos.__main__ import main

    (tmp_path / "file").touch()
    for words, message in ((["--kills", "0"], "at least 1"), (["--folder", str(tmp_path)], "is not empty")):
        assert message in ended(capsys, main, *words)


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.parametrize("launcher", ["pool", "submitit_local"])
def test_killed_processes_of_a_launcher_change_nothing(launcher: str, tmp_path: Path) -> None:
    words = ["--runs", "slowly_changing_regression", "--folder", str(tmp_path / "chaos")]
    result = command("campaigns.chaos", "--launcher", launcher, "--kills", "2", *words, timeout=3000)
    assert result.returncode == 0, result.stderr
    assert "2 of 2 identical" in result.stdout


def test_the_process_of_a_run_is_who_holds_its_lock(tmp_path: Path) -> None:
    assert process_of(tmp_path / "none") is None
    ready, told = os.pipe()
    if not (process := os.fork()):
        Lock(tmp_path)
        os.write(told, b"x")
        signal.pause()
    os.read(ready, 1)
    assert process_of(tmp_path) == process
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    assert process_of(tmp_path) is None
    with Lock(tmp_path):
        assert process_of(tmp_path) is None  # never this one
    os.close(ready)
    os.close(told)
