"""The official archives of downsampled ImageNet (Chrabaszcz et al. 2017): ten batches of mixed classes."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import DataError
from .links import check_entry
from .npz import read_npz
from .pickles import read_pickle

SHAPE = (3, 32, 32)
PIXELS = 3 * 32 * 32
MOST_ROWS = 200_000
"""More than the 128,123 images of a batch of 32x32 ImageNet."""
LIMITS = {"data": MOST_ROWS * PIXELS, "labels": MOST_ROWS * 8}
COMPLETE = "put all ten train_data_batch_* files there"


def _npz(path: Path, *names: str) -> dict[str, Any]:
    return read_npz(path, {name: LIMITS[name] for name in names})


def _pickled(path: Path, *names: str) -> dict[str, Any]:
    read = read_pickle(path)
    if missing := [name for name in names if name not in read]:
        raise DataError(path, f"no {missing[0]!r} in it, only {sorted(read)}", "give the train_data_batch_* files")
    return read


READERS: dict[str, Callable[..., dict[str, Any]]] = {"npz": _npz, "pickle": _pickled}


class Batches:
    """Images of all classes mixed, in files of `data` `[n, 3072]` uint8 (red, green, blue planes) and `labels` from 1.

    Args:
        root: folder of `train_data_batch_1.npz` and so on, or of the same without an ending, pickled.
        kind: "npz" or "pickle".
        classes: labels 1 to this are taken.
        images: the first so many of each class are taken, in the order of the files.
        follow_links: files may be links out of the folder.

    Attributes:
        parts: names of the files: the steps in which `fill` goes.
        names: of the classes: the archives give numbers only.

    Raises:
        DataError: no batches, a damaged one, or too few images of some class.
    """

    def __init__(self, root: Path, kind: str, *, classes: int, images: int, follow_links: bool = False):
        self.root = root
        ending = re.escape(".npz" if kind == "npz" else "")
        matched = {path: re.fullmatch(rf"train_data_batch_(\d+){ending}", path.name) for path in root.iterdir()}
        numbered = sorted((int(match[1]), path) for path, match in matched.items() if match)
        if not numbered:
            raise DataError(root, f"no train_data_batch_1{'.npz' if kind == 'npz' else ''} in it", COMPLETE)
        if numbered[-1][0] != len(numbered):
            gap = next(n for n, (number, _) in enumerate(numbered, 1) if n != number)
            raise DataError(root, f"train_data_batch_{gap} is missing", COMPLETE)
        self.files = [path for _, path in numbered]
        for path in self.files:
            check_entry(root, path, follow_links=follow_links)
        self.read = READERS[kind]
        self.parts = [path.name for path in self.files]
        self.names = [str(label) for label in range(1, classes + 1)]
        self.rows = [_labels(path, self.read(path, "labels")) for path in self.files]
        self.starts = self._starts(root, classes, images)

    def _starts(self, root: Path, classes: int, images: int) -> NDArray[np.int64]:
        """How many images of each class lie in earlier files, `[files + 1, classes]`; checks that there are enough."""
        counts = np.stack([np.bincount(labels, minlength=classes + 1)[1 : classes + 1] for labels in self.rows])
        starts = np.concatenate([np.zeros((1, classes), np.int64), counts.cumsum(0)])
        if (few := np.flatnonzero(starts[-1] < images)).size:
            label, has = few[0] + 1, starts[-1, few[0]]
            raise DataError(
                root, f"class {label} has {has} images, {images} needed ({few.size} such classes)", COMPLETE
            )
        return starts

    def fill(self, part: int, out: NDArray[np.uint8]) -> None:
        """Put the images of one file where they belong in `out`, `[classes, images, 3, 32, 32]`."""
        path, labels = self.files[part], self.rows[part]
        data = np.asarray(self.read(path, "data")["data"])
        if data.shape != (len(labels), PIXELS) or data.dtype != np.uint8:
            problem = f"data of shape {data.shape}, type {data.dtype}; expected {(len(labels), PIXELS)}, uint8"
            raise DataError(path, problem, "give the archives of 32x32 images")
        for index in range(len(out)):
            start = int(self.starts[part, index])
            rows = np.flatnonzero(labels == index + 1)[: max(out.shape[1] - start, 0)]
            out[index, start : start + len(rows)] = data[rows].reshape(-1, *SHAPE)


def _labels(path: Path, read: dict[str, Any]) -> NDArray[np.int64]:
    labels = np.asarray(read["labels"])
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or not 0 < len(labels) <= MOST_ROWS:
        problem = f"labels of shape {labels.shape}, type {labels.dtype}; expected whole numbers, one per image"
        raise DataError(path, problem, "give the train_data_batch_* files")
    if labels.min() < 1 or labels.max() > 1000:
        problem = f"labels from {labels.min()} to {labels.max()}, expected 1 to 1000"
        raise DataError(path, problem, "give the train_data_batch_* files")
    return labels.astype(np.int64)
