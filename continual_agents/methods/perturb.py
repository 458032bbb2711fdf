"""Shrink-and-perturb's noise."""

from __future__ import annotations

from .operation import Operation, in_range
from .target import Setting, Target


class Perturb(Operation):
    """The noise of shrink-and-perturb (Ash and Adams 2020): `w <- w + noise * N(0, 1)` for everything trained.

    The shrinking is the optimizer's coupled weight decay, as in the published comparisons.

    Args:
        target: what is perturbed, in place.
        noise: standard deviation of the noise, >= 0.
    """

    draws = True

    def __init__(self, target: Target, *, noise: Setting):
        super().__init__(target)
        in_range("perturb.noise", noise, 0, what="a standard deviation is at least 0")
        self.noise = noise

    def act(self, index: int) -> None:
        """Add fresh noise."""
        self.target.add_noise_(self.noise, index - 1)
