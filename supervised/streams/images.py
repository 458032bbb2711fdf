"""Labelled images in memory, and what the streams need of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
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


def flat_images(name: str, images: np.ndarray, labels: np.ndarray) -> Images:
    """Images `[n, side, side]`, uint8 (0 to 255) or float32 (0 to 1), as rows of floats in [0, 1]."""
    rows = torch.from_numpy(images.reshape(len(images), -1))
    pixels = rows.to(torch.float32).div_(255) if images.dtype == np.uint8 else rows.to(torch.float32)
    return Images(name, pixels, torch.from_numpy(labels.astype(np.int64)), int(labels.max()) + 1)
