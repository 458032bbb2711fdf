"""Images sorted by class, and the synthetic textures that stand in for ImageNet where it cannot be had."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .draws import Draw, numpy_draws


@dataclass(frozen=True)
class ClassImages:
    """Equally many images of every class; shared by all runs, indexed and never copied.

    Attributes:
        name: as in tables: "textures" are not ImageNet.
        pixels: uint8 `[classes, images, colours, side, side]`; may be memory-mapped.
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


GRATINGS = 3
"""Gratings per texture class."""

CONTRAST = 0.7
"""Share of a texture's variation that belongs to its class; the rest is noise."""


def textures(*, classes: int = 100, images: int = 300, size: int = 16, colours: int = 3, seed: int = 0) -> ClassImages:
    """Synthetic texture classes: each is a set of gratings, every image has them at other phases, under noise.

    A class has `GRATINGS` gratings with an orientation, a wave length of 2.5 to 8 pixels and a colour each. An image
    adds them with random phases and random strengths and adds noise that is smooth over about two pixels. The mean
    colour of all classes is the same, so that telling classes apart takes oriented filters, not a brightness.

    Args:
        classes: how many; their definition depends on `seed` and their number alone.
        images: per class.
        size: pixels a side.
        colours: 1 or 3.
        seed: of the whole data set.

    Raises:
        ValueError: a number out of range.
    """
    if classes < 2 or images < 2 or size < 4 or colours not in (1, 3):
        raise ValueError(f"textures: classes={classes}, images={images}, size={size}, colours={colours} out of range")
    pixels = np.empty((classes, images, colours, size, size), dtype=np.uint8)
    rows, columns = np.mgrid[:size, :size].astype(np.float32)
    for number in range(classes):
        draws = numpy_draws(seed, Draw.TEXTURES, number)
        angle, length = draws.uniform(0, np.pi, GRATINGS), draws.uniform(2.5, 8, GRATINGS)
        colour = draws.normal(size=(GRATINGS, colours))
        colour /= np.linalg.norm(colour, axis=1, keepdims=True)
        phase = draws.uniform(0, 2 * np.pi, (images, GRATINGS))
        strength = draws.uniform(0.3, 1.0, (images, GRATINGS))
        place = np.cos(angle)[:, None, None] * rows + np.sin(angle)[:, None, None] * columns
        waves = np.sin(2 * np.pi * place / length[:, None, None] + phase[..., None, None])
        pattern = np.einsum("ng,gc,ngxy->ncxy", strength, colour, waves, optimize=True)
        noise = draws.normal(size=(images, colours, size + 1, size + 1))
        noise = (noise[..., 1:, 1:] + noise[..., :-1, 1:] + noise[..., 1:, :-1] + noise[..., :-1, :-1]) / 2
        mixed = CONTRAST * pattern + (1 - CONTRAST) * noise
        pixels[number] = np.clip(127.5 + 64 * mixed, 0, 255).astype(np.uint8)
    return ClassImages("textures", torch.from_numpy(pixels))
