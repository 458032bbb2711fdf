"""L2 regularisation towards the initial weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn


class PullToInit:
    """L2 towards the initial weights (Kumar et al. 2023), decoupled: `w <- w + strength * (w_0 - w)` after each step.

    Args:
        parameters: what is pulled, in place; their values at construction are `w_0`.
        strength: fraction of the distance per step, in [0, 1].
    """

    def __init__(self, parameters: Sequence[nn.Parameter], *, strength: float):
        if not 0 <= strength <= 1:
            raise ValueError(f"l2_init.strength={strength}: a fraction of the distance per step lies in [0, 1]")
        self.parameters: list[torch.Tensor] = list(parameters)
        self.initial = [parameter.detach().clone() for parameter in self.parameters]
        self.strength = strength

    @torch.no_grad()
    def step(self) -> None:
        """Pull once."""
        torch._foreach_lerp_(self.parameters, self.initial, self.strength)

    def state_dict(self) -> dict[str, Any]:
        """The initial weights."""
        return {"initial": [tensor.clone() for tensor in self.initial]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict()`."""
        for tensor, stored in zip(self.initial, state["initial"], strict=True):
            tensor.copy_(stored)

    @torch.no_grad()
    def report(self) -> dict[str, float]:
        """Root mean square distance from the initial weights."""
        squares = sum(float((p - w).square().sum()) for p, w in zip(self.parameters, self.initial, strict=True))
        return {"distance_from_init": (squares / sum(p.numel() for p in self.parameters)) ** 0.5}
