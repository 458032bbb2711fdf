"""What a process does that trains runs for a launcher."""

import contextlib
import os
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

LOG = "log.txt"
"""File of a run folder for what the run printed: warnings, tracebacks."""


DYING = 10.0
"""Seconds that a process whose machine or manager has gone may take to end."""


def train(config: Mapping[str, Any]) -> str:
    """Train one run, its output in its log: the kind of its outcome, and the error in one line behind it."""
    folder = Path(config["folder"])
    with _output_to(folder / LOG):
        try:
            return "stopped" if _train_when_free(dict(config)) else "finished"
        except FloatingPointError as error:
            return f"diverged {_one_line(error)}"
        except Exception as error:
            traceback.print_exc()
            return f"failed {_one_line(error)}"


def _train_when_free(config: dict[str, Any]) -> int:
    """As `train_one`. A run that was started again may find the lock of its lost predecessor: that is waited for."""
    from continual_agents.runs import LockedError
    from tools.train import train_one

    try:
        return train_one(config, quiet=True)
    except LockedError as error:
        print(error, file=sys.stderr, flush=True)
        time.sleep(DYING if error.lost_in is None else error.lost_in + 1.0)
    return train_one(config, quiet=True)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


@contextlib.contextmanager
def _output_to(path: Path) -> Iterator[None]:
    """Append standard output and error to a file, that of C libraries included; an empty file is removed.

    Raises:
        StrangeFileError: the file is a link, or anything but an ordinary file: the folder may be a stranger's.
    """
    from continual_agents.runs.files import open_in_place  # torch: seconds, once in a process

    path.parent.mkdir(parents=True, exist_ok=True)
    kept = [os.dup(number) for number in (1, 2)]
    with os.fdopen(open_in_place(path, os.O_WRONLY | os.O_APPEND), "ab", buffering=0) as file:
        for number in (1, 2):
            os.dup2(file.fileno(), number)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        for number, descriptor in zip((1, 2), kept, strict=True):
            os.dup2(descriptor, number)
            os.close(descriptor)
        if path.exists() and path.stat().st_size == 0:
            path.unlink()
