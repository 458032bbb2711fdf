"""What one optimizer step tells, and the sums of |w| that belong to it, in memory that is there already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from .finding import Slot
from .utility import magnitude


class Wire:
    """The sum of |w| over one slot's entries of each unit."""

    def __init__(self, slot: Slot, width: int) -> None:
        self.slot, self.width = slot, width
        self.whole = slot.repeat == 1 and slot.tensor().shape[slot.dim] == width

    def weight(self) -> Tensor:
        """What is summed up."""
        return self.slot.tensor()

    def into(self, place: Tensor) -> None:
        """Put the sum [width] into the memory given."""
        weight = self.weight()
        if self.whole and weight.dtype == place.dtype:
            magnitude(weight, self.slot.dim, place)
        else:
            place.copy_(self())

    def __call__(self) -> Tensor:
        """The sum [width]."""
        total = magnitude(self.weight(), self.slot.dim)
        return total if self.whole else self.slot.span(total, self.width)


def total(wires: Sequence[Wire], place: Tensor) -> Tensor:
    """The sums of several wires together, in the memory given."""
    wires[0].into(place)
    for wire in wires[1:]:
        place += wire()
    return place


class Row:
    """What one optimizer step tells, until the averages take it in.

    Args:
        fresh: what averages and weights move towards: scores, means of the watches, ones.
        widths: of the layers.
        shapes: of the watches' means.
        wires: by name and layer, what |w| is summed up over.
    """

    def __init__(
        self,
        fresh: Tensor,
        widths: Sequence[int],
        shapes: Sequence[torch.Size],
        wires: Mapping[str, Sequence[Sequence[Wire]]],
    ) -> None:
        units, sizes = sum(widths), [shape.numel() for shape in shapes]
        self.fresh, self.scores, self.values = fresh, fresh[:units], fresh[: units + sum(sizes)]
        self.means, self.activity = self.values[units:], self.values[units : 2 * units]
        self.places = [piece.view(shape) for piece, shape in zip(self.means.split(sizes), shapes, strict=True)]
        self.sums = {name: torch.empty_like(self.scores) for name in wires}
        self.sum_of = {name: own.split(widths) for name, own in self.sums.items()}
        self.wired = [pair for name in wires for pair in zip(wires[name], self.sum_of[name], strict=True)]
