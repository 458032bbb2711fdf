"""The projection of normalise-and-project."""

import torch
from torch import Tensor

from .operation import Operation
from .target import Target, hidden_layers


class Projection(Operation):
    """Scale every hidden weight matrix back to its initial Frobenius norm (Lyle et al. 2024, normalise-and-project).

    `W <- W |W_0| / |W|`. With a normalisation before every activation (`network.norm`) that leaves the function as it
    is and keeps the effective step size from decaying as weights grow. The output layer, which no normalisation
    follows, is left alone.

    Args:
        target: the networks.
    """

    remembers = ("sizes",)

    def __init__(self, target: Target):
        super().__init__(target)
        self.sizes = self._sizes()

    def _sizes(self) -> list[Tensor]:
        return [torch.linalg.matrix_norm(layer.weight, keepdim=True) for layer in hidden_layers(self.target)]

    def act(self, index: int) -> None:
        """Project once; a matrix of zeros has no direction and stays."""
        for layer, size, now in zip(hidden_layers(self.target), self.sizes, self._sizes(), strict=True):
            layer.weight.mul_(torch.where(now > 0, size / now, 1.0))

    @torch.no_grad()
    def restart(self) -> None:
        """The new weights' norms are the ones to keep."""
        self.sizes = self._sizes()
