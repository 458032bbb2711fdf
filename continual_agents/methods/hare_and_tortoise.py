"""Hare and tortoise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from .operation import Operation, in_range
from .target import Setting, Target


class HareAndTortoise(Operation):
    """The hare learns; the tortoise is its exponential mean; now and then the hare jumps back (Lee et al. 2024).

    Every step `slow <- slow + rate (w - slow)`; every `period` steps, or at every task, `w <- slow` and the optimizer
    forgets what it knows.

    Args:
        target: the networks.
        rate: of the tortoise, in [0, 1]; the paper's .005 to .05.
    """

    period = 4_000

    def __init__(self, target: Target, *, rate: Setting = 0.005):
        super().__init__(target)
        in_range("hare_and_tortoise.rate", rate, 0, 1, what="the rate of a running mean lies in [0, 1]")
        self.rate = rate
        self.slow = [tensor.clone() for tensor in target.tensors]

    def follow(self) -> None:
        """The tortoise goes on."""
        for slow, tensor in zip(self.slow, self.target.tensors, strict=True):
            slow.lerp_(tensor, self.rate)

    def act(self, index: int) -> None:
        """The hare jumps back."""
        for slow, tensor in zip(self.slow, self.target.tensors, strict=True):
            tensor.copy_(slow)
        self.target.forget(None)

    @torch.no_grad()
    def restart(self) -> None:
        """Both begin at the new weights."""
        self.load_own_state({"slow": self.target.tensors})

    def own_state(self) -> dict[str, Any]:
        """The tortoise."""
        return {"slow": [tensor.clone() for tensor in self.slow]}

    def load_own_state(self, state: Mapping[str, Any]) -> None:
        """Continue from `own_state()`."""
        for slow, stored in zip(self.slow, state["slow"], strict=True):
            slow.copy_(stored)
