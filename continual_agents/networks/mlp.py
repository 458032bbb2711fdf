"""The plain fully connected network."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from .activations import activation_of
from .layers import Dropout
from .norms import norm_of


def mlp(
    inputs: int,
    outputs: int,
    *,
    hidden: Sequence[int] = (256, 256),
    activation: str = "relu",
    norm: str | None = None,
    dropout: float = 0.0,
    generator: torch.Generator,
) -> nn.Sequential:
    """A fully connected network, LeCun-uniform with zero biases: `Linear -> norm -> activation -> dropout`, repeated.

    Args:
        inputs: size of the input.
        outputs: size of the output.
        hidden: width of each hidden layer.
        activation: a key of `ACTIVATIONS`; `crelu` and `fourier` double what the next layer reads.
        norm: a key of `NORMS` or None, before the activation.
        dropout: probability of dropping a unit in a training pass, in [0, 1).
        generator: source of the initial weights and of the seeds of the dropout layers.

    Raises:
        ValueError: an unknown activation or norm, a width below 1, a dropout outside [0, 1).
    """
    act, normalise = activation_of(activation), norm_of(norm)
    if not 0 <= dropout < 1:
        raise ValueError(f"network.dropout={dropout}: a probability in [0, 1)")
    if any(width < 1 for width in hidden):
        raise ValueError(f"network.hidden={list(hidden)}: every layer needs at least one unit")
    layers: list[nn.Module] = []
    width = inputs
    for size in hidden:
        layers.append(_linear(width, size, generator))
        if normalise is not None:
            layers.append(normalise.module(size))
        layers.append(act.module())
        if dropout:
            seed = int(torch.randint(2**31, (), generator=generator))
            layers.append(Dropout(dropout, torch.Generator().manual_seed(seed)))
        width = act.outputs * size
    layers.append(_linear(width, outputs, generator))
    return nn.Sequential(*layers)


def _linear(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    """LeCun-uniform: U(-b, b) with b = sqrt(3 / fan_in), the published initialisation; zero bias."""
    # skip_init: nn.Linear's own initialisation would draw from the global generator
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, inputs, outputs)
    bound = math.sqrt(3 / inputs)
    with torch.no_grad():
        layer.weight.uniform_(-bound, bound, generator=generator)
        layer.bias.zero_()
    return layer
