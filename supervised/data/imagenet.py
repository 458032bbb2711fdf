"""ImageNet at 32x32, as one memory-mapped array that `python -m tools.prepare_data imagenet SRC DST` wrote."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .errors import DataError
from .npz import read_header
from .prepare import CLASSES, IMAGES, SHAPE

NAME = "imagenet32.npy"
PREPARE = "python -m tools.prepare_data imagenet SRC DST"
TRAIN_IMAGES = 600
"""Of the 700 images of a class, the first 600 are trained on and the last 100 tested on (Dohare et al. 2024)."""


def load_imagenet(path: str | Path, *, classes: int = CLASSES, images: int = IMAGES) -> NDArray[np.uint8]:
    """The prepared array; nothing is read until it is indexed.

    Args:
        path: the `.npy`, or a folder that has it as `imagenet32.npy`.
        classes: how many classes are wanted, the first ones; there must be so many.
        images: how many images of each are wanted, the first ones.

    Returns:
        `[classes, images, 3, 32, 32]`, uint8. Memory-mapped copy on write: all processes share its pages, torch takes
        it without a warning, and the file never changes.

    Raises:
        DataError: missing, unfinished, another format or shape, truncated, or too small.
    """
    file = Path(path) / NAME if Path(path).is_dir() else Path(path)
    if not file.is_file():
        raise DataError(file, _absence(file), f"make it with {PREPARE.replace('DST', str(file))}")
    try:
        with file.open("rb") as opened:
            shape, dtype = read_header(file, opened)
            # in floats: the lengths that a header declares may multiply to more than int64 holds
            size = opened.tell() + int(np.prod(shape, dtype=np.float64)) * dtype.itemsize
    except OSError as error:
        raise DataError(file, f"cannot be read ({error.strerror})", "check the path and its rights") from error
    if len(shape) != 5 or shape[2:] != SHAPE or dtype != np.uint8:
        problem = f"shape {shape}, type {dtype}; expected [classes, images, 3, 32, 32], uint8"
        raise DataError(file, problem, f"make it with {PREPARE}")
    if shape[0] < classes or shape[1] < images:
        problem = f"{shape[0]} classes of {shape[1]} images, {classes} of {images} needed"
        raise DataError(file, problem, f"prepare it whole with {PREPARE}, or ask for fewer")
    if file.stat().st_size != size:
        raise DataError(file, f"truncated: {file.stat().st_size:,} of {size:,} bytes", f"make it again with {PREPARE}")
    return np.load(file, mmap_mode="c", allow_pickle=False)[:classes, :images]


def _absence(file: Path) -> str:
    if file.with_name(file.name + ".partial").exists():
        return "not finished (run the same command again and it goes on)"
    folder = file.parent
    if folder.is_dir() and any(folder.glob("train_data_batch_*")):
        return "no such file, but the batches that it is made from are there"
    return "no such file"
