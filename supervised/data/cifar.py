"""CIFAR-100 (Krizhevsky 2009), from its binary or its python archive, packed or unpacked.

Binary: one record per image of 3,074 bytes: coarse label, fine label, then 32x32 red, green and blue values, row by
row. Python: a pickled dict of `data` `[images, 3072]` in the same order, and `fine_labels`; it is read by an unpickler
that runs nothing (`pickles.py`). A `.tar.gz` is read where it lies: nothing is unpacked to disk.
"""

import tarfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .errors import DataError
from .pickles import unpickled

CLASSES = 100
SHAPE = (3, 32, 32)
PIXELS = 3 * 32 * 32
RECORD = 2 + PIXELS
TRAIN_IMAGES, TEST_IMAGES = 500, 100
"""Of each class."""
MOST_BYTES = 400_000_000
"""More than the 155 MB of the largest file of either archive."""
AGAIN = "download it again"
REMEDY = "put cifar-100-binary.tar.gz or cifar-100-python.tar.gz there, or what they hold"


class Cifar100(NamedTuple):
    """Half of CIFAR-100.

    Attributes:
        images: `[images, 3, 32, 32]`, uint8.
        labels: `[images]`, uint8, the fine ones, 0 to 99.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.uint8]


def load_cifar100(root: str | Path, part: Literal["train", "test"] = "train") -> Cifar100:
    """100 classes of 500 training and 100 test images in the original files.

    Args:
        root: folder of either archive, or of what it holds, directly or below `cifar-100-binary` or `cifar-100-python`
            (where torchvision puts it). The binary form is taken where both are there.
        part: "train" or "test".

    Raises:
        DataError: a file is missing, damaged, of another shape, or asks for anything but arrays (nothing is run).
        ValueError: another part.
    """
    if part not in ("train", "test"):
        raise ValueError(f"part={part!r}: CIFAR-100 has 'train' and 'test'")
    root = Path(root)
    if not root.is_dir():
        raise DataError(root, "no such folder", REMEDY)
    for form, name, read in (("binary", f"{part}.bin", _binary), ("python", part, _python)):
        for folder in (f"cifar-100-{form}", "."):
            path = root / folder / name
            if path.is_file():
                return read(path, _content(path))
        archive = root / f"cifar-100-{form}.tar.gz"
        if archive.is_file():
            return read(archive, _member(archive, f"cifar-100-{form}/{name}"))
    raise DataError(root, f"neither {part}.bin nor {part} of CIFAR-100 in it, nor an archive", REMEDY)


def by_class(half: Cifar100, file: str | Path) -> NDArray[np.uint8]:
    """The images sorted by class, `[100, images, 3, 32, 32]`, each class in the order of the file.

    Raises:
        DataError: the classes differ in how many images they have.
    """
    counts = np.bincount(half.labels, minlength=CLASSES)
    if counts.min() != counts.max():
        few = int(counts.argmin())
        raise DataError(file, f"class {few} has {counts[few]} images, another one {counts.max()}", AGAIN)
    order = np.argsort(half.labels, kind="stable")
    return half.images[order].reshape(CLASSES, -1, *SHAPE)


def _content(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise DataError(path, f"{size:,} bytes, at most {MOST_BYTES:,} expected", "give the files of CIFAR-100")
        return path.read_bytes()
    except OSError as error:
        raise DataError(path, f"cannot be read ({error.strerror})", "check the path and its rights") from error


def _member(archive: Path, name: str) -> bytes:
    """One regular file of an archive, unpacked in memory up to its declared and admitted size."""
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for entry in tar:  # in order: looking a name up would read the whole archive first
                if entry.name != name:
                    continue
                if not entry.isfile() or entry.size > MOST_BYTES:
                    problem = f"{name} in it is no regular file of at most {MOST_BYTES:,} bytes"
                    raise DataError(archive, problem, "do not use this file")
                opened = tar.extractfile(entry)
                content = opened.read(entry.size) if opened is not None else b""
                if len(content) < entry.size:
                    raise DataError(archive, f"{name} in it is truncated", AGAIN)
                return content
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise DataError(archive, f"damaged or truncated archive ({error})", AGAIN) from error
    except OSError as error:  # gzip's complaints are OSErrors too
        raise DataError(archive, f"cannot be read ({error.strerror or error})", AGAIN) from error
    raise DataError(archive, f"no {name} in it", AGAIN)


def _binary(path: Path, content: bytes) -> Cifar100:
    if not content or len(content) % RECORD:
        problem = f"{len(content):,} bytes, no multiple of the {RECORD:,} of a record"
        raise DataError(path, problem, f"{AGAIN}: it is truncated, or not CIFAR-100's binary form")
    records = np.frombuffer(content, np.uint8).reshape(-1, RECORD)
    return _checked(path, records[:, 2:], records[:, 1])


def _python(path: Path, content: bytes) -> Cifar100:
    read: Mapping[str, Any] = unpickled(path, content, holds="CIFAR-100's train and test files")
    if missing := [name for name in ("data", "fine_labels") if name not in read]:
        raise DataError(path, f"no {missing[0]!r} in it, only {sorted(read)}", "give CIFAR-100's train and test files")
    data, labels = np.asarray(read["data"]), np.asarray(read["fine_labels"])
    if data.ndim != 2 or data.shape[1] != PIXELS or data.dtype != np.uint8:
        problem = f"data of shape {data.shape}, type {data.dtype}; expected [images, {PIXELS}], uint8"
        raise DataError(path, problem, AGAIN)
    if labels.shape != (len(data),) or labels.dtype.kind not in "iu":
        problem = f"fine_labels of shape {labels.shape}, type {labels.dtype}; expected a number for each image"
        raise DataError(path, problem, AGAIN)
    return _checked(path, data, labels)


def _checked(path: Path, data: NDArray[np.uint8], labels: NDArray[Any]) -> Cifar100:
    if not len(labels):
        raise DataError(path, "no images in it", AGAIN)
    if not 0 <= labels.min() <= labels.max() < CLASSES:
        raise DataError(path, f"labels from {labels.min()} to {labels.max()}, expected 0 to {CLASSES - 1}", AGAIN)
    return Cifar100(data.reshape(-1, *SHAPE), labels.astype(np.uint8))
