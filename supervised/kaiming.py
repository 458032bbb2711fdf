"""The initial distribution of convolutional networks."""

import math

import torch
from torch import nn

from continual_agents.networks import activation_of


@torch.no_grad()
def kaiming_uniform_(network: nn.Module, activation: str, generator: torch.Generator) -> None:
    """Draw every convolution and linear layer, first to last: `U(-b, b)`, `b = gain * sqrt(3 / fan_in)`; biases are 0.

    Args:
        network: its last such layer makes the output, with a gain of 1.
        activation: name in `ACTIVATIONS`, whose gain the others have.
        generator: source of the draws, on the CPU.
    """
    gain = activation_of(activation).gain
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    for layer in layers:
        bound = (1.0 if layer is layers[-1] else gain) * math.sqrt(3 / layer.weight[0].numel())
        layer.weight.copy_(torch.empty(layer.weight.shape).uniform_(-bound, bound, generator=generator))
        if layer.bias is not None:
            layer.bias.zero_()
