"""The plain fully connected network."""

import math
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import nn

from .activations import activation_of
from .layers import Dropout
from .norms import norm_of

Layer = TypeVar("Layer", nn.Linear, nn.Conv2d)

INITS = {"lecun_uniform": (3.0, 0.0), "default": (1.0, 1.0)}
"""Uniform on +-sqrt(c / fan_in), the c of weights and of biases: as published for PPO on the slippery ant, and
PyTorch's own; named as in `surgery.BIRTHS`."""


def mlp(
    inputs: int,
    outputs: int,
    *,
    hidden: Sequence[int] = (256, 256),
    activation: str = "relu",
    norm: str | None = None,
    dropout: float = 0.0,
    init: str = "lecun_uniform",
    generator: torch.Generator,
) -> nn.Sequential:
    """A fully connected network: `Linear -> norm -> activation -> dropout`, repeated.

    Args:
        inputs: size of the input.
        outputs: size of the output.
        hidden: width of each hidden layer.
        activation: a key of `ACTIVATIONS`; `crelu` and `fourier` double what the next layer reads.
        norm: a key of `NORMS` or None, before the activation.
        dropout: probability of dropping a unit in a training pass, in [0, 1).
        init: distribution of the initial weights, a key of `INITS`.
        generator: source of the initial weights and of the seeds of the dropout layers.

    Raises:
        ValueError: an unknown activation, norm or distribution, a width below 1, a dropout outside [0, 1).
    """
    act, normalise = activation_of(activation), norm_of(norm)
    if not 0 <= dropout < 1:
        raise ValueError(f"network.dropout={dropout}: a probability in [0, 1)")
    if any(width < 1 for width in hidden):
        raise ValueError(f"network.hidden={list(hidden)}: every layer needs at least one unit")
    layers: list[nn.Module] = []
    width = inputs
    for size in hidden:
        layers.append(linear(width, size, init, generator))
        if normalise is not None:
            layers.append(normalise.module(size))
        layers.append(act.module())
        if dropout:
            seed = int(torch.randint(2**31, (), generator=generator))
            layers.append(Dropout(dropout, torch.Generator().manual_seed(seed)))
        width = act.outputs * size
    layers.append(linear(width, outputs, init, generator))
    return nn.Sequential(*layers)


def linear(inputs: int, outputs: int, init: str, generator: torch.Generator) -> nn.Linear:
    """A layer of the initial distribution."""
    # skip_init: nn.Linear's own initialisation would draw from the global generator
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, inputs, outputs)
    return initialised(layer, init, generator)


def initialised(layer: Layer, init: str, generator: torch.Generator) -> Layer:
    """The layer with weights and biases drawn; a kernel's positions count as inputs.

    Raises:
        ValueError: an unknown distribution.
    """
    if init not in INITS:
        raise ValueError(f"network.init={init!r}: {' or '.join(INITS)}")
    fan_in = layer.weight[0].numel()
    with torch.no_grad():
        for parameter, square in zip(layer.parameters(), INITS[init], strict=True):
            if square:
                bound = math.sqrt(square / fan_in)
                parameter.uniform_(-bound, bound, generator=generator)
            else:
                parameter.zero_()
    return layer
