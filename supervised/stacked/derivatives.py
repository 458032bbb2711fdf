"""Derivatives of the activations, for networks whose backward pass is written by hand."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from continual_agents.networks import activation_of
from continual_agents.networks.spellings import current

SELU_ALPHA = 1.6732632423543772
SELU_SCALE = 1.0507009873554805


@dataclass(frozen=True)
class Derivative:
    """An activation as a stack computes it.

    Attributes:
        forward: z -> h.
        backward: (dL/dh, z, h) -> dL/dz.
    """

    forward: Callable[[Tensor], Tensor]
    backward: Callable[[Tensor, Tensor, Tensor], Tensor]


def sigmoid(z: Tensor) -> Tensor:
    """1 / (1 + exp(-z)), every entry rounded alike."""
    # torch.sigmoid rounds the last few entries of a tensor otherwise than the rest, so a run alone would differ from
    # the same run in a stack; tanh does not
    return (z * 0.5).tanh_().add_(1.0).mul_(0.5)


def _expm1(z: Tensor) -> Tensor:
    """exp(z) - 1 for z <= 0, by tanh for the same reason as in `sigmoid`."""
    half = (z * 0.5).tanh_()
    return 2 * half / (1 - half)


def _elu(z: Tensor) -> Tensor:
    return torch.where(z > 0, z, _expm1(z.clamp_max(0.0)))


def _selu(z: Tensor) -> Tensor:
    return SELU_SCALE * torch.where(z > 0, z, SELU_ALPHA * _expm1(z.clamp_max(0.0)))


def _silu_backward(d: Tensor, z: Tensor, h: Tensor) -> Tensor:
    gate = sigmoid(z)
    return d * (gate + h * (1 - gate))


def _crelu_backward(d: Tensor, z: Tensor, h: Tensor) -> Tensor:
    positive, negative = d.chunk(2, -1)
    return positive * (z > 0) - negative * (z < 0)


DERIVATIVES: dict[str, Derivative] = {
    "relu": Derivative(torch.relu, lambda d, z, h: torch.ops.aten.threshold_backward(d, h, 0)),
    "tanh": Derivative(torch.tanh, lambda d, z, h: torch.ops.aten.tanh_backward(d, h)),
    "sigmoid": Derivative(sigmoid, lambda d, z, h: torch.ops.aten.sigmoid_backward(d, h)),
    "leaky_relu": Derivative(
        lambda z: nn.functional.leaky_relu(z), lambda d, z, h: torch.ops.aten.leaky_relu_backward(d, z, 0.01, False)
    ),
    "elu": Derivative(_elu, lambda d, z, h: d * torch.where(z > 0, 1.0, h + 1)),
    "silu": Derivative(lambda z: z * sigmoid(z), _silu_backward),
    "selu": Derivative(_selu, lambda d, z, h: d * torch.where(z > 0, SELU_SCALE, h + SELU_SCALE * SELU_ALPHA)),
    "linear": Derivative(lambda z: z, lambda d, z, h: d),
    "crelu": Derivative(lambda z: torch.cat([z.relu(), z.neg().relu()], -1), _crelu_backward),
    "fourier": Derivative(
        lambda z: torch.cat([z.sin(), z.cos()], -1),
        lambda d, z, h: d.chunk(2, -1)[0] * h.chunk(2, -1)[1] - d.chunk(2, -1)[1] * h.chunk(2, -1)[0],
    ),
}
"""Derivatives written out, by the names of `continual_agents.networks.ACTIVATIONS`: faster than autograd, and the same
for a run alone as in a stack."""


def derivative_of(name: str) -> Derivative:
    """That of the activation called `name`; by autograd where nobody has written it out."""
    name = current("network.activation", name)
    return DERIVATIVES[name] if name in DERIVATIVES else _by_autograd(activation_of(name).module())


def _by_autograd(module: nn.Module) -> Derivative:
    def backward(d: Tensor, z: Tensor, h: Tensor) -> Tensor:
        with torch.enable_grad():
            leaf = z.detach().requires_grad_()
            return torch.autograd.grad(module(leaf), leaf, d)[0]

    return Derivative(module, backward)
