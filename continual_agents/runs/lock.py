"""A run folder's lock, on one machine and on folders that many share.

`flock` tells processes of one machine apart and ends with its process, but network file systems often keep it to
themselves or have none. So a holder also *claims* the folder with a file that says who it is, and touches it now and
then:

```
.lock        the flock, where there is one
.lock.N      the N-th claim: host, process, since when; its modification time is the last sign of life, 0 when given back
```

The highest claim counts. The next one is made with O_EXCL, which is atomic on network file systems too, so of two that
start at the same instant one gets it. Numbers only grow: who has looked at an old state cannot take over a new one. A
process of the same machine is asked for itself; one of another machine is lost when it has given no sign of life for
`LOST` seconds. Should it wake up again, it sees the higher claim before it writes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import json
import os
import platform
import re
import threading
import time
import warnings
from pathlib import Path
from typing import Any

from continual_agents.settings import shortened

from .faults import Fault, RunError
from .files import StrangeFileError, open_file, open_in_place

BEAT = 15.0
"""Seconds between signs of life."""

LOST = 120.0
"""Seconds of silence after which a process of another machine is lost; a network file system may tell its time 60 late."""

LARGEST = 4096
"""Bytes of a claim; one has some 200."""

CLAIM = re.compile(r"\.lock\.([0-9]{1,9})")

MOST_CLAIMS = 10**9 - 2
"""Nobody has continued a run so often."""

GIVEN_BACK = 1e9
"""Times of a claim before this one (2001) say that it was given back; some file systems begin in 1980."""

HELD = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)
"""What flock says where somebody else has the lock; anything else comes from the file system."""


class LockedError(RunError):
    """Somebody else uses the folder.

    Attributes:
        lost_in: seconds until its holder counts as lost if it gives no sign of life; None if it surely lives.
    """

    def __init__(self, text: str, lost_in: float | None = None):
        super().__init__(text)
        self.lost_in = lost_in


class TakenOver(Fault):
    """This process was silent for so long that another one has taken the folder over."""


@dataclasses.dataclass(frozen=True)
class Claim:
    """Who says that a folder is theirs.

    Attributes:
        host: name of the machine.
        machine: what tells a machine, and a container on it, from every other one.
        pid: of the process.
        born: when the process began, in the machine's own count; None where that is not known.
        since: when it claimed the folder, in words.
        folder: inode of the folder, which a copy of it does not have.
    """

    host: str
    machine: str
    pid: int
    born: int | None
    since: str
    folder: int

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} since {self.since}"


def here(folder: Path) -> Claim:
    """This process's claim of a folder."""
    since = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    pid = os.getpid()
    return Claim(platform.node(), machine(), pid, born(pid), since, os.stat(folder).st_ino)


def machine() -> str:
    """What only processes of this machine and container have: its name, its boot, its space of process numbers."""
    parts = [platform.node()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)


def born(pid: int) -> int | None:
    """When a living process of this machine began; None if it is dead, or where processes cannot be looked at."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZXx" else int(fields[19])  # a zombie holds nothing any more


def lives(claim: Claim) -> bool:
    """Whether a process of this machine is still the one that made the claim."""
    if claim.born is not None:
        return born(claim.pid) == claim.born
    try:
        os.kill(claim.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it lives, and is another user's
    return True


class Lock:
    """A folder that no other process writes to, until `close` or the end of this process.

    Raises:
        LockedError: somebody else uses it.
        RunError: the lock is a link, or anything but an ordinary file.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._flock = _flock(folder)
        self._taken = False
        try:
            self.claim, self._number = self._claimed()
        except BaseException:
            os.close(self._flock)
            raise
        self._path = folder / f".lock.{self._number}"
        self._closed = threading.Event()
        self._last_sign = _clock()
        threading.Thread(target=self._beat, name=f"lock of {folder}", daemon=True).start()

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def check(self) -> None:
        """Call before writing: whether the folder is still this process's.

        Raises:
            TakenOver: it was silent for too long (suspended, or cut off from the folder) and another one has it.
        """
        if _clock() - self._last_sign > LOST / 2:
            self._sign()
        if self._taken:
            raise TakenOver(
                f"{self.folder} was taken over by another process, because this one gave no sign of life for more than "
                f"{LOST:.0f} s: nothing is lost, that one continues the run"
            )

    def close(self) -> None:
        """Give the folder back."""
        if self._closed.is_set():
            return
        self._closed.set()
        with contextlib.suppress(OSError):  # the folder may be gone
            os.utime(self._path, (0, 0))
        os.close(self._flock)

    def _claimed(self) -> tuple[Claim, int]:
        """Make the next claim, if the last one is nobody's any more."""
        own = here(self.folder)
        for _ in range(100):  # each turn somebody else was faster
            number = _newest(self.folder)
            if number > MOST_CLAIMS:
                raise RunError(f"{self.folder}/.lock.{number} is no lock of a run: do not use this folder")
            lost = self._lost_holder(number, own) if number else ""
            try:
                _write(self.folder / f".lock.{number + 1}", own)
            except FileExistsError:
                continue
            if _newest(self.folder) == number + 1:
                self._tidy(number + 1)
                if lost:
                    warnings.warn(f"{self.folder} is taken over from {lost}", stacklevel=4)
                return own, number + 1
            (self.folder / f".lock.{number + 1}").unlink(missing_ok=True)  # what we saw was old
        raise LockedError(f"{self.folder} is asked for by many processes at once: start again")

    def _lost_holder(self, number: int, own: Claim) -> str:
        """As `_lost_holder`, by the file system's own clock, which may be another than this machine's."""
        os.utime(self._flock)
        return _lost_holder(self.folder, number, own, os.fstat(self._flock).st_mtime)

    def _tidy(self, number: int) -> None:
        for entry in list(os.scandir(self.folder)):
            found = CLAIM.fullmatch(entry.name)
            if found and int(found[1]) < number:
                with contextlib.suppress(OSError):  # a folder of that name, which no run has made
                    os.unlink(entry.path)

    def _beat(self) -> None:
        while not self._closed.wait(BEAT):
            self._sign()

    def _sign(self) -> None:
        """Give a sign of life, unless the folder is another's by now."""
        try:
            self._taken = self._taken or _newest(self.folder) != self._number
            if not self._taken and not self._closed.is_set():
                os.utime(self._path)
                self._last_sign = _clock()
        except OSError:
            pass  # cut off from it for now: `check` asks again


def check_lock(folder: Path) -> None:
    """Whether somebody uses the folder now; changes nothing.

    Raises:
        LockedError: somebody does.
        RunError: as `Lock`.
    """
    if (folder / ".lock").exists():
        os.close(_flock(folder))
    if number := _newest(folder):
        _lost_holder(folder, number, here(folder), time.time())


def _flock(folder: Path) -> int:
    """The lock file, locked if its file system knows how."""
    try:
        descriptor = open_in_place(folder / ".lock", os.O_RDWR)
    except StrangeFileError as error:
        raise RunError(f"{error}, or give another folder=...") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in HELD:
            return descriptor  # no locks there: claims do without
        os.close(descriptor)
        raise LockedError(_in_use(folder, str(holder(folder) or "another process"))) from error
    return descriptor


def holder(folder: Path) -> Claim | None:
    """Who claimed the folder last, and has not given it back; None if nobody has, or it cannot be read."""
    with contextlib.suppress(OSError, RunError):
        if number := _newest(folder):
            claim, sign = _read(folder / f".lock.{number}")
            return claim if sign >= GIVEN_BACK else None
    return None


def _in_use(folder: Path, holder: str) -> str:
    return f"{folder} is in use by {holder}: wait for it, or give another folder=..."


def _newest(folder: Path) -> int:
    """Number of the claim that counts; 0: none."""
    numbers = [int(found[1]) for entry in os.scandir(folder) if (found := CLAIM.fullmatch(entry.name))]
    return max(numbers, default=0)


def _lost_holder(folder: Path, number: int, own: Claim, now: float) -> str:
    """Who was lost and when, in words; "" where nobody was, because the claim was given back or its process ended.

    Raises:
        LockedError: its process lives, or may.
    """
    try:
        claim, sign = _read(folder / f".lock.{number}")
    except FileNotFoundError:
        return ""  # tidied away under our eyes: the next claim is then not the newest
    if sign < GIVEN_BACK or (claim is not None and claim.folder != own.folder):
        return ""
    if claim is not None and claim.machine == own.machine:
        if lives(claim):
            raise LockedError(_in_use(folder, str(claim)))
        return ""
    holder, age = str(claim or "a process whose claim cannot be read"), abs(now - sign)  # a clock may have been set back
    if age < LOST:
        said = f"{holder} (last sign of life {age:.0f} s ago, lost after {LOST:.0f} s)"
        raise LockedError(_in_use(folder, said), LOST - age)
    return f"{holder}, which has given no sign of life for {age:.0f} s"


def _read(path: Path) -> tuple[Claim | None, float]:
    """A claim, None if it is damaged or not written yet, and its last sign of life."""
    try:
        with open_file(path, most=LARGEST) as file:
            sign = os.fstat(file.fileno()).st_mtime
            content = file.read(LARGEST)
    except StrangeFileError as error:
        raise RunError(f"{error}, or give another folder=...") from error
    try:
        values: Any = json.loads(content)
        kinds = {"host": str, "machine": str, "pid": int, "born": int | None, "since": str, "folder": int}
        if not isinstance(values, dict) or not all(isinstance(values.get(key), kind) for key, kind in kinds.items()):
            return None, sign
        if not 0 < values["pid"] < 2**31:
            return None, sign
        short: dict[str, Any] = {key: shortened(values[key]) if key in ("host", "since") else values[key] for key in kinds}
        return Claim(**short), sign
    except (ValueError, RecursionError):
        return None, sign


def _write(path: Path, claim: Claim) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(json.dumps(dataclasses.asdict(claim)).encode())
    except BaseException:  # no space: without its content it would be somebody's for two minutes
        path.unlink(missing_ok=True)
        raise


def _clock() -> float:
    """Seconds that go on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()
