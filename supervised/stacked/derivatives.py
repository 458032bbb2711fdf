"""Activation functions with their derivatives written out, for networks whose backward pass is written by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from continual_agents.settings import nearest

SELU_ALPHA = 1.6732632423543772
SELU_SCALE = 1.0507009873554805


@dataclass(frozen=True)
class Activation:
    """One activation function.

    Attributes:
        forward: z -> h.
        backward: (dL/dh, z, h) -> dL/dz.
        gain: of Kaiming's initial distribution (`torch.nn.init.calculate_gain`; ReLU's where torch knows none).
        module: the same as an `nn.Module`.
        flat: how dead units are told: "relu", "tanh" or "sigmoid" (continual_agents.plasticity).
        outputs: outputs per unit, 2 for concatenated ReLU.
    """

    forward: Callable[[Tensor], Tensor]
    backward: Callable[[Tensor, Tensor, Tensor], Tensor]
    gain: float
    module: Callable[[], nn.Module]
    flat: str = "relu"
    outputs: int = 1


class ConcatenatedReLU(nn.Module):
    """`[relu(z), relu(-z)]` along the last dim (Shang et al. 2016): a unit is never silent on both sides."""

    def forward(self, z: Tensor) -> Tensor:
        """`[..., width]` to `[..., 2 * width]`."""
        return torch.cat([z.relu(), z.neg().relu()], -1)


def _sigmoid(z: Tensor) -> Tensor:
    # torch.sigmoid rounds the last few entries of a tensor otherwise than the rest, so a run alone would differ from
    # the same run in a stack; tanh does not
    return (z * 0.5).tanh_().add_(1.0).mul_(0.5)


def _expm1(z: Tensor) -> Tensor:
    """exp(z) - 1 for z <= 0, by tanh for the same reason as in `_sigmoid`."""
    half = (z * 0.5).tanh_()
    return 2 * half / (1 - half)


def _elu(z: Tensor) -> Tensor:
    return torch.where(z > 0, z, _expm1(z.clamp_max(0.0)))


def _selu(z: Tensor) -> Tensor:
    return SELU_SCALE * torch.where(z > 0, z, SELU_ALPHA * _expm1(z.clamp_max(0.0)))


def _swish_backward(d: Tensor, z: Tensor, h: Tensor) -> Tensor:
    gate = _sigmoid(z)
    return d * (gate + h * (1 - gate))


def _crelu_backward(d: Tensor, z: Tensor, h: Tensor) -> Tensor:
    positive, negative = d.chunk(2, -1)
    return positive * (z > 0) - negative * (z < 0)


ACTIVATIONS: dict[str, Activation] = {
    "relu": Activation(
        torch.relu, lambda d, z, h: torch.ops.aten.threshold_backward(d, h, 0), nn.init.calculate_gain("relu"), nn.ReLU
    ),
    "tanh": Activation(torch.tanh, lambda d, z, h: torch.ops.aten.tanh_backward(d, h), 5 / 3, nn.Tanh, "tanh"),
    "sigmoid": Activation(_sigmoid, lambda d, z, h: torch.ops.aten.sigmoid_backward(d, h), 1.0, nn.Sigmoid, "sigmoid"),
    "leaky_relu": Activation(
        lambda z: nn.functional.leaky_relu(z),
        lambda d, z, h: torch.ops.aten.leaky_relu_backward(d, z, 0.01, False),
        nn.init.calculate_gain("leaky_relu", 0.01),
        nn.LeakyReLU,
    ),
    "elu": Activation(_elu, lambda d, z, h: d * torch.where(z > 0, 1.0, h + 1), nn.init.calculate_gain("relu"), nn.ELU),
    "swish": Activation(lambda z: z * _sigmoid(z), _swish_backward, nn.init.calculate_gain("relu"), nn.SiLU),
    "selu": Activation(
        _selu,
        lambda d, z, h: d * torch.where(z > 0, SELU_SCALE, h + SELU_SCALE * SELU_ALPHA),
        nn.init.calculate_gain("selu"),
        nn.SELU,
    ),
    "linear": Activation(lambda z: z, lambda d, z, h: d, 1.0, nn.Identity),
    "crelu": Activation(
        lambda z: torch.cat([z.relu(), z.neg().relu()], -1),
        _crelu_backward,
        nn.init.calculate_gain("relu"),
        ConcatenatedReLU,
        outputs=2,
    ),
}
"""Known activation functions by name."""


def activation_of(name: str) -> Activation:
    """The activation called `name`.

    Raises:
        ValueError: unknown, listing the known ones.
    """
    if name not in ACTIVATIONS:
        raise ValueError(f"network.activation={name} is unknown{nearest(name, ACTIVATIONS)}")
    return ACTIVATIONS[name]
