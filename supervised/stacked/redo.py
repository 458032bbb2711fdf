"""ReDo and ReGraMa on a stack, with thresholds per run."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from continual_agents.surgery.utility import dormancy

from .network import StackedMlp
from .optimizers import StackedOptimizer
from .surgeon import SURGEON, StackedSurgery, common, only


class StackedReDo(StackedSurgery):
    """ReDo on every run of a stack: every `period` steps, units at or under `threshold` go, as `surgery.ReDo` has it.

    Args:
        stack, optimizer: as trained.
        settings: per run: `threshold`, fraction of the layer's mean; `period`, steps, is common to the stack.

    Raises:
        ValueError: a setting out of range.
    """

    def __init__(self, stack: StackedMlp, optimizer: StackedOptimizer, settings: Sequence[Mapping[str, Any]]):
        only(settings, self.name, "threshold", "period", "transfer", *SURGEON)
        super().__init__(stack, optimizer, settings)
        self.period = int(common(settings, "period", 1000))
        thresholds = [float(one.get("threshold", self.threshold)) for one in settings]
        if self.period < 1 or not all(0 <= threshold < 1 for threshold in thresholds):
            raise ValueError(f"{self.name}.period={self.period}, threshold={thresholds}: at least 1, and in [0, 1)")
        self.thresholds = torch.tensor(thresholds, device=stack.device, dtype=stack.dtype)[:, None]
        # sums of the score and of the output since the last look
        self.activity, self.means = self.per_unit(), self.per_unit()

    name, threshold = "redo", 0.025
    remembers = ("activity", "means")

    @property
    def next_step(self) -> float:
        """The next step after which units may be replaced."""
        return self.steps + self.period - self.steps % self.period

    def follow_step(self, number: int) -> None:
        """Add up |h| and h."""
        for total, mean, h in zip(self.activity, self.means, self.stack.inputs[1:], strict=True):
            total.add_(h[:, 0].abs() if h.shape[1] == 1 else h.abs().mean(1))
            mean.add_(h[:, 0] if h.shape[1] == 1 else h.mean(1))

    def act_now(self) -> None:
        """Replace what is dormant; only here does the host wait for the device."""
        jobs = [
            (layer, [run], units[None], self.means[layer][run][units][None] / self.period if self.transfer else None)
            for layer, total in enumerate(self.activity)
            for run, units in self._dormant(total)
        ]
        self.surgeon.replace(jobs)
        for layer, (run,), units, _ in jobs:
            self.replaced[run, layer] += units.shape[1]
        for total in (*self.activity, *self.means):
            total.zero_()

    def _dormant(self, total: Tensor) -> Iterator[tuple[int, Tensor]]:
        mask = dormancy(total) <= self.thresholds
        for run in mask.any(1).nonzero()[:, 0].tolist():
            yield run, mask[run].nonzero()[:, 0]


class StackedReGraMa(StackedReDo):
    """The same by gradients of the units' in-weights, as `surgery.ReGraMa` has it."""

    name, threshold, native = "regrama", 0.01, False

    def follow_step(self, number: int) -> None:
        """Add up mean |dL/dW_in| and h."""
        layers = zip(self.activity, self.means, self.stack.inputs[:-1], self.stack.inputs[1:], strict=True)
        for k, (total, mean, x, h) in enumerate(layers):
            delta = self.stack.deltas[k][..., : h.shape[2]]
            if x.shape[1] == 1:  # of an outer product the absolute values are those of its factors
                total.add_(delta[:, 0].abs() * x[:, 0].abs().mean(1, keepdim=True))
                mean.add_(h[:, 0])
            else:
                total.add_((x.transpose(1, 2) @ delta).abs().mean(1))
                mean.add_(h.mean(1))
