"""What one optimizer step tells, and the sums of |w| that belong to it, in memory that is there already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from .finding import Slot
from .scratch import Scratch
from .utility import CHUNK, magnitude


class Wire:
    """The sum of |w| over one slot's entries of each unit, with everything but the sum prepared."""

    def __init__(self, slot: Slot, width: int, scratch: Scratch) -> None:
        weight = slot.tensor()
        self.slot, self.width = slot, width
        self.scratch = scratch.like(weight)
        # a plain matrix of moderate size, all of it: two calls
        self.other = 1 - slot.dim % weight.ndim if weight.ndim == 2 and weight.numel() < 4 * CHUNK else None
        self.whole = slot.repeat == 1 and weight.shape[slot.dim] == width

    def into(self, place: Tensor) -> Tensor:
        """The sum [width], in the memory given."""
        weight = self.slot.tensor()
        if self.other is not None and self.whole and weight.dtype == place.dtype == self.scratch.dtype:
            if weight.device.type != "cpu":  # as `absolute_sum`
                return torch.linalg.vector_norm(weight, 1, self.other, out=place)
            return torch.sum(torch.abs(weight, out=self.scratch), self.other, out=place)
        return place.copy_(self())

    def __call__(self) -> Tensor:
        """The sum [width]."""
        weight = self.slot.tensor()
        if weight.dtype != self.scratch.dtype:  # net.double() leaves the device as it is
            self.scratch = torch.empty_like(weight, requires_grad=False)
        total = magnitude(weight, self.slot.dim, self.scratch)
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

    Attributes:
        due: how many samples the means are the sum of; 0: they are means.
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
        self.due = 0
