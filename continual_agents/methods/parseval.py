"""Parseval regularisation."""

import torch

from .operation import Operation, in_range
from .target import Setting, Target, hidden_layers


class ParsevalRegularization(Operation):
    """Keep the rows of hidden weight matrices orthogonal (Cisse et al. 2017; Chung et al. 2024), decoupled.

    One gradient step on `|W W^T - s I|^2` per hidden layer: `W <- W - strength * 4 (W W^T - s I) W`.
    Its matrix products round otherwise for a run in a stack than for the run alone.

    Args:
        target: the networks; output layers are left alone.
        strength: step size times the regularisation's weight, >= 0.
        scale: s, the squared length that rows are pulled to; 2 keeps the size of ReLU's outputs.
    """

    def __init__(self, target: Target, *, strength: Setting = 1e-4, scale: float = 2.0):
        super().__init__(target)
        in_range("parseval.strength", strength, 0, what="a strength is at least 0")
        in_range("parseval.scale", scale, 0, what="a squared length is at least 0")
        self.strength, self.scale = strength, scale

    def act(self, index: int) -> None:
        """Pull once."""
        for layer in hidden_layers(self.target):
            weight = layer.weight
            gram = weight @ weight.mT
            gram.diagonal(dim1=-2, dim2=-1).sub_(self.scale)
            weight.sub_(self.strength * 4 * torch.matmul(gram, weight))
