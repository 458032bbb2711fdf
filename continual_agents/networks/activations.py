"""Activations: one row each, for agents and streams alike."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from continual_agents.settings import nearest

from .layers import CReLU, Fourier
from .spellings import current


@dataclass(frozen=True)
class Activation:
    """One row.

    Attributes:
        module: the activation, elementwise along the last dim.
        gain: of Kaiming's initial distribution, `torch.nn.init.calculate_gain` (ReLU's where torch knows none).
        flat: how dead units are told: "relu", "tanh" or "sigmoid" (`continual_agents.plasticity`).
        outputs: outputs per unit: 2 for concatenated ReLU.
    """

    module: Callable[[], nn.Module]
    gain: float = math.sqrt(2)
    flat: str = "relu"
    outputs: int = 1


ACTIVATIONS: dict[str, Activation] = {
    "relu": Activation(nn.ReLU),
    "tanh": Activation(nn.Tanh, 5 / 3, "tanh"),
    "sigmoid": Activation(nn.Sigmoid, 1.0, "sigmoid"),
    "leaky_relu": Activation(nn.LeakyReLU, nn.init.calculate_gain("leaky_relu", 0.01)),
    "elu": Activation(nn.ELU),
    "silu": Activation(nn.SiLU),
    "gelu": Activation(nn.GELU),
    "selu": Activation(nn.SELU, nn.init.calculate_gain("selu")),
    "linear": Activation(nn.Identity, 1.0),
    "crelu": Activation(CReLU, outputs=2),
    "fourier": Activation(Fourier, flat="tanh", outputs=2),
}
"""Activations by name. A row of your own is added with `ACTIVATIONS[name] = Activation(...)`: a stack of runs
differentiates its module if nobody has written the derivative out (`supervised/stacked/derivatives.py`)."""


def activation_of(name: str) -> Activation:
    """The activation called `name`.

    Raises:
        ValueError: unknown, with the nearest known one.
    """
    name = current("network.activation", name)
    if name not in ACTIVATIONS:
        raise ValueError(f"network.activation={name} is unknown{nearest(name, ACTIVATIONS)}")
    return ACTIVATIONS[name]
