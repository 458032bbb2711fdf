"""MNIST, from the four IDX files of any mirror or from OpenML through scikit-learn."""

from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .errors import DataError
from .idx import read_idx

SIDE = 28
CLASSES = 10
TRAIN_IMAGES, TEST_IMAGES = 60_000, 10_000
PREFIXES = {"train": "train", "test": "t10k"}
FOLDERS = ("", "raw", "MNIST/raw")
"""Where below the folder the files may lie; the last is where torchvision puts them. Then any folder in it: Kaggle's
data set has each file in a folder of its own name."""
REMEDY = "put the four MNIST files there (plain or .gz), or ask for source='openml'"


class Mnist(NamedTuple):
    """Half of MNIST.

    Attributes:
        images: `[images, 28, 28]`, uint8, 0 to 255.
        labels: `[images]`, uint8, 0 to 9.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.uint8]


def load_mnist(
    root: str | Path,
    part: Literal["train", "test"] = "train",
    *,
    source: Literal["files", "openml"] = "files",
) -> Mnist:
    """Handwritten digits (LeCun et al. 1998): 60,000 to train on and 10,000 to test on.

    Args:
        root: folder of the four IDX files, also as torchvision keeps them; for "openml", scikit-learn's cache folder.
        part: "train" or "test".
        source: "files", or "openml" to fetch `mnist_784` once (15 MB) and keep it in `root`.

    Raises:
        DataError: a file is missing, damaged or of another shape, or the download failed.
        ImportError: "openml" without scikit-learn, with the pip line.
        ValueError: another part or source.
    """
    if part not in PREFIXES:
        raise ValueError(f"part={part!r}: MNIST has 'train' and 'test'")
    if source not in ("files", "openml"):
        raise ValueError(f"source={source!r}: 'files' or 'openml'")
    if source == "openml":
        return _split(_fetch(Path(root)), part, root)
    if (table := _table(Path(root), part)) is not None:
        return _read_table(table)
    images_file, labels_file = (_find(Path(root), PREFIXES[part], kind) for kind in ("images-idx3", "labels-idx1"))
    images, labels = read_idx(images_file, (SIDE, SIDE)), read_idx(labels_file, ())
    return _checked(images, labels, labels_file, f"take {labels_file.name} and {images_file.name} from one mirror")


def _find(root: Path, prefix: str, kind: str) -> Path:
    """The file in either naming of the mirrors, plain before gzipped."""
    if not root.is_dir():
        raise DataError(root, "no such folder", REMEDY)
    names = [f"{prefix}-{kind.replace('-', dot)}-ubyte{ending}" for ending in ("", ".gz") for dot in ("-", ".")]
    for folder in _folders(root):
        for name in names:
            if (path := folder / name).is_file():
                return path
    if any((folder / "train.csv").is_file() for folder in _folders(root)):
        problem = "Kaggle's competition digit-recognizer, which has labels for 42,000 of the 60,000 images only"
        raise DataError(root, problem, "take all of MNIST, there as mnist-in-csv (mnist_train.csv, mnist_test.csv)")
    raise DataError(root, f"no {names[0]} in it (nor {', '.join(names[1:])})", REMEDY)


def _folders(root: Path) -> list[Path]:
    inside = sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
    return [*(root / folder for folder in FOLDERS), *inside]


def _table(root: Path, part: str) -> Path | None:
    """Kaggle's mnist-in-csv: `mnist_train.csv` and `mnist_test.csv`, a label and 784 pixels a row."""
    found = (folder / f"mnist_{part}.csv" for folder in _folders(root))
    return next((path for path in found if path.is_file()), None)


def _read_table(path: Path) -> Mnist:
    try:
        with path.open(encoding="ascii") as file:
            # some of these tables have a row of names above the first image
            named = not file.readline()[:1].isdigit()
        rows = np.loadtxt(path, np.uint8, delimiter=",", skiprows=int(named), ndmin=2)
    except (OSError, ValueError, OverflowError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(path, f"cannot be read ({reason})", "download it again") from error
    if rows.shape[1] != 1 + SIDE * SIDE or not len(rows):
        problem = f"{len(rows):,} rows of {rows.shape[1]} numbers, expected a label and {SIDE * SIDE} pixels"
        raise DataError(path, problem, "download it again")
    return _checked(rows[:, 1:].reshape(-1, SIDE, SIDE), rows[:, 0], path, "download it again")


def _fetch(cache: Path) -> Any:
    try:
        from sklearn.datasets import fetch_openml
    except ImportError as error:
        raise ImportError("source='openml' needs scikit-learn: pip install scikit-learn") from error
    try:
        return fetch_openml("mnist_784", version=1, as_frame=False, parser="auto", data_home=str(cache))
    except (OSError, ValueError) as error:  # urllib's errors are OSErrors; a damaged cache raises ValueError
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        remedy = f"try again, empty {cache}, or {REMEDY}"
        raise DataError("mnist_784", f"OpenML did not give it ({reason})", remedy) from error


def _split(bunch: Any, part: str, root: str | Path) -> Mnist:
    """OpenML's table holds the 60,000 training images, then the 10,000 test images, in the order of the files."""
    data, target = np.asarray(bunch.data), np.asarray(bunch.target)
    shape = (TRAIN_IMAGES + TEST_IMAGES, SIDE * SIDE)
    if data.shape != shape:
        raise DataError("mnist_784", f"shape {data.shape}, expected {shape}", f"empty scikit-learn's cache {root}")
    rows = slice(0, TRAIN_IMAGES) if part == "train" else slice(TRAIN_IMAGES, None)
    images = data[rows].astype(np.uint8).reshape(-1, SIDE, SIDE)
    return _checked(images, target[rows].astype(np.uint8), "mnist_784", f"empty scikit-learn's cache {root}")


def _checked(images: NDArray[np.uint8], labels: NDArray[np.uint8], file: str | Path, remedy: str) -> Mnist:
    if len(images) != len(labels):
        raise DataError(file, f"{len(labels):,} labels for {len(images):,} images", remedy)
    if (largest := int(labels.max())) >= CLASSES:
        raise DataError(file, f"label {largest}, expected 0 to 9", remedy)
    if blank := int((~images.any((1, 2))).sum()):
        raise DataError(file, f"{blank:,} of its {len(images):,} images are all zero", "download it again")
    return Mnist(images, labels)
