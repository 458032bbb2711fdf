"""scikit-learn's digits, the stand-in for MNIST that needs no download; it is named "digits" everywhere."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

SIDE = 8
CLASSES = 10
LARGEST = 16


class Digits(NamedTuple):
    """Real handwritten digits.

    Attributes:
        images: `[1797, 8, 8]`, float32 in [0, 1].
        labels: `[1797]`, uint8, 0 to 9.
    """

    images: NDArray[np.float32]
    labels: NDArray[np.uint8]


def load_digits() -> Digits:
    """1,797 images of 8x8 pixels: the test half of UCI's optical recognition of handwritten digits (Alpaydin 1998).

    Each pixel counts the ink in a block of 4x4, 0 to 16, here scaled to [0, 1].

    Raises:
        ImportError: scikit-learn is not installed, with the pip line.
    """
    try:
        from sklearn import datasets
    except ImportError as error:
        raise ImportError("the digits ship with scikit-learn: pip install scikit-learn") from error
    bunch = datasets.load_digits()
    return Digits((bunch.images / LARGEST).astype(np.float32), bunch.target.astype(np.uint8))
