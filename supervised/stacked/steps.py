"""Ways to take many steps of a stack: one after the other, or captured in a CUDA graph (native code: `native.py`).

Replacements stay outside: their steps are known beforehand, and what lies between them is the same code every time.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Step = Callable[[Tensor, Tensor, Tensor, int], None]
"""`(x [runs, batch, inputs], target, output, number)`: one gradient step of every run."""

UNROLLED = 10
"""Steps in a long captured piece. What is left over takes one of a single step: where units are replaced at every few
steps, nothing else would be captured."""


def one_by_one(step: Step, x: Tensor, targets: Tensor, outputs: Tensor, first: int) -> None:
    """Take the steps in order.

    Args:
        step: one of them.
        x, targets, outputs: `[steps, ...]` each; outputs are written.
        first: number of the first step.
    """
    parts = zip(x.unbind(), targets.unbind(), outputs.unbind(), strict=True)
    for number, (inputs, target, output) in enumerate(parts, first):
        step(inputs, target, output, number)


class Captured:
    """Takes steps as CUDA graphs of `UNROLLED` and of one: a replay costs one launch from the host.

    Args:
        step: must not depend on its number, and must only change tensors in place.
        save: gives the state of everything `step` changes.
        restore: puts it back; capturing needs a few rehearsals.
    """

    def __init__(self, step: Step, save: Callable[[], Any], restore: Callable[[Any], None]):
        self.pieces = [Piece(length, step, save, restore) for length in (UNROLLED, 1)]

    def __call__(self, x: Tensor, targets: Tensor, outputs: Tensor, first: int) -> None:
        """As `one_by_one`, without the step; they do not depend on their numbers."""
        start = 0
        for piece in self.pieces:
            while len(x) - start >= piece.length:
                here = slice(start, start + piece.length)
                piece(x[here], targets[here], outputs[here])
                start += piece.length


class Piece:
    """Consecutive steps in one CUDA graph.

    Args:
        length: how many.
        step, save, restore: as in `Captured`.
    """

    def __init__(self, length: int, step: Step, save: Callable[[], Any], restore: Callable[[Any], None]):
        self.length, self.step, self.save, self.restore = length, step, save, restore
        self.graph: torch.cuda.CUDAGraph | None = None
        self.buffers: list[Tensor] = []

    def __call__(self, x: Tensor, targets: Tensor, outputs: Tensor) -> None:
        """Take them."""
        if self.graph is None:
            self._capture(x, targets, outputs)
        self.buffers[0].copy_(x)
        self.buffers[1].copy_(targets)
        self.graph.replay()  # type: ignore[union-attr]
        outputs.copy_(self.buffers[2])

    def _rehearse(self) -> None:
        x, targets, outputs = self.buffers
        one_by_one(self.step, x, targets, outputs, 0)

    def _capture(self, *examples: Tensor) -> None:
        state = self.save()
        self.buffers = [example.clone() for example in examples]
        # on another stream first, as torch asks: what libraries make at their first call cannot be made in a capture
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            self._rehearse()
        torch.cuda.current_stream().wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self._rehearse()
        self.restore(state)
