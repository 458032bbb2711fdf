"""The command as the world treats it: signals, closed output, full disks, numbers that blow up."""

import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from campaigns.chaos.compare import differences
from continual_agents.runs import Run
from tests.helpers import ROOT, begun, command, ended, stopped, wait_for_rows
from tests.tools.test_train import SMOKE
from tools.train import jobs, main

WARM = ["experiment=warm_start", "scale=smoke", "save_seconds=0", "experiment.stream.epochs=60"]
DIGITS = [
    "experiment=permuted_digits", "scale=smoke", "experiment.methods=[backprop,continual_backprop]",
    "experiment.tasks=15", "save_seconds=0",
]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "number", "name"),
    [(WARM, signal.SIGTERM, "warm_start"), (DIGITS, signal.SIGINT, "permuted_digits")],
    ids=["warm start, SIGTERM", "stream, SIGINT"],
)
def test_stopped_command_saves_says_how_to_go_on_and_ends_up_the_same(
    tmp_path: Path, words: list[str], number: signal.Signals, name: str
) -> None:
    main([*words, f"folder={tmp_path / 'whole'}"])
    process, table = begun("tools.train", *words, f"folder={tmp_path / 'parts'}"), tmp_path / "parts/metrics.csv"
    wait_for_rows(table, 2, process)
    errors = stopped(process, number)
    assert "stopped and saved at step" in errors
    assert f"the same command continues {tmp_path / 'parts'}" in errors
    assert len(table.read_text().splitlines()) < len((tmp_path / "whole/metrics.csv").read_text().splitlines())
    main([*words, f"folder={tmp_path / 'parts'}"])
    assert list(differences(tmp_path / "whole", tmp_path / "parts")) == []


def test_run_outlives_closed_descriptors_and_a_reader_that_leaves(tmp_path: Path) -> None:
    """PyBullet prints from C: without descriptors 1 and 2 that would land in whatever file was opened next."""
    main([*SMOKE, f"folder={tmp_path / 'whole'}"])
    train_it = " ".join([sys.executable, "-m", "tools.train", *SMOKE])
    for name, end in (("closed", "<&- >&- 2>&-"), ("left", "2>&1 | head -c 1")):
        words = ["bash", "-c", f"set -o pipefail; {train_it} folder={tmp_path / name} {end}"]
        result = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=240)
        assert result.returncode == 0, (name, result.stderr)
        assert len(result.stdout) == (name == "left")
        assert (tmp_path / name / "figure.png").exists()
        assert list(differences(tmp_path / "whole", tmp_path / name)) == []


def test_full_disk_and_numbers_that_blow_up_are_one_line_and_exit_code_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def little_space() -> None:  # a checkpoint of the ant has 1.9 MB
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))

    words = ["progress=false", *SMOKE, f"folder={tmp_path / 'full'}"]
    full = command("tools.train", *words, preexec_fn=little_space)
    (line,) = full.stderr.splitlines()
    assert line.startswith(f"error: {tmp_path / 'full'} cannot be written: File too large. Its last good checkpoint: ")
    assert full.returncode == 1

    wild = ["progress=false", *DIGITS, "experiment.optimizer.step_size=1e30", f"folder={tmp_path / 'wild'}"]
    (line,) = ended(capsys, main, *wild, "experiment.on_not_finite=stop", code=1).splitlines()
    assert line.startswith("error: not finite by step ")
    assert "run 0 (backprop, seed 0): layer_0" in line
    assert "The last good checkpoint of" in line
    # the same folder, another option: no other run was lost
    with pytest.warns(UserWarning, match="^not finite by step"):
        main(wild)


@pytest.mark.parametrize("tool", ["train", "study"])
def test_a_command_that_is_stopped_while_it_starts_says_so(tmp_path: Path, tool: str) -> None:
    """The signal comes as soon as the process has a handler, long before the run is there."""
    words = [*DIGITS, f"folder={tmp_path / 'run'}"]
    if tool == "study":
        words = ["configs/study/smoke.yaml", "--folder", str(tmp_path / "run")]
    process = begun(f"tools.{tool}", *words)
    caught = 1 << (signal.SIGTERM - 1)
    status = Path(f"/proc/{process.pid}/status")
    while not int(re.search(r"SigCgt:\t(\w+)", status.read_text()).group(1), 16) & caught:  # type: ignore[union-attr]
        time.sleep(0.001)
    assert stopped(process, signal.SIGTERM) == "\nstopped: the same command goes on\n"
    assert not (tmp_path / "run").exists()


def test_the_second_of_two_starters_gets_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both have passed the check when the first one opens the folder."""
    words = [*DIGITS, f"folder={tmp_path / 'run'}"]
    with Run.open(tmp_path / "run", jobs(words)[0]):
        monkeypatch.setattr(Run, "check", lambda *_, **__: None)
        assert f"is in use by process {os.getpid()} on " in ended(capsys, main, *words)


def test_threads_are_part_of_the_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*DIGITS, f"folder={tmp_path / 'run'}"]
    Run.open(tmp_path / "run", jobs(words)[0]).close()
    assert "(threads: 1 there, 2 asked for)" in ended(capsys, main, *words, "threads=2")
