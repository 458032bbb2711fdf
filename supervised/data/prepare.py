"""Write one memory-mapped array from any source, part by part; a run that was killed goes on where it stopped.

While it grows, the array is `DST.partial`, and `DST.journal` has one line per part that is safely on disk; only the
finished array is called DST. A kill at any moment costs the part in progress: its place is written again.
"""

import contextlib
import fcntl
import json
import os
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from continual_agents.settings import shortened

from .batches import Batches
from .errors import DataError
from .folders import PICTURES, ArrayFolder, ImageFolder

CLASSES, IMAGES, SHAPE = 1000, 700, (3, 32, 32)
Kind = Literal["npz", "pickle", "npy", "folder"]
KINDS: tuple[Kind, ...] = ("npz", "pickle", "npy", "folder")
Progress = Callable[[Iterable[int]], Iterable[int]]


Source = Batches | ArrayFolder | ImageFolder
"""What can fill an array `[classes, images, 3, 32, 32]` in parts; each part may be filled twice."""


def find_source(
    root: str | Path,
    *,
    kind: Kind | None = None,
    classes: int = CLASSES,
    images: int = IMAGES,
    workers: int = 1,
    follow_links: bool = False,
) -> Source:
    """What lies in a folder: archives, arrays or pictures.

    Args:
        root: the folder.
        kind: "npz" or "pickle" (official 32x32 archives), "npy" (one array per class), "folder" (pictures per class);
            None looks, but never takes pickles: they must be asked for.
        classes, images: how many of each to take; fewer than 1000 and 700 make a smaller array for tests.
        workers: threads that decode pictures.
        follow_links: read also what links out of the folder lead to.

    Raises:
        DataError: nothing known lies there, or what lies there is incomplete, damaged or leads elsewhere.
        ValueError: an unknown kind, or counts below 1.
    """
    root = Path(root)
    if kind is not None and kind not in KINDS:
        raise ValueError(f"kind={kind!r}: one of {', '.join(KINDS)}")
    for name, count in (("classes", classes), ("images", images), ("workers", workers)):
        if count < 1:
            raise ValueError(f"{name}={count}: at least 1")
    if classes > CLASSES:
        raise ValueError(f"classes={classes}: at most {CLASSES}")
    if not root.is_dir():
        raise DataError(root, "no such folder", "give the folder of the archives, arrays or pictures")
    if kind is None:
        root, kind = _found(root, classes)
    if kind == "npy":
        return ArrayFolder(root, classes=classes, images=images, follow_links=follow_links)
    if kind == "folder":
        return ImageFolder(root, classes=classes, images=images, workers=workers, follow_links=follow_links)
    return Batches(root, kind, classes=classes, images=images, follow_links=follow_links)


def _found(root: Path, classes: int) -> tuple[Path, Kind]:
    """What lies in the folder, or in the one folder of it that holds something."""
    kind = _look(root)
    folders = sorted(path for path in root.iterdir() if path.is_dir())
    # too few to be the classes: train/ and val/, say, where val/ may have its pictures in no folders
    if kind is None or (kind == "folder" and len(folders) < classes):
        inside = {path: found for path in folders if (found := _look(path)) is not None}
        if len(inside) == 1:
            return next(iter(inside.items()))
        if inside:
            names = ", ".join(path.name for path in inside)
            raise DataError(root, f"several sources lie in it: {names}", f"give one of them, as {next(iter(inside))}")
    if kind is None and not folders:
        raise DataError(
            root, "no train_data_batch_*.npz, .npy files or folders in it", "see docs/data.md for the formats"
        )
    return root, kind or "folder"  # of classes without pictures: told when they are counted


def _look(root: Path) -> Kind | None:
    if any(root.glob("train_data_batch_*.npz")):
        return "npz"
    if any(path.suffix == "" for path in root.glob("train_data_batch_*")):
        raise DataError(root, "pickled batches, which are not read unasked", "add --format pickle if you trust them")
    if any(root.glob("*.npy")):
        return "npy"
    classes = (path for path in root.iterdir() if path.is_dir())
    if any(file.suffix.lower() in PICTURES for path in classes for file in path.iterdir()):
        return "folder"
    return None


def prepare(
    source: Source,
    destination: str | Path,
    *,
    images: int = IMAGES,
    progress: Progress = iter,
) -> int:
    """Write the array of a source, or finish what an earlier call began.

    Args:
        source: from `find_source`.
        destination: the `.npy` to write.
        images: of each class.
        progress: wraps the parts to do, as tqdm does.

    Returns:
        How many parts an earlier call had done.

    Raises:
        DataError: the destination exists or belongs to another source, another process is writing it, no room on the
            disk, a part of the source is damaged, or a class has nothing but zeros. A few such images only warn.
    """
    final = Path(destination)
    if final.suffix != ".npy":
        raise DataError(final, "not named .npy", "name the array, e.g. imagenet32.npy")
    if final.exists():
        raise DataError(final, "exists", "remove it to prepare it anew, or use it as it is")
    if not final.parent.is_dir():
        raise DataError(final.parent, "no such folder", "make it first")
    partial, journal = (final.with_name(final.name + ending) for ending in (".partial", ".journal"))
    settings: dict[str, Any] = {
        "source": str(source.root.resolve()),
        "shape": [len(source.names), images, *SHAPE],
        "parts": list(source.parts),
    }
    with journal.open("a+") as log:
        _lock(log, final)
        done = _resume(log, settings) if partial.exists() else None
        if done is None:
            log.truncate(0)
            _create(partial, settings["shape"])
            _append(log, settings)
            done = set()
        array = open_memmap(partial, mode="r+")
        for part in progress([part for part in range(len(source.parts)) if part not in done]):
            source.fill(part, array)
            array.flush()
            _append(log, part)
        _refuse_blank(array, source)
        del array
        os.replace(partial, final)
        _sync(final.parent)
        journal.unlink()
    return len(done)


def _refuse_blank(array: NDArray[np.uint8], source: Source) -> None:
    blank = [int((~images.any((1, 2, 3))).sum()) for images in array]
    if array.shape[1] in blank:
        name = source.names[blank.index(array.shape[1])]
        raise DataError(source.root, f"all images of class {name} are zero", "fetch it again, then remove DST.partial")
    if any(blank):
        where = ", ".join(f"{count} of {name}" for name, count in zip(source.names, blank, strict=True) if count)
        warnings.warn(f"{source.root}: images that are all zero: {shortened(where)}", stacklevel=3)


def _lock(log: IO[str], final: Path) -> None:
    try:
        fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise DataError(final, "another process is preparing it", "wait for it, or stop it first") from error


def _resume(log: IO[str], settings: dict[str, Any]) -> set[int] | None:
    """Parts that are on disk; None if the journal was never begun. A last line cut short by a kill does not count."""
    log.seek(0)
    lines = log.read().split("\n")[:-1]
    if not lines:
        return None
    anew = f"remove it and {log.name.removesuffix('journal')}partial to begin anew"
    try:
        begun, *done = (json.loads(line) for line in lines)
    except json.JSONDecodeError as error:
        raise DataError(log.name, "damaged journal", anew) from error
    if begun != settings:
        other = " and ".join(key for key in settings if begun.get(key) != settings[key])
        raise DataError(log.name, f"begun with other {other}", f"give the same SRC, --classes and --images, or {anew}")
    # a last line cut short goes, or the next entry would be appended to it
    log.truncate(len("\n".join(lines)) + 1)
    return set(done)


def _create(partial: Path, shape: Sequence[int]) -> None:
    """An array file of zeros with its room taken now: a full disk in the middle would kill, not raise."""
    try:
        array = open_memmap(partial, mode="w+", dtype=np.uint8, shape=tuple(shape))
        del array
        with partial.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, partial.stat().st_size)
            os.fsync(file.fileno())
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise DataError(
            partial, f"cannot be written ({error.strerror})", "see that there is room and a right to write"
        ) from error


def _append(log: IO[str], entry: Any) -> None:
    log.write(json.dumps(entry) + "\n")
    log.flush()
    os.fsync(log.fileno())


def _sync(folder: Path) -> None:
    """The rename survives a power cut only when the folder is on disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
