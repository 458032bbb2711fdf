"""Images sorted by class, in memory or memory-mapped."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ClassImages:
    """Equally many images of every class; shared by all runs, indexed and never copied.

    Attributes:
        name: as in tables: "textures" are not ImageNet.
        pixels: uint8 tensor `[classes, images, colours, side, side]`; may be memory-mapped.
    """

    name: str
    pixels: Tensor

    def __post_init__(self) -> None:
        shape = tuple(self.pixels.shape)
        if len(shape) != 5 or shape[3] != shape[4] or self.pixels.dtype != torch.uint8 or shape[0] < 2:
            raise ValueError(
                f"{self.name}: expected uint8 [classes >= 2, images, colours, side, side], got {self.pixels.dtype} "
                f"{list(shape)}"
            )
