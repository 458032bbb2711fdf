"""Files of a folder that anybody may have made: no link is followed, no device or pipe opened, nothing huge read."""

import os
import stat
from pathlib import Path
from typing import IO, Any

IN_PLACE = (".lock", "config.yaml", "log.txt")
"""Besides the tables (*.csv) and event files, what a run opens under its own name."""

EVENTS = "events."
"""What the names of TensorBoard's files begin with."""

FOLDERS = ("checkpoints", "wandb")
"""What a run makes folders of."""


class StrangeFileError(ValueError):
    """Something else than an ordinary file or folder of a bearable size; the message is all there is to say."""


def open_file(path: Path, *, most: int | None = None, follow: bool = False) -> IO[bytes]:
    """An ordinary file, opened for reading.

    Args:
        path: the file.
        most: bytes that it may have; None: whatever it has.
        follow: a link is followed, where the user named the file and not a folder that holds it.

    Raises:
        StrangeFileError: a link, a folder, a device, a pipe, or more than `most`.
        OSError: it cannot be opened.
    """
    _refuse(path, os.stat(path, follow_symlinks=follow), most)  # opening a device may already do something
    # a pipe that takes the file's place now would wait for a writer without O_NONBLOCK
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW))
    try:
        _refuse(path, os.fstat(descriptor), most)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_file(path: Path, *, most: int, follow: bool = False) -> bytes:
    """What an ordinary file of at most `most` bytes holds.

    Raises:
        StrangeFileError, OSError: as `open_file`.
    """
    with open_file(path, most=most, follow=follow) as file:
        return file.read(most)


def open_in_place(path: Path, flags: int) -> int:
    """A descriptor of an ordinary file that is written under its own name; made if missing.

    Args:
        path: the file.
        flags: of `os.open`, besides those that keep links out. Nothing is emptied here, whatever they say.

    Raises:
        StrangeFileError: a link, or anything but an ordinary file, or one that has another name somewhere else.
        OSError: it cannot be opened.
    """
    keep_out = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_CREAT
    check_in_place(path)
    descriptor = os.open(path, (flags & ~os.O_TRUNC) | keep_out, 0o666)
    try:
        _refuse(path, os.fstat(descriptor), None, names=1)
        if flags & os.O_TRUNC:
            os.ftruncate(descriptor, 0)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def check_in_place(path: Path) -> None:
    """Whether `open_in_place` would take what is there, if anything.

    Raises:
        StrangeFileError: as `open_in_place`.
    """
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    _refuse(path, found, None, names=1)


def check_ordinary(folder: Path) -> None:
    """Whether what a run would write into `folder` can only end up there.

    Raises:
        StrangeFileError: a table, the lock or config.yaml is no ordinary file, or checkpoints/ and the like are no
            folders, or an event file is none.
        OSError: the folder cannot be read.
    """
    for entry in os.scandir(folder):
        if entry.name in IN_PLACE or entry.name.endswith(".csv") or entry.name.startswith(EVENTS):
            check_in_place(Path(entry.path))
        elif entry.name in FOLDERS:
            check_directory(Path(entry.path))
        elif entry.name == "environment.json" and entry.is_dir(follow_symlinks=False):
            raise StrangeFileError(f"{entry.path} is a folder where a file belongs: do not use this folder")


def check_events(folder: Path) -> None:
    """Whether event files written into `folder` can only end up there.

    Raises:
        StrangeFileError: it is no folder, or an event file there is no ordinary file.
    """
    check_directory(folder)
    for entry in list(os.scandir(folder)) if folder.exists() else ():  # an open iterator would outlive the error
        if entry.name.startswith(EVENTS):
            check_in_place(Path(entry.path))


def check_directory(path: Path) -> None:
    """Whether a folder can be made there, or is one already.

    Raises:
        StrangeFileError: a link, or something else.
    """
    if os.path.lexists(path) and not stat.S_ISDIR(os.lstat(path).st_mode):
        raise StrangeFileError(
            f"{path} is {_kind(os.lstat(path).st_mode)} where a folder belongs: do not use this folder"
        )


def _refuse(path: Path, found: Any, most: int | None, *, names: int | None = None) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise StrangeFileError(f"{path} is {_kind(found.st_mode)} where a file belongs: do not use this folder")
    if names is not None and found.st_nlink > names:
        raise StrangeFileError(
            f"{path} is a file that has another name as well (a hard link), which would change with it: copy the folder"
        )
    if most is not None and found.st_size > most:
        raise StrangeFileError(f"{path} has {found.st_size:,} bytes: at most {most:,} are read")


def _kind(mode: int) -> str:
    if stat.S_ISLNK(mode):
        return "a link"
    if stat.S_ISDIR(mode):
        return "a folder"
    if stat.S_ISREG(mode):
        return "a file"
    return "a pipe or socket" if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) else "a device"
