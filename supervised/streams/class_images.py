"""Images sorted by class, in memory or memory-mapped."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


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
