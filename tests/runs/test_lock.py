"""Who may write to a run folder: on one machine, on several that share it, with and without flock."""

import errno
import fcntl
import os
import shutil
import signal
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from continual_agents.runs import Fault, Lock, LockedError, Run, RunError, lock
from tests.runs.test_run import CONFIG, drive


@pytest.fixture
def no_flock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system without locks, or one that keeps them to each machine."""

    def flock(file: Any, how: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)


def on(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    """From here on this process is on another machine."""
    monkeypatch.setattr(lock.platform, "node", lambda: host)
    monkeypatch.setattr(lock, "machine", lambda: f"{host} its-boot its-processes")


def silent(folder: Path, seconds: float) -> None:
    """The last sign of life of the folder's holder was so long ago."""
    (claim,) = folder.glob(".lock.*")
    then = time.time() - seconds
    os.utime(claim, (then, then))


def forked(work: Callable[[], int]) -> int:
    """A process that does it and ends with what it returns."""
    if process := os.fork():
        return process
    status = 99
    try:
        status = work()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


@pytest.mark.usefixtures("no_flock")
def test_of_starters_at_the_same_instant_one_gets_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight processes on eight machines, again and again, over folders that were given back or lost."""
    for turn in range(10):
        start, done = os.pipe(), os.pipe()

        def work(number: int) -> Callable[[], int]:
            def run(start: tuple[int, int] = start, done: tuple[int, int] = done) -> int:
                on(monkeypatch, f"node{number}")
                warnings.simplefilter("ignore")
                os.close(start[1])
                os.close(done[1])
                os.read(start[0], 1)  # nothing comes: it ends when the parent closes it
                try:
                    Lock(tmp_path)
                except LockedError:
                    return 1
                os.read(done[0], 1)
                os._exit(0)  # without giving it back

            return run

        processes = [forked(work(number)) for number in range(8)]
        os.close(start[1])
        lost = [os.waitstatus_to_exitcode(os.wait()[1]) for _ in range(7)]
        os.close(done[1])
        won = os.waitstatus_to_exitcode(os.wait()[1])
        os.close(start[0])
        os.close(done[0])
        assert (lost, won) == ([1] * 7, 0)
        assert len(processes) == 8
        assert [path.name for path in tmp_path.glob(".lock.*")] == [f".lock.{turn + 1}"]
        silent(tmp_path, 1000 if turn % 2 else time.time())


@pytest.mark.usefixtures("no_flock")
def test_a_living_holder_on_another_machine_is_named_and_a_lost_one_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on(monkeypatch, "node1")
    first = Run.open(tmp_path, CONFIG)
    drive(first, 2, save_at=2)
    on(monkeypatch, "node2")
    silent(tmp_path, 50)
    for look in (Run.check, Run.open):
        with pytest.raises(LockedError, match=rf"in use by process {os.getpid()} on node1 since 2.*\(last sign") as caught:
            look(tmp_path, CONFIG)
        assert caught.value.lost_in == pytest.approx(lock.LOST - 50, abs=5)
        assert "\n" not in str(caught.value)
    silent(tmp_path, lock.LOST + 1)
    Run.check(tmp_path, CONFIG)
    with pytest.warns(UserWarning, match=r"taken over from process \d+ on node1 since .*, which has given no sign of life"):
        second = Run.open(tmp_path, CONFIG)
    assert second.step == 2
    # node1 was only cut off: it finds out before it writes
    before = (tmp_path / "metrics.csv").read_bytes()
    monkeypatch.setattr(lock, "_clock", lambda: time.monotonic() + 1e9)
    for write in (lambda: first.log(3, {"return/mean": 0.0}), lambda: first.save(3, {})):
        with pytest.raises(Fault, match="was taken over by another process, because this one gave no sign of life"):
            write()
    assert (tmp_path / "metrics.csv").read_bytes() == before
    drive(second, 10)
    second.close()
    first.close()
    with Run.open(tmp_path, CONFIG) as third:  # given back, though the first came last
        assert third.finished


def test_a_suspended_process_that_was_not_missed_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Run.open(tmp_path, CONFIG) as run:
        monkeypatch.setattr(lock, "_clock", lambda: time.monotonic() + 1e9)
        drive(run, 10)
        assert run.finished


@pytest.mark.parametrize("flock", [True, False])
def test_a_killed_process_of_this_machine_is_known_to_be_dead_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, flock: bool
) -> None:
    if not flock:
        request.getfixturevalue("no_flock")
    ready, told = os.pipe()

    def hold() -> int:
        Lock(tmp_path)
        os.write(told, b"x")
        time.sleep(100)
        return 0

    process = forked(hold)
    os.read(ready, 1)
    with pytest.raises(LockedError, match=f"in use by process {process} on ") as caught:
        Lock(tmp_path)
    assert caught.value.lost_in is None
    os.kill(process, signal.SIGKILL)
    os.waitid(os.P_PID, process, os.WEXITED | os.WNOWAIT)
    Lock(tmp_path).close()  # nobody has taken note of its end yet: a zombie holds nothing
    os.waitpid(process, 0)
    os.close(ready)
    os.close(told)


def test_number_of_a_dead_process_may_be_another_ones_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "born", lambda pid: 5)
    held = Lock(tmp_path)
    monkeypatch.undo()
    os.close(held._flock)  # as its process would have
    Lock(tmp_path).close()


def test_a_copy_of_a_folder_in_use_is_free(tmp_path: Path) -> None:
    with Run.open(tmp_path / "run", CONFIG) as run:
        drive(run, 2, save_at=2)
        shutil.copytree(tmp_path / "run", tmp_path / "copy")
        with Run.open(tmp_path / "copy", CONFIG) as other:
            assert other.step == 2


@pytest.mark.usefixtures("no_flock")
def test_a_holder_gives_signs_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "BEAT", 0.01)
    with Lock(tmp_path):
        silent(tmp_path, 1000)
        (claim,) = tmp_path.glob(".lock.*")
        deadline = time.monotonic() + 60
        while time.time() - claim.stat().st_mtime > 100:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert claim.stat().st_mtime == 0  # given back


@pytest.mark.usefixtures("no_flock")
def test_who_sees_an_old_state_of_the_folder_takes_nothing_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network file system may list a folder as it was a minute ago."""
    Lock(tmp_path).close()
    with Lock(tmp_path):  # the second claim; the first one is gone
        newest, old = lock._newest, iter([0])
        monkeypatch.setattr(lock, "_newest", lambda folder: next(old, newest(folder)))
        with pytest.raises(LockedError):
            Lock(tmp_path)
        assert [path.name for path in tmp_path.glob(".lock.*")] == [".lock.2"]


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"host": 5}', b"[" * 4000, b'{"pid": -1}', b"\xff"])
@pytest.mark.usefixtures("no_flock")
def test_a_damaged_claim_counts_as_lost_after_a_while(tmp_path: Path, content: bytes) -> None:
    (tmp_path / ".lock.7").write_bytes(content)
    with pytest.raises(LockedError, match="a process whose claim cannot be read .last sign of life 0 s ago, lost after"):
        Lock(tmp_path)
    silent(tmp_path, 1000)
    with pytest.warns(UserWarning, match="is taken over from a process whose claim cannot be read"):
        Lock(tmp_path).close()
    assert [path.name for path in tmp_path.glob(".lock.*")] == [".lock.8"]


def test_numbers_that_no_run_has_are_refused(tmp_path: Path) -> None:
    (tmp_path / ".lock.999999999").write_text("")
    silent(tmp_path, time.time())
    with pytest.raises(RunError, match="is no lock of a run: do not use this folder"):
        Lock(tmp_path)
    (tmp_path / ".lock.999999999").rename(tmp_path / ".lock.9999999999")  # not one of ours
    Lock(tmp_path).close()


def test_no_thread_is_left(tmp_path: Path) -> None:
    before = threading.active_count()
    Lock(tmp_path).close()
    deadline = time.monotonic() + 60
    while threading.active_count() > before:
        assert time.monotonic() < deadline
        time.sleep(0.01)
