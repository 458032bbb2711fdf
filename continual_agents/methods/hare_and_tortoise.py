"""Hare and tortoise."""

from .operation import Operation, fill_, in_range
from .target import Setting, Target


class HareAndTortoise(Operation):
    """The hare learns; the tortoise is its exponential mean; now and then the hare jumps back (Lee et al. 2024).

    Every step `slow <- slow + rate (w - slow)`; every `period` steps, or at every task, `w <- slow` and the optimizer
    forgets what it knows.

    Args:
        target: the networks.
        rate: of the tortoise, in [0, 1]; the paper's .005 to .05.
    """

    remembers = ("slow",)
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
        fill_(self.target.tensors, self.slow)
        self.target.forget(None)

    def restart(self) -> None:
        """Both begin at the new weights."""
        fill_(self.slow, self.target.tensors)
