"""A gradient step of every run of a loop as one CUDA graph, the runs beside each other on streams of their own."""

from collections.abc import Callable, Hashable

import torch
from torch import Tensor

Step = Callable[[int, Tensor, Tensor], Tensor]
"""`(run, x [batch, ...], y [batch]) -> measure []`: a gradient step of one run, device work alone."""

WARM = 3
"""Steps taken one by one before a capture: kernels are chosen in them, and an optimizer makes its state."""


class CapturedLoop:
    """Takes the steps of all runs with one launch from the host.

    A conv net's step is a hundred small kernels, and launching them takes longer than what they do. A capture executes
    nothing, so steps taken before it count as any others, and no state has to be put back.

    Args:
        step: takes a run's step; must change tensors in place.
        runs: how many there are.
        baked: everything but tensors that a step depends on (step sizes, classes so far): where it is another one than
            at the last capture, the next steps are taken one by one and captured anew.
    """

    def __init__(self, step: Step, runs: int, baked: Callable[[], Hashable]):
        self.step, self.runs, self.baked = step, runs, baked
        self.graph: torch.cuda.CUDAGraph | None = None
        self.key: Hashable = None
        self.warm = 0
        self.streams = [torch.cuda.Stream() for _ in range(runs)]

    def forget(self) -> None:
        """Capture anew: tensors have been exchanged."""
        self.key = self.graph = None

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """One step of every run: `x [runs, batch, ...]`, `y [runs, batch]`; their measures `[runs]`."""
        key = (x.shape, y.shape, self.baked())
        if key != self.key:
            self.key, self.graph, self.warm = key, None, 0
        if self.graph is None:
            if self.warm < WARM:
                self.warm += 1
                return self._side_by_side(x, y)
            self.x, self.y = x.clone(), y.clone()
            torch.cuda.synchronize()
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph):
                self.measures = self._side_by_side(self.x, self.y)
        self.x.copy_(x)
        self.y.copy_(y)
        self.graph.replay()
        return self.measures

    def _side_by_side(self, x: Tensor, y: Tensor) -> Tensor:
        main = torch.cuda.current_stream()
        measures = []
        for run, stream in enumerate(self.streams):
            stream.wait_stream(main)
            with torch.cuda.stream(stream):
                measures.append(self.step(run, x[run], y[run]))
        for stream in self.streams:
            main.wait_stream(stream)
        return torch.stack(measures)
