"""Ctrl-C and SIGTERM while a command still imports what it needs, which takes seconds: imported before all that."""

import signal
import sys


def stop_while_starting() -> None:
    """A signal ends a command that has not begun yet, or has ended, with 128 + its number and one line: no failure."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)


def _stop(number: int, frame: object) -> None:
    print("\nstopped: the same command goes on", file=sys.stderr)
    raise SystemExit(128 + number)
