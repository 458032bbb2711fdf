"""What keeps a run from starting, what ends one in flight, and what is said when its folder cannot be written."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
"""Errors of the disk, not of what was asked of it."""


class RunError(RuntimeError):
    """The folder cannot be used for this run; the message says why and what to do."""


class Fault(RuntimeError):
    """A run cannot go on, by nobody's mistake on the command line; the message says why, what is safe, how to go on."""


class StorageError(Fault):
    """The run folder cannot be written; the message says why, what is safe and how to go on."""


def storage_error(error: BaseException | None, folder: Path, last: str) -> StorageError | None:
    """The error to raise instead of one that came from writing into `folder`; None if it came from elsewhere.

    Args:
        error: what was raised, if anything.
        folder: the run folder.
        last: its last good checkpoint, in words.
    """
    if not isinstance(error, OSError) or (error.errno not in FULL and not _inside(error.filename, folder)):
        return None
    return StorageError(
        f"{folder} cannot be written: {error.strerror or error}. Its last good checkpoint: {last}. Give it space (and "
        "the right to write there), and the same command continues it"
    )


@contextlib.contextmanager
def told_in_one_line(folder: Path, last: str) -> Iterator[None]:
    """Raise `storage_error` instead of what goes wrong inside."""
    try:
        yield
    except OSError as error:
        fault = storage_error(error, folder, last)
        if fault is None:
            raise
        raise fault from error


def _inside(name: object, folder: Path) -> bool:
    if not isinstance(name, str | bytes | os.PathLike):
        return False
    return Path(os.fsdecode(name)).absolute().is_relative_to(folder.absolute())
