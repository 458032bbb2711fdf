"""What one case of a campaign may take: a bound on time that ends it, and the most memory it had."""

import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType


class Late(BaseException):
    """The bound on time; no `except Exception` may take it for an error of the command."""


def _late(number: int, frame: FrameType | None) -> None:
    raise Late


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


@contextmanager
def bounded(seconds: int, memory: int) -> Iterator[None]:
    """Ends what lies inside after so many seconds of work, and refuses it more than so many bytes on top.

    A busy machine does not count, so a wait (for a pipe, a lock) may take 30 times as long.

    Raises:
        Late: it took longer.
        AssertionError: it held more than half of that memory at some moment.
    """
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts here
    before, limits = _status("VmRSS:"), resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (_status("VmSize:") + memory, limits[1]))
    previous = {number: signal.signal(number, _late) for number in (signal.SIGALRM, signal.SIGPROF)}
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.setitimer(signal.ITIMER_REAL, 30 * seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in previous.items():
            signal.signal(number, handler)
        resource.setrlimit(resource.RLIMIT_AS, limits)
    taken = _status("VmHWM:") - before
    assert taken < memory / 2, f"{taken / 1e6:.0f} MB"
