"""ReDo on a stack, with thresholds per run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from continual_agents.surgery.utility import dormancy

from ..states import array_of
from .network import StackedMlp
from .optimizers import StackedOptimizer
from .surgeon import SURGEON, Surgeon, common, only


class StackedReDo:
    """ReDo on every run of a stack (Sokar et al. 2023): every `period` steps, units at or under `threshold` go.

    A batch of one says nothing about a ReLU unit, so the score is of mean |h| over all examples of the last period.

    Args:
        stack, optimizer: as trained.
        settings: per run: `threshold`, fraction of the layer's mean; `period`, steps, is common to the stack.

    Raises:
        ValueError: a setting out of range.
    """

    def __init__(self, stack: StackedMlp, optimizer: StackedOptimizer, settings: Sequence[Mapping[str, Any]]):
        only(settings, "redo", "threshold", "period", *SURGEON)
        self.stack = stack
        self.surgeon = Surgeon(stack, optimizer, settings)
        self.period = int(common(settings, "period", 1000))
        thresholds = [float(one.get("threshold", 0.1)) for one in settings]
        if self.period < 1 or not all(0 <= threshold < 1 for threshold in thresholds):
            raise ValueError(f"redo.period={self.period}, threshold={thresholds}: at least 1, and in [0, 1)")
        self.thresholds = torch.tensor(thresholds, device=stack.device, dtype=stack.dtype)[:, None]
        self.activity = [
            torch.zeros(stack.runs, width, device=stack.device, dtype=stack.dtype) for width in stack.network.hidden
        ]
        self.replaced = np.zeros((stack.runs, len(self.activity)), dtype=np.int64)
        self.steps = 0

    follows, draws = True, False

    @property
    def next_step(self) -> float:
        """The next step after which units may be replaced."""
        return self.steps + self.period - self.steps % self.period

    def follow_step(self, number: int) -> None:
        """Add up |h|."""
        for total, h in zip(self.activity, self.stack.inputs[1:], strict=True):
            total.add_(h[:, 0].abs() if h.shape[1] == 1 else h.abs().mean(1))

    def act_now(self) -> None:
        """Replace what is dormant; only here does the host wait for the device."""
        jobs = [
            (layer, [run], units[None], None)
            for layer, total in enumerate(self.activity)
            for run, units in self._dormant(total)
        ]
        self.surgeon.replace(jobs)
        for layer, (run,), units, _ in jobs:
            self.replaced[run, layer] += units.shape[1]
        for total in self.activity:
            total.zero_()

    def _dormant(self, total: Tensor) -> Iterator[tuple[int, Tensor]]:
        mask = dormancy(total) <= self.thresholds
        for run in mask.any(1).nonzero()[:, 0].tolist():
            yield run, mask[run].nonzero()[:, 0]

    def start_task(self, index: int) -> None:
        """Tasks are nothing to it."""

    def report(self) -> dict[str, np.ndarray]:
        """Units replaced so far, `[runs]`."""
        layers = {f"replaced/hidden_{k}": self.replaced[:, k].astype(float) for k in range(self.replaced.shape[1])}
        return {"replaced": self.replaced.sum(1).astype(float), **layers}

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to continue exactly."""
        return {
            "activity": [total.clone() for total in self.activity],
            "replaced": self.replaced.copy(),
            "born": self.surgeon.born.copy(),
            "steps": self.steps,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict()`."""
        for total, stored in zip(self.activity, state["activity"], strict=True):
            total.copy_(stored)
        self.replaced, self.surgeon.born = array_of(state["replaced"]), array_of(state["born"])
        self.steps = int(state["steps"])
