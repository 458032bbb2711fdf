"""Ways to take many steps of a stack: one after the other, or captured in a CUDA graph (native code: `native.py`).

Replacements stay outside: their steps are known beforehand, and what lies between them is the same code every time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Step = Callable[[Tensor, Tensor, Tensor, int], None]
"""`(x [runs, batch, inputs], target, output, number)`: one gradient step of every run."""

UNROLLED = 10
"""Steps in one captured piece; what is left over runs as it is."""


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
    """`UNROLLED` steps at a time as one CUDA graph: a replay costs one launch from the host.

    Args:
        step: must not depend on its number, and must only change tensors in place.
        save: gives the state of everything `step` changes.
        restore: puts it back; capturing needs a few rehearsals.
    """

    def __init__(self, step: Step, save: Callable[[], Any], restore: Callable[[Any], None]):
        self.step, self.save, self.restore = step, save, restore
        self.graph: torch.cuda.CUDAGraph | None = None
        self.buffers: list[Tensor] = []

    def __call__(self, x: Tensor, targets: Tensor, outputs: Tensor, first: int) -> None:
        """As `one_by_one`, without the step."""
        wholes = len(x) // UNROLLED * UNROLLED
        for start in range(0, wholes, UNROLLED):
            here = slice(start, start + UNROLLED)
            if self.graph is None:
                self._capture(x[here], targets[here], outputs[here])
            self.buffers[0].copy_(x[here])
            self.buffers[1].copy_(targets[here])
            self.graph.replay()  # type: ignore[union-attr]
            outputs[here] = self.buffers[2]
        one_by_one(self.step, x[wholes:], targets[wholes:], outputs[wholes:], first + wholes)

    def _rehearse(self) -> None:
        x, targets, outputs = self.buffers
        one_by_one(self.step, x, targets, outputs, 0)

    def _capture(self, *examples: Tensor) -> None:
        state = self.save()
        self.buffers = [example.clone() for example in examples]
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            self._rehearse()
        torch.cuda.current_stream().wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self._rehearse()
        self.restore(state)
