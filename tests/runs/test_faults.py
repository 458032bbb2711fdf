"""A run and the world around it: full disks, removed folders, clocks set back, kills in the middle of a write."""

import errno
import os
import resource
import re
import shutil
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from continual_agents.runs import Checkpoints, Run, StorageError
from continual_agents.runs.output import Steady
from tests.helpers import same_tables
from tests.runs.test_run import CONFIG, curve, drive


@contextmanager
def no_file_beyond(size: int) -> Iterator[None]:
    """Writing beyond that many bytes of any file fails with EFBIG: a full disk that needs no rights to make."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)


def same(folder: Path, other: Path) -> None:
    same_tables(folder, other, ("metrics.csv",))
    assert curve(folder, "return/mean") == curve(other, "return/mean")
    assert [step for step, _ in curve(folder, "return/mean")] == list(range(1, 11))


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    with Run.open(tmp_path / "whole", CONFIG) as run:
        drive(run, 10)
    return tmp_path / "whole"


def fill(run: Run) -> None:
    """A whole disk of checkpoint."""
    run.save(5, {"weights": torch.zeros(100_000)})


@pytest.mark.parametrize("what", ["logging", "saving"])
def test_full_disk_is_one_line_and_the_run_goes_on_when_there_is_space(
    tmp_path: Path, whole: Path, what: str, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "full"
    with Run.open(folder, CONFIG) as run:
        drive(run, 4, save_at=3)
    message = f"{folder} cannot be written: File too large. Its last good checkpoint: step 3. Give it space"
    with (
        pytest.raises(StorageError, match=message) as caught,
        Run.open(folder, CONFIG) as run,
        no_file_beyond((folder / "metrics.csv").stat().st_size + 100 if what == "logging" else 100_000),
    ):
        drive(run, 9) if what == "logging" else fill(run)
    assert "\n" not in str(caught.value)
    assert "Traceback" not in capfd.readouterr().err  # of TensorBoard's thread
    assert not list(folder.rglob("*.tmp"))
    with Run.open(folder, CONFIG) as run:
        assert run.step == 3
        drive(run, 10)
    same(folder, whole)


def test_disk_that_is_full_at_the_start_is_told_too(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="last good checkpoint: as it was"), no_file_beyond(10):
        Run.open(tmp_path, CONFIG)
    with Run.open(tmp_path, CONFIG) as run:  # the lock was let go
        drive(run, 10)


def test_errors_from_elsewhere_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no_such_data"), Run.open(tmp_path, CONFIG):
        open(tmp_path.parent / "no_such_data")
    with pytest.raises(StorageError, match="No such file"), Run.open(tmp_path / "gone", CONFIG) as run:
        shutil.rmtree(tmp_path / "gone")
        run.save(1, {})


def test_removed_event_file_is_said_once_and_the_table_stays_whole(tmp_path: Path, whole: Path) -> None:
    with Run.open(tmp_path / "run", CONFIG) as run:
        drive(run, 4, save_at=4)
        run.state = run._checkpoints.load()["state"]["run"]  # type: ignore[index]
        for path in (tmp_path / "run").glob("events.out.tfevents.*"):
            path.unlink()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            drive(run, 10)
    (warning,) = [str(one.message).split("/")[-1] for one in caught]
    assert re.fullmatch(r"events\.out\.\S+ was removed: its curves begin again, the tables are whole", warning)
    same_tables(tmp_path / "run", whole, ("metrics.csv",))
    assert [step for step, _ in curve(tmp_path / "run", "return/mean")] == list(range(5, 11))


@pytest.mark.parametrize("jump", [0.0, -3600.0, 3600.0], ids=["same second", "set back", "set forward"])
def test_curves_go_on_whatever_the_clock_says(
    tmp_path: Path, whole: Path, jump: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [time.time()]
    monkeypatch.setattr(time, "time", lambda: now[0])
    folder = tmp_path / "run"
    for number, until in enumerate((4, 7, 8, 10)):
        with Run.open(folder, CONFIG) as run:
            assert run.step == (0, 3, 6, 7)[number]
            drive(run, until, save_at=until - 1 if until < 10 else None)
        now[0] += jump
    same(folder, whole)


def test_checkpoints_are_timed_by_a_clock_that_nobody_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Run.open(tmp_path, CONFIG, save_seconds=60) as run:
        monkeypatch.setattr(time, "time", lambda: 0.0)
        assert not run.save_due()
        monkeypatch.setattr(time, "time", lambda: 1e12)
        assert not run.save_due()
        later = time.monotonic() + 61
        monkeypatch.setattr(time, "monotonic", lambda: later)
        assert run.save_due()


def test_no_more_than_a_fiftieth_of_a_run_is_spent_on_saving_unless_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Run.open(tmp_path / "a", CONFIG, save_seconds=1) as run:
        run.save_cost, start = 2.0, run._last_save
        with monkeypatch.context() as patch:
            patch.setattr(time, "monotonic", lambda: start + 99)
            assert not run.save_due()
            patch.setattr(time, "monotonic", lambda: start + 100)
            assert run.save_due()
    with Run.open(tmp_path / "b", CONFIG, save_seconds=0) as run:
        run.save_cost = 2.0
        assert run.save_due()
        later = time.monotonic() + 5  # the state has been gathered
        monkeypatch.setattr(time, "monotonic", lambda: later)
        run.save(1, {})
        assert run.save_cost == pytest.approx(5, abs=1)


def test_row_written_after_a_checkpoint_of_its_own_step_is_not_drawn_twice(tmp_path: Path) -> None:
    # a stream's checkpoint may lie between the last chunk of a row and the row
    with Run.open(tmp_path, CONFIG) as run:
        run.log(10, {"return/mean": 1.0})
        run.save(20, {})
        run.log(20, {"return/mean": 2.0})
    with Run.open(tmp_path, CONFIG) as run:
        run.log(20, {"return/mean": 2.0})
    assert curve(tmp_path, "return/mean") == [(10, 1.0), (20, 2.0)]


def test_final_metrics_do_not_depend_on_where_the_run_was_continued(tmp_path: Path) -> None:
    with Run.open(tmp_path, CONFIG) as run:
        run.log(1, {"return/mean": 1.0, "plasticity/dead_units": 0.25})
        run.save(1, {})
    with Run.open(tmp_path, CONFIG) as run:
        run.log(2, {"return/mean": 2.0, "plasticity/dead_units": np.nan})  # nobody looked
        told: list[tuple[int, dict[str, float]]] = []
        run.loggers.all[0].finish = lambda step, metrics: told.append((step, metrics))
        run.finish(2, {})
    assert told == [(2, {"return/mean": 2.0, "plasticity/dead_units": 0.25})]


class KilledError(BaseException):
    """Stands for SIGKILL."""


@pytest.mark.parametrize("renames", [0, 1])
def test_kill_anywhere_in_a_write_leaves_the_old_checkpoint_or_the_new_one(
    tmp_path: Path, renames: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The digest is renamed into place first, the checkpoint second; the only one there is written again."""
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, {"x": 1})
    replace, left = os.replace, [renames]

    def dying(source: Path, target: Path) -> None:
        if not left[0]:
            raise KilledError
        left[0] -= 1
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", dying)
        patch.setattr(Path, "unlink", lambda *_, **__: None)  # a killed process tidies nothing up
        with pytest.raises(KilledError):
            checkpoints.save(1, {"x": 2})
    assert list(tmp_path.glob(".*.tmp"))
    content = checkpoints.load()  # a warning would be an error
    assert content is not None
    assert content["state"]["x"] == 1
    checkpoints.save(1, {"x": 3})
    assert checkpoints.load()["state"]["x"] == 3  # type: ignore[index]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step_000000000001.pt", "step_000000000001.sha256"]


def test_damaged_checkpoint_of_a_later_step_goes_when_the_run_has_gone_on(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for step in (10, 20):
        checkpoints.save(step, {"x": step})
    (tmp_path / "step_000000000020.pt").write_bytes(b"damaged")
    with pytest.warns(UserWarning, match="falling back"):
        checkpoints.load()
    checkpoints.save(15, {"x": 15})  # the clock decides where checkpoints lie: not at 20 again
    assert [path.stem for path in checkpoints.paths()] == ["step_000000000010", "step_000000000015"]
    assert checkpoints.load()["state"]["x"] == 15  # type: ignore[index]


def test_what_nobody_reads_is_lost_and_nothing_else(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w") as pipe:
        stream = Steady(pipe)
        stream.write("nobody ")
        stream.flush()
        stream.write("reads this")
        stream.flush()
        assert os.readlink(f"/proc/self/fd/{writing}") == os.devnull
    closed = Steady(pipe)
    assert closed.write("nor this") == 8
    closed.flush()
    with open(tmp_path / "log", "w") as file:
        print("kept", file=Steady(file))
    assert (tmp_path / "log").read_text() == "kept\n"


def test_storage_errors_are_those_of_the_disk() -> None:
    from continual_agents.runs.faults import storage_error

    folder = Path("/runs/a")
    for number in (errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EIO):
        assert storage_error(OSError(number, os.strerror(number)), folder, "step 5") is not None
    assert storage_error(PermissionError(errno.EACCES, "denied", "/runs/a/metrics.csv"), folder, "step 5") is not None
    assert storage_error(PermissionError(errno.EACCES, "denied", "/data/mnist"), folder, "step 5") is None
    assert storage_error(BrokenPipeError(errno.EPIPE, "broken"), folder, "step 5") is None
    assert storage_error(ValueError("x"), folder, "step 5") is None
