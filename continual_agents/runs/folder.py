"""Whether a folder can be a run's: nobody else's, of the same configuration, to be made and written."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from continual_agents.settings import shortened

from .configuration import flatten, read_configuration
from .faults import RunError, told_in_one_line
from .files import StrangeFileError, check_ordinary
from .lock import check_lock
from .table import check_table

TIMING = "timing"
"""The table of speeds."""

SHOWN = 6
"""Most differing settings that a message lists."""


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
            check_lock(folder)
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
    named = tuple(f"{key}." for key in may_change)
    different = [
        f"{key}: {old.get(key, '(absent)')!r} there, {new.get(key, '(absent)')!r} asked for"
        for key in sorted(old.keys() | new.keys())
        if not f"{key}.".startswith(named) and old.get(key, "(absent)") != new.get(key, "(absent)")
    ]
    if different:
        more = f"; and {len(different) - SHOWN} more" if len(different) > SHOWN else ""
        raise RunError(
            f"{folder} holds a run of another configuration ({'; '.join(different[:SHOWN])}{more}): continue it with "
            "its own settings, or give another folder=..."
        )
