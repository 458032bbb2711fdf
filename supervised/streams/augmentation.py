"""Images that are flipped, shifted and turned a little every time they are shown; each draw belongs to a run's seed."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Random horizontal flip, then a random crop from the image with a mirrored border, then a random turn.

    A turn takes the nearest pixel, and nothing (the mean colour) where that lies outside.

    Args:
        crop: width of the border, pixels; 0 for no shift.
        flip: whether half of the images are mirrored.
        rotate: most degrees, counter-clockwise; 0 for no turn.

    Raises:
        ValueError: a negative number.
    """

    crop: int = 4
    flip: bool = True
    rotate: float = 15.0

    def __post_init__(self) -> None:
        if self.crop < 0 or not 0 <= self.rotate <= 360:
            raise ValueError(
                f"stream.crop={self.crop} and rotate={self.rotate}: pixels of at least 0, degrees from 0 to 360"
            )

    def draw(self, draws: np.random.Generator, images: int) -> np.ndarray:
        """What happens to each of so many images: down, right (pixels), mirrored (0 or 1), degrees: `[images, 4]`."""
        shifts = draws.integers(-self.crop, self.crop, (images, 2), endpoint=True)
        mirrored = draws.integers(0, 2, images) * self.flip
        return np.column_stack([shifts, mirrored, draws.uniform(0, self.rotate, images)])

    def sources(self, drawn: Tensor, side: int) -> tuple[Tensor, Tensor]:
        """Where each pixel comes from.

        Args:
            drawn: rows of `draw`, `[..., 4]`, float64.
            side: of the images, pixels.

        Returns:
            Number of the source pixel and whether there is one, both `[..., side * side]`.
        """
        down, right, mirrored, degrees = (one[..., None] for one in drawn.unbind(-1))
        place = torch.arange(side * side, device=drawn.device)
        middle = (side - 1) / 2
        y, x = place // side - middle, place % side - middle
        angle = torch.deg2rad(degrees)
        # the source of a pixel of the turned image is found by turning back
        row = torch.round(torch.cos(angle) * y + torch.sin(angle) * x + middle)
        column = torch.round(torch.cos(angle) * x - torch.sin(angle) * y + middle)
        inside = (row >= 0) & (row < side) & (column >= 0) & (column < side)
        row, column = _reflected(row + down, side), _reflected(column + right, side)
        column = torch.where(mirrored > 0, side - 1 - column, column)
        return (row * side + column).long().clamp_(0, side * side - 1), inside


def _reflected(place: Tensor, side: int) -> Tensor:
    """Coordinates beyond the edge as those of the mirror image there, the edge itself not repeated."""
    return (side - 1) - ((side - 1) - place.abs()).abs()
