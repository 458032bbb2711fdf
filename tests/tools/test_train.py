"""The entry as a person meets it: one command, its files, its errors, Ctrl-C and the same command again."""

import signal
import subprocess
from pathlib import Path

import pandas as pd
import pytest
import yaml

from continual_agents.runs import Run
from tests.helpers import begun, command, events_of, same_tables, stopped, wait_for_rows
from tools.train import draw, main

SMOKE = ["experiment=slippery_ant", "scale=smoke", "experiment.steps=1024", "save_seconds=0"]


def train(*words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return command("tools.train", *words, check=check)


def test_one_command_leaves_a_table_curves_a_figure_and_the_way_on(tmp_path: Path) -> None:
    result = train(*SMOKE, "method=continual_backprop", f"folder={tmp_path}")
    assert "continual backprop" in result.stdout
    assert f"tensorboard --logdir {tmp_path}" in result.stdout
    assert (tmp_path / "figure.png").stat().st_size > 10_000
    config = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert config["experiment"]["steps"] == 1024
    frame = pd.read_csv(tmp_path / "metrics.csv")
    assert frame["step"].tolist() == [512, 1024]
    assert frame["surgery/replaced"].iloc[-1] > 0
    events = events_of(tmp_path)
    tags = set(events.Tags()["scalars"])
    assert {
        "charts/episodic_return", "charts/friction", "charts/task", "charts/step_size", "episode/length", "loss/policy",
        "loss/value", "policy/kl", "policy/entropy", "plasticity/dead_units", "plasticity/weight_magnitude",
        "plasticity/effective_rank", "surgery/replaced", "surgery/eligible", "time/frames_per_second",
    } <= tags  # fmt: skip
    assert [event.step for event in events.Scalars("loss/policy")] == [512, 1024]
    again = train(*SMOKE, "method=continual_backprop", f"folder={tmp_path}")
    assert "is finished (1024 steps): nothing to do" in again.stderr


def test_interrupted_command_saves_says_how_to_go_on_and_ends_up_the_same(tmp_path: Path) -> None:
    words = [*SMOKE, "experiment.steps=6144", "method=redo"]
    main([*words, f"folder={tmp_path / 'whole'}"])
    process, table = begun("tools.train", *words, f"folder={tmp_path / 'parts'}"), tmp_path / "parts/metrics.csv"
    wait_for_rows(table, 2, process)
    assert "the same command continues" in stopped(process, signal.SIGINT)
    assert len(table.read_text().splitlines()) < 13
    main([*words, f"folder={tmp_path / 'parts'}"])  # in a process that has done other things
    same_tables(tmp_path / "whole", tmp_path / "parts")


def test_run_stopped_before_its_first_row_draws_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Run.open(tmp_path, {"seed": 0}) as run:
        run.save(0, {})
    draw([tmp_path], {})
    assert capsys.readouterr().err == "nothing to draw yet: no run has logged a row\n"


def test_truncated_checkpoint_falls_back_to_the_good_one_and_says_so(tmp_path: Path) -> None:
    words = [*SMOKE, "method=ppo", f"folder={tmp_path}"]
    main(words)
    (good, newest) = sorted((tmp_path / "checkpoints").glob("*.pt"))
    newest.write_bytes(newest.read_bytes()[:-100])
    said = train(*words).stderr
    expected = f"warning: {newest}: its content does not match its .sha256; falling back to {good.name}"
    assert expected in said.splitlines()
    assert pd.read_csv(tmp_path / "metrics.csv")["step"].tolist() == [512, 1024]


def test_several_methods_run_in_processes_of_their_own_and_share_a_figure(tmp_path: Path) -> None:
    folder = f"folder={tmp_path}/${{method.name}}"
    result = train(*SMOKE, "experiment.steps=512", "method=ppo,continual_backprop", folder, "-m")
    assert f"figure:      {tmp_path}/figure.png" in result.stdout
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {"ppo", "continual_backprop", "comparison"}
