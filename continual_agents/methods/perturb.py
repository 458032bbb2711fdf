"""Shrink-and-perturb's noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn


class Perturb:
    """The noise of shrink-and-perturb (Ash and Adams 2020): `w <- w + noise * N(0, 1)` for every parameter, each step.

    The shrinking is the optimizer's coupled weight decay, as in the published comparisons.

    Args:
        parameters: what is perturbed, in place.
        noise: standard deviation of the noise per step, >= 0.
        generator: source of the noise.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], *, noise: float, generator: torch.Generator):
        if not noise >= 0:
            raise ValueError(f"perturb.noise={noise}: a standard deviation is at least 0")
        self.parameters = list(parameters)
        self.noise = noise
        self.generator = generator
        self.steps = 0

    @torch.no_grad()
    def step(self) -> None:
        """Add fresh noise."""
        size = sum(parameter.numel() for parameter in self.parameters)
        draw = torch.empty(size, device=self.generator.device).normal_(0.0, self.noise, generator=self.generator)
        parts = draw.split([parameter.numel() for parameter in self.parameters])
        for parameter, part in zip(self.parameters, parts, strict=True):
            parameter.add_(part.view_as(parameter).to(parameter.device))
        self.steps += 1

    def state_dict(self) -> dict[str, Any]:
        """Steps done and the generator."""
        return {"steps": self.steps, "generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict()`."""
        self.steps = state["steps"]
        self.generator.set_state(state["generator"])

    def report(self) -> dict[str, float]:
        """Nothing to tell but that it runs."""
        return {"perturbations": float(self.steps)}
