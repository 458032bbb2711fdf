"""L2 regularisation towards the initial weights."""

from typing import Any

import torch

from .operation import Operation, fill_, in_range
from .target import Setting, Target


class PullToInit(Operation):
    """L2 towards the initial weights (Kumar et al. 2023), decoupled: `w <- w + strength * (w_0 - w)`.

    Args:
        target: what is pulled, in place; its values at construction (or at the last full reset) are `w_0`.
        strength: fraction of the distance, in [0, 1].
    """

    remembers = ("initial",)

    def __init__(self, target: Target, *, strength: Setting):
        super().__init__(target)
        in_range("l2_init.strength", strength, 0, 1, what="a fraction of the distance per step lies in [0, 1]")
        self.strength = strength
        self.initial = [tensor.clone() for tensor in target.tensors]

    def act(self, index: int) -> None:
        """Pull once."""
        for tensor, initial in zip(self.target.tensors, self.initial, strict=True):
            tensor.lerp_(initial, self.strength)

    def restart(self) -> None:
        """The new weights are the ones to pull to."""
        fill_(self.initial, self.target.tensors)

    @torch.no_grad()
    def report(self) -> dict[str, Any]:
        """Root mean square distance from the initial weights."""
        pairs = list(zip(self.target.tensors, self.initial, strict=True))
        squares = self.target.sums([(tensor - initial).square() for tensor, initial in pairs])
        return {"distance_from_init": (squares / self.target.sums([torch.ones_like(t) for t, _ in pairs])) ** 0.5}
