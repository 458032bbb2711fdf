"""Slowly-changing regression (Dohare et al. 2021, 2024): which inputs a small network sees drifts with time."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from continual_agents.settings import check_counts

from ..draws import Draw, numpy_draws
from ..states import array_of
from .stream import Stream, chunk_steps


class SlowlyChangingRegression(Stream):
    """Inputs are a constant 1, then slow bits, then random bits; the target is a fixed random network of them.

    | input | values | changes |
    |---|---|---|
    | 0 | 1 | never |
    | 1 .. slow_bits | 0, 1 | one flips (or all are redrawn) every `change_every` examples |
    | the rest | 0, 1 | every example |

    Target: `units` linear threshold units with weights of +-1 over all inputs; unit i fires if its weighted sum
    exceeds `beta * inputs - (number of its negative weights)`; output weights of +-1. (With the constant, fan-in
    is 21.) Batch 1. As long as no slow bit changes only 2^random_bits inputs occur, so targets are looked up.

    Args:
        seeds: one per run: target network, bits and their changes.
        change_every: examples between changes: the length of a task.
        slow_bits, random_bits: how many.
        redraw_all: all slow bits are redrawn instead of one flipped (what the public code does by default).
        units: of the target network.
        beta: threshold as a share of the inputs.
        published_thresholds: the public code adds the constant's weight b to twice the number of negative weights where
            it should subtract it, so that units with b = -1 fire less; published figures come from that (their errors
            are a quarter smaller).
        device: of the examples.

    Raises:
        ValueError: a number out of range.
    """

    loss = "squared_error"
    outputs = 1
    batch = 1

    def __init__(
        self,
        seeds: Sequence[int],
        *,
        change_every: int = 10_000,
        slow_bits: int = 15,
        random_bits: int = 5,
        redraw_all: bool = False,
        units: int = 100,
        beta: float = 0.7,
        published_thresholds: bool = False,
        device: torch.device | str = "cpu",
    ):
        check_counts("stream", change_every=change_every, slow_bits=slow_bits, random_bits=random_bits, units=units)
        if random_bits > 12:
            raise ValueError(f"stream.random_bits={random_bits}: at most 12, all their patterns are tabulated")
        super().__init__(seeds, device)
        self.task_steps, self.slow_bits, self.random_bits = change_every, slow_bits, random_bits
        self.redraw_all = redraw_all
        width = 1 + slow_bits + random_bits
        self.shape = (width,)
        self._target = [_target_network(seed, width, units, beta, published_thresholds) for seed in self.seeds]
        patterns = (np.arange(2**random_bits)[:, None] >> np.arange(random_bits)) & 1
        self._patterns = patterns.astype(np.float32)
        self._slow = np.stack([numpy_draws(seed, Draw.FLIPS).integers(0, 2, slow_bits) for seed in self.seeds])
        self._begin()

    def next(self, most: int) -> tuple[Tensor, Tensor]:
        """As `Stream.next`: inputs `[steps, runs, 1, width]`, targets `[steps, runs, 1, 1]`."""
        offset = self.position % self.task_steps
        if offset == 0 and self.position:
            self._change()
        steps = min(most, self.task_steps - offset, chunk_steps(self.runs * self.shape[0] * 4))
        rows = self._rows[offset : offset + steps].view(-1)
        self.position += steps
        inputs, targets = self._inputs.index_select(0, rows), self._targets.index_select(0, rows)
        return inputs.view(steps, self.runs, 1, -1), targets.view(steps, self.runs, 1, 1)

    def evaluation(self, examples: int) -> Tensor:
        """Uniformly random bits, the same at every call: `[runs, examples, width]`."""
        width = self.shape[0] - 1
        bits = [numpy_draws(seed, Draw.EVALUATION).integers(0, 2, (examples, width)) for seed in self.seeds]
        ones = np.ones((self.runs, examples, 1))
        return torch.from_numpy(np.concatenate([ones, np.stack(bits)], -1).astype(np.float32)).to(self.device)

    def _change(self) -> None:
        for run, seed in enumerate(self.seeds):
            draws = numpy_draws(seed, Draw.FLIPS, self.task)
            if self.redraw_all:
                self._slow[run] = draws.integers(0, 2, self.slow_bits)
            else:
                self._slow[run, draws.integers(self.slow_bits)] ^= 1
        self._begin()

    def _begin(self, task: int | None = None) -> None:
        """Tabulate the inputs and targets of the task, and draw which of them come when."""
        task = self.task if task is None else task
        count = len(self._patterns)
        inputs = np.ones((self.runs, count, self.shape[0]), dtype=np.float32)
        inputs[:, :, 1 : 1 + self.slow_bits] = self._slow[:, None]
        inputs[:, :, 1 + self.slow_bits :] = self._patterns
        targets = np.stack([_apply(network, x) for network, x in zip(self._target, inputs, strict=True)])
        order = self.each(lambda one: one.integers(0, count, self.task_steps), Draw.EXAMPLES, task, dim=1)
        self._inputs = torch.from_numpy(inputs.reshape(-1, self.shape[0])).to(self.device)
        self._targets = torch.from_numpy(targets.reshape(-1)).to(self.device)
        # the runs' tables stand behind each other, so that one `index_select` serves all runs and steps
        self._rows = order + torch.arange(self.runs, device=self.device) * count

    def state_dict(self) -> dict[str, Any]:
        """Position and slow bits; everything else follows from them and the seeds."""
        return {**super().state_dict(), "slow": self._slow.copy()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict()`."""
        self._slow = array_of(state["slow"])
        super().load_state_dict(state)

    def return_to(self, last: int) -> None:
        """As the base; at the end of a task the bits are still the old ones, `next` changes them."""
        self._begin(last // self.task_steps)


def _target_network(
    seed: int, width: int, units: int, beta: float, published_thresholds: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights `[width, units]`, thresholds `[units]` and output weights `[units]` of one run."""
    draws = numpy_draws(seed, Draw.TARGET)
    weights = draws.choice([-1.0, 1.0], (width, units)).astype(np.float32)
    negative = (weights < 0).sum(0)
    if published_thresholds:
        # half too many with a constant's weight of 1, half too few with -1
        negative = negative + np.where(weights[0] < 0, -1.5, 0.5)
    thresholds = beta * width - negative
    return weights, thresholds.astype(np.float32), draws.choice([-1.0, 1.0], units).astype(np.float32)


def _apply(network: tuple[np.ndarray, np.ndarray, np.ndarray], x: np.ndarray) -> np.ndarray:
    weights, thresholds, out = network
    # sums of +-1: exact in float32
    return (x @ weights > thresholds).astype(np.float32) @ out
