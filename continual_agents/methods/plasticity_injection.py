"""Plasticity injection."""

from typing import Any

from .operation import Operation
from .target import Target


class PlasticityInjection(Operation):
    """From a moment on the output is `f(x) + g(x) - g_0(x)` (Nikishin et al. 2023): f is frozen, g is new and trained.

    `g_0` is a frozen copy of g as it was drawn, so the function does not jump, and as many parameters are trained as
    before: g takes the places of f's, of which the optimizer forgets what it knew, and nobody has to be told of new
    ones. A frozen pair costs two forward passes.

    Args:
        target: the networks.
        most: how often there is an injection at most: each one adds a frozen pair.
        birth: distribution of g's weights, a name that `surgery.BIRTHS` knows; None: as the network began.
    """

    remembers = ("injections",)
    period = None
    at_task = True
    draws = True  # the step changes when there is an injection: no CUDA graph may repeat it
    follows = True  # nor native code that does not know of frozen networks

    def __init__(self, target: Target, *, most: int = 1, birth: str | None = None):
        super().__init__(target)
        if most < 1:
            raise ValueError(f"plasticity_injection.most={most}: at least one injection")
        target.born_as(birth)
        self.most, self.injections = most, 0

    def act(self, index: int) -> None:
        """Inject, unless that was done often enough."""
        if self.injections < self.most:
            self.target.inject(index)
            self.target.forget(None)
            self.injections += 1

    def report(self) -> dict[str, Any]:
        """How often it has acted."""
        return {"injections": self.target.each(self.injections)}
