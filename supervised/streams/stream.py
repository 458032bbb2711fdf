"""What every stream offers to the training loop."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..draws import Draw, numpy_draws
from ..stacked.steps import UNROLLED


class Stream:
    """Endless examples for every run of a stack, a task after another; generated as they are asked for.

    This is also the base of the streams here: each run draws from its own seed, and the position is all that has to be
    remembered. Any class with the same attributes and the methods `next`, `evaluation`, `test`, `state_dict` and
    `load_state_dict` will do.

    Args:
        seeds: of the runs.
        device: of the examples.

    Attributes:
        runs: number of runs.
        shape: of one input.
        outputs: width of the network's output.
        loss: "cross_entropy" or "squared_error".
        batch: examples per gradient step.
        task_steps: gradient steps per task; of the first one, where a method `task_start` says when each begins.
        position: gradient steps given so far.
    """

    shape: tuple[int, ...]
    outputs: int
    loss: str
    batch: int
    task_steps: int

    def __init__(self, seeds: Sequence[int], device: torch.device | str):
        self.seeds, self.runs, self.device, self.position = list(seeds), len(seeds), torch.device(device), 0

    def next(self, most: int) -> tuple[Tensor, Tensor]:
        """The next batches, at least 1 and at most `most`, never beyond the end of the task.

        Returns:
            Inputs `[steps, runs, batch, *shape]`; classes `[steps, runs, batch]`, or targets with outputs as last dim.
        """
        raise NotImplementedError

    def evaluation(self, examples: int) -> Tensor:
        """A fixed batch to look at the network with, in the current task's form: `[runs, examples, *shape]`."""
        raise NotImplementedError

    def test(self) -> tuple[Tensor, Tensor] | None:
        """The current task's test set, inputs and classes; None if there is none: the measure is an online one."""
        return None

    @property
    def task(self) -> int:
        """Number of the current task, from 0."""
        return self.position // self.task_steps

    def each(self, draw: Callable[[np.random.Generator], np.ndarray], *key: int, dim: int = 0) -> Tensor:
        """What `draw` takes from each run's own numbers for one purpose, on the device, with the runs along `dim`.

        Args:
            draw: from a generator to an array.
            key: the purpose, a `Draw`, and which one of them.
            dim: of the runs.
        """
        what, *which = key
        drawn = [draw(numpy_draws(seed, Draw(what), *which)) for seed in self.seeds]
        return torch.from_numpy(np.stack(drawn, dim)).to(self.device)

    def return_to(self, last: int) -> None:
        """Draw again what belongs to the step before the position, from 0."""

    def state_dict(self) -> dict[str, Any]:
        """Position; everything else follows from it and the seeds."""
        return {"position": self.position}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict()`."""
        self.position = int(state["position"])
        self.return_to(max(self.position - 1, 0))


def task_start(stream: Stream, task: int) -> int:
    """Gradient step with which a task begins: every `task_steps`, or where the stream's own `task_start(task)` says."""
    own: Callable[[int], int] | None = getattr(stream, "task_start", None)
    return task * stream.task_steps if own is None else own(task)


def task_of(stream: Stream, step: int) -> int:
    """Number of the task that a gradient step belongs to."""
    if not hasattr(stream, "task_start"):
        return step // stream.task_steps
    return next(task for task in itertools.count() if task_start(stream, task + 1) > step)


MOST_BYTES = 2**20
"""A chunk of inputs holds about this much: it stays in the cache between being made and being learned from."""


def chunk_steps(bytes_per_step: int) -> int:
    """Steps of a chunk of about `MOST_BYTES`; from ten on a multiple of ten, so that captured pieces fill it."""
    steps = max(1, MOST_BYTES // max(1, bytes_per_step))
    return steps if steps < UNROLLED else steps // UNROLLED * UNROLLED
