"""Images that the runs of a stream share: labelled ones in memory, or sorted by class and perhaps memory-mapped."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
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


@dataclass(frozen=True)
class ClassImages:
    """Equally many images of every class; shared by all runs, indexed and never copied.

    Attributes:
        name: as in tables: "textures" are not ImageNet.
        classes, images: how many of each class there are, known before any image is read or made.
        load: reads or makes them, when `pixels` is first asked for.
    """

    name: str
    classes: int
    images: int
    load: Callable[[], Tensor]

    @classmethod
    def of(cls, name: str, pixels: Tensor) -> ClassImages:
        """Images that are there already."""
        return cls(name, len(pixels), pixels.shape[1], lambda: pixels)

    @functools.cached_property
    def pixels(self) -> Tensor:
        """uint8 tensor `[classes, images, colours, side, side]`; may be memory-mapped."""
        pixels = self.load()
        shape: Sequence[int] = pixels.shape
        if len(shape) != 5 or shape[3] != shape[4] or pixels.dtype != torch.uint8:
            raise ValueError(
                f"{self.name}: expected uint8 [classes, images, colours, side, side], got {pixels.dtype} {list(shape)}"
            )
        return pixels
