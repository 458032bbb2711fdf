"""Periodic shrink-and-perturb."""

from .operation import Operation, in_range
from .target import Setting, Target


class SoftReset(Operation):
    """Part of the way to a newly drawn network: `w <- shrink w + (1 - shrink) fresh` (Ash and Adams 2020; D'Oro 2023).

    Args:
        target: the networks.
        shrink: what is kept, in [0, 1]; .8 as published every 1e4 steps or so.
        keep_momentum: leave the optimizer's state alone.
        birth: distribution of the fresh weights, a name that `surgery.BIRTHS` knows; None: as the network began.
    """

    period = 10_000

    def __init__(self, target: Target, *, shrink: Setting = 0.8, keep_momentum: bool = False, birth: str | None = None):
        super().__init__(target)
        in_range("soft_reset.shrink", shrink, 0, 1, what="the part of the weights that is kept lies in [0, 1]")
        target.born_as(birth)
        self.shrink, self.keep_momentum = shrink, keep_momentum

    def act(self, index: int) -> None:
        """Go part of the way."""
        for tensor, fresh in zip(self.target.tensors, self.target.fresh(index), strict=True):
            tensor.lerp_(fresh, 1 - self.shrink)
        if not self.keep_momentum:
            self.target.forget(None)
