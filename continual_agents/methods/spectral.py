"""Spectral regularisation."""

import torch
from torch import Tensor

from .operation import Operation, in_range
from .target import Setting, Target, last_layers


class SpectralRegularization(Operation):
    """Pull every layer's largest singular value towards 1 (Lewandowski et al. 2025), decoupled from the optimizer.

    One gradient step on `(sigma^2 - 1)^2` per weight matrix, with sigma from one power iteration a step:
    `W <- W - strength * 4 sigma (sigma^2 - 1) u v^T`. Biases are pulled towards 0: `b <- b (1 - 4 strength |b|^2)`,
    the gradient of `(|b|^2)^2`.

    Args:
        target: the networks, output layers included.
        strength: step size times the regularisation's weight, >= 0.
    """

    remembers = ("left",)

    def __init__(self, target: Target, *, strength: Setting = 1e-4):
        super().__init__(target)
        in_range("spectral.strength", strength, 0, what="a strength is at least 0")
        self.strength = strength
        # the same for every run and network; one step of the iteration turns it towards the leading direction
        self.left = [
            torch.ones_like(layer.weight[..., :1]) / layer.weight.shape[-2] ** 0.5
            for layer in last_layers(target, None)
        ]

    def act(self, index: int) -> None:
        """Pull once."""
        for u, layer in zip(self.left, last_layers(self.target, None), strict=True):
            weight = layer.weight
            # products and sums instead of @, whose rounding depends on where in memory a run of a stack lies
            v = _unit((weight * u).sum(-2, keepdim=True), -1)
            wv = (weight * v).sum(-1, keepdim=True)
            u.copy_(_unit(wv, -2))
            sigma = (u * wv).sum(-2, keepdim=True)
            weight.sub_(self.strength * 4 * sigma * (sigma.square() - 1) * (u * v))
            if layer.bias is not None:
                size = layer.bias.square().sum(-2, keepdim=True)
                layer.bias.mul_((1 - 4 * self.strength * size).clamp(min=0))


def _unit(vector: Tensor, dim: int) -> Tensor:
    return vector / vector.square().sum(dim, keepdim=True).sqrt().clamp(min=1e-12)
