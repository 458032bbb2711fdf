"""Shrink-and-perturb."""

from torch import Tensor

from .operation import Operation, in_range
from .target import Setting, Target


class Perturb(Operation):
    """Shrink-and-perturb (Ash and Adams 2020): `w <- shrink w + noise N(0, 1)` for everything trained.

    Published twice: once, between two data sets (`at_task`, shrink .4, noise .1); or softly at every step, where the
    shrinking is the optimizer's coupled weight decay and this adds the noise alone, as in the later comparisons.

    Args:
        target: what is perturbed, in place.
        noise: standard deviation of the noise, >= 0.
        shrink: factor of the weights, in [0, 1].
    """

    draws = True

    def __init__(self, target: Target, *, noise: Setting, shrink: Setting = 1.0):
        super().__init__(target)
        in_range("perturb.noise", noise, 0, what="a standard deviation is at least 0")
        in_range("perturb.shrink", shrink, 0, 1, what="the part of the weights that is kept lies in [0, 1]")
        self.noise, self.shrink = noise, shrink

    def act(self, index: int) -> None:
        """Shrink, and add fresh noise."""
        if isinstance(self.shrink, Tensor) or self.shrink != 1:
            for tensor in self.target.tensors:
                tensor.mul_(self.shrink)
        self.target.add_noise_(self.noise, index - 1)
