"""Whether a folder can be a run's: nobody else's, of the same configuration, to be made and written."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from continual_agents.settings import shortened

from .configuration import flatten, read_configuration
from .files import StrangeFileError, check_ordinary, open_in_place
from .storage import told_in_one_line
from .table import check_table

HELD = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)
"""What flock says where somebody else has the lock; anything else comes from the file system."""

TIMING = "timing"
"""The table of speeds."""

SHOWN = 6
"""Most differing settings that a message lists."""


class RunError(RuntimeError):
    """The folder cannot be used for this run; the message says why and what to do."""


def check_folder(folder: Path, config: Mapping[str, Any], may_change: Sequence[str]) -> None:
    """Whether a run of this configuration may be started or continued there; touches nothing.

    Raises:
        RunError: another process uses it, it belongs to another configuration, or it cannot be made.
        StorageError: it cannot be written.
    """
    with told_in_one_line(folder, "as it was"):
        try:
            there = next(one for one in (folder.absolute(), *folder.absolute().parents) if one.exists())
        except OSError as error:
            raise RunError(f"folder={shortened(str(folder))}: {error.strerror}: give another one") from error
        if not there.is_dir():
            raise RunError(f"{folder} cannot be made, {there} is a file: give another folder=...")
        if folder.is_dir():
            check_contents(folder)
        if (folder / ".lock").exists():
            locked(folder).close()
    check_same(folder, config, may_change)


def check_contents(folder: Path) -> None:
    """Whether writing into the folder's files can only change the folder.

    Raises:
        RunError: something in it is a link, a device, or of another kind than a run makes.
    """
    try:
        check_ordinary(folder)
    except StrangeFileError as error:
        raise RunError(f"{error}, or give another folder=...") from error


def check_tables(folder: Path, rows: Mapping[str, int]) -> None:
    """Whether the tables have what the last checkpoint counted; timing.csv need not, it is never the same.

    Raises:
        RunError: one is gone, or rows were taken out of it.
    """
    for name, count in rows.items():
        if not count or name == TIMING:
            continue
        if "/" in name or "\0" in name:
            raise RunError(f"{folder} has a checkpoint with a table of the name {name!r}: start in a new folder")
        try:
            check_table(folder / f"{name}.csv", count)
        except ValueError as error:
            raise RunError(str(error)) from error


def locked(folder: Path) -> IO[str]:
    """The folder's lock file, locked until it is closed or the process ends.

    Raises:
        RunError: another process holds it, or the file system knows no locks.
    """
    try:
        descriptor = open_in_place(folder / ".lock", os.O_RDWR)
    except StrangeFileError as error:
        raise RunError(f"{error}, or give another folder=...") from error
    lock = os.fdopen(descriptor, "r+", encoding="utf-8")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        if error.errno in HELD:
            raise RunError(f"{folder} is in use by another process: wait for it, or give another folder=...") from error
        raise RunError(
            f"{folder} cannot be locked ({error.strerror}): its file system has no locks, so that two processes could "
            "write at once; give a folder=... on another one"
        ) from error
    return lock


def check_same(folder: Path, config: Mapping[str, Any], may_change: Sequence[str]) -> None:
    """Whether the folder's run, if there is one, has this configuration.

    Args:
        folder: the run folder.
        config: what is asked for.
        may_change: dotted keys, or groups of them, in which the two may differ.

    Raises:
        RunError: they differ in another key, or config.yaml cannot be read.
    """
    path = folder / "config.yaml"
    if not path.exists():
        return
    try:
        old, new = dict(flatten(read_configuration(path))), dict(flatten(config))
    except ValueError as error:
        raise RunError(f"{error}; give another folder=...") from error
    different = [
        f"{key}: {old.get(key, '(absent)')!r} there, {new.get(key, '(absent)')!r} asked for"
        for key in sorted(old.keys() | new.keys())
        if not _is_one_of(key, may_change) and old.get(key, "(absent)") != new.get(key, "(absent)")
    ]
    if different:
        more = f"; and {len(different) - SHOWN} more" if len(different) > SHOWN else ""
        raise RunError(
            f"{folder} holds a run of another configuration ({'; '.join(different[:SHOWN])}{more}): continue it with "
            "its own settings, or give another folder=..."
        )


def _is_one_of(key: str, names: Sequence[str]) -> bool:
    """Whether a dotted key is named, or belongs to a group that is."""
    return any(key == name or key.startswith(f"{name}.") for name in names)
