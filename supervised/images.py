"""Labelled images in memory, and what the streams need of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Images:
    """A data set of images that all runs share; streams index it and never copy it.

    Attributes:
        name: as in tables: "digits" is not MNIST.
        pixels: `[images, pixels]` in [0, 1], float32.
        labels: `[images]`, int64.
        classes: how many there are.
    """

    name: str
    pixels: Tensor
    labels: Tensor
    classes: int

    def __post_init__(self) -> None:
        if len(self.pixels) != len(self.labels):
            raise ValueError(f"{self.name}: {len(self.pixels)} images but {len(self.labels)} labels")

    def to(self, device: torch.device | str) -> Images:
        """The same on another device."""
        return Images(self.name, self.pixels.to(device), self.labels.to(device), self.classes)


def digits() -> Images:
    """scikit-learn's digits: 1,797 real images of 8x8 pixels, 10 classes (the UCI test set of handwritten digits).

    Raises:
        ImportError: scikit-learn is not installed, with the pip line.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError("the digits ship with scikit-learn: pip install scikit-learn") from error
    data = load_digits()
    pixels = torch.from_numpy(data.data.astype("float32") / 16)
    return Images("digits", pixels, torch.from_numpy(data.target.astype("int64")), 10)
