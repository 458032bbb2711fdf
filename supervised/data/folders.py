"""A folder with one .npy per class, and an ImageFolder: one folder of pictures per class."""

import warnings
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .errors import DataError
from .links import check_entry
from .npz import read_header

SIDE = 32
SHAPE = (3, SIDE, SIDE)
PICTURES = {".jpeg", ".jpg", ".png", ".bmp", ".webp", ".gif"}
MOST_PIXELS = 100_000_000
"""More than any picture of ImageNet; a bomb declares more."""


class ArrayFolder:
    """One `.npy` per class of `[n, 3, 32, 32]` or `[n, 3072]` uint8; the first images of each are taken.

    Args:
        root: the folder; files named by number (0.npy, 1.npy, ..., 10.npy) are taken in that order, others by name.
        classes: how many files are taken.
        images: how many images of each.
        follow_links: files may be links out of the folder.

    Attributes:
        parts, names: the files, and the classes named after them.

    Raises:
        DataError: too few files or images, another shape or type, Python objects, or a truncated file.
    """

    def __init__(self, root: Path, *, classes: int, images: int, follow_links: bool = False):
        self.root = root
        found = list(root.glob("*.npy"))
        numbers = all(path.stem.isdecimal() for path in found)
        self.files = sorted(found, key=lambda path: (int(path.stem) if numbers else 0, path.name))[:classes]
        if len(found) < classes:
            raise DataError(root, f"{len(found)} .npy files, {classes} needed", "add the missing classes")
        self.parts = [path.name for path in self.files]
        self.names = [path.stem for path in self.files]
        for path in self.files:
            check_entry(root, path, follow_links=follow_links)
            _check_array(path, images)

    def fill(self, part: int, out: NDArray[np.uint8]) -> None:
        """Put the images of one class into `out[part]`."""
        array = np.load(self.files[part], mmap_mode="r", allow_pickle=False)
        out[part] = array[: out.shape[1]].reshape(-1, *SHAPE)


def _check_array(path: Path, images: int) -> None:
    try:
        with path.open("rb") as file:
            shape, dtype = read_header(path, file)
            # in floats: the lengths that a header declares may multiply to more than int64 holds
            size = file.tell() + int(np.prod(shape, dtype=np.float64)) * dtype.itemsize
    except OSError as error:
        raise DataError(path, f"cannot be read ({error.strerror})", "check the path and its rights") from error
    if shape[1:] not in (SHAPE, (np.prod(SHAPE),)) or dtype != np.uint8:
        problem = f"shape {shape}, type {dtype}; expected [images, 3, 32, 32] or [images, 3072], uint8"
        raise DataError(path, problem, "save it so (colours before rows: array.transpose(0, 3, 1, 2))")
    if shape[0] < images:
        raise DataError(path, f"{shape[0]} images, {images} needed", "add images, or ask for fewer")
    if path.stat().st_size != size:
        raise DataError(path, f"truncated: {path.stat().st_size:,} of {size:,} bytes", "copy it again")


class ImageFolder:
    """Pictures of any size, one folder per class, downsampled to 32x32 by Pillow's box filter.

    The box filter is what the official 32x32 archives were made with (Chrabaszcz et al. 2017, section 3); the whole
    picture is scaled, whatever its proportions.

    Args:
        root: the folder; classes and pictures are taken in the order of their names.
        classes: how many folders are taken.
        images: how many pictures of each.
        workers: threads that decode pictures at once.
        follow_links: folders and pictures may be links out of the folder.

    Attributes:
        parts, names: the folders.

    Raises:
        DataError: too few folders or pictures, or a picture that cannot be read.
        ImportError: Pillow is not installed, with the pip line.
    """

    def __init__(self, root: Path, *, classes: int, images: int, workers: int = 1, follow_links: bool = False):
        self.root = root
        if find_spec("PIL") is None:
            raise ImportError("pictures are read with Pillow: pip install pillow")
        folders = sorted(path for path in root.iterdir() if path.is_dir())
        if len(folders) < classes:
            raise DataError(root, f"{len(folders)} folders of pictures, {classes} needed", "add the missing classes")
        self.parts = self.names = [path.name for path in folders[:classes]]
        self.workers = workers
        self.files = []
        for path in folders[:classes]:
            check_entry(root, path, folder=True, follow_links=follow_links)
            self.files.append(_pictures(path, images))
            for picture in self.files[-1]:
                check_entry(root, picture, follow_links=follow_links)

    def fill(self, part: int, out: NDArray[np.uint8]) -> None:
        """Put the pictures of one class into `out[part]`."""
        with warnings.catch_warnings(), ThreadPoolExecutor(self.workers) as pool:  # Pillow decodes without the lock
            warnings.simplefilter("ignore")  # of odd metadata and of large pictures: their size is checked below
            for index, picture in enumerate(pool.map(downsampled, self.files[part])):
                out[part, index] = picture


def _pictures(folder: Path, images: int) -> list[Path]:
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURES)
    if len(found) < images:
        raise DataError(folder, f"{len(found)} pictures, {images} needed", "add pictures, or ask for fewer")
    return found[:images]


def downsampled(path: Path) -> NDArray[np.uint8]:
    """A picture file as `[3, 32, 32]` uint8.

    Raises:
        DataError: not a picture, truncated, or more than 100 million pixels.
    """
    from PIL import Image

    try:
        with Image.open(path) as picture:
            if picture.width * picture.height > MOST_PIXELS:
                problem = f"{picture.width} x {picture.height} pixels, at most {MOST_PIXELS:,} expected"
                raise DataError(path, problem, "remove it")
            small = picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX)
    except DataError:
        raise
    except Exception as error:  # Pillow's decoders raise many types on damaged files
        reason = str(error).splitlines()[0].replace(str(path), path.name) if str(error) else type(error).__name__
        raise DataError(path, f"not a readable picture ({reason})", "download it again or remove it") from error
    return np.asarray(small).transpose(2, 0, 1)
