"""The networks of the streams, described by what shapes them; each description builds the ordinary `nn.Module`.

A description is hashable: runs with equal descriptions train as one stack.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from continual_agents.networks import activation_of, mlp, norm_of
from continual_agents.networks.spellings import current
from continual_agents.settings import check_settings, nearest, written

from .draws import Draw, torch_draws
from .kaiming import kaiming_uniform_
from .residual import ResNet


@dataclass(frozen=True, kw_only=True)
class Mlp:
    """Fully connected network: `Linear -> [norm] -> activation -> [dropout]` for each hidden layer, then `Linear`.

    Args:
        inputs: input width.
        outputs: output width.
        hidden: widths of the hidden layers; empty for the linear baseline.
        activation: name in `continual_agents.networks.ACTIVATIONS`.
        norm: name in `continual_agents.networks.NORMS`, or None.
        dropout: probability that a hidden unit is dropped in training, in [0, 1).

    Raises:
        ValueError: a width below 1, an unknown name, or a probability out of range.
    """

    inputs: int
    outputs: int
    hidden: tuple[int, ...] = ()
    activation: str = "relu"
    norm: str | None = None
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if min((self.inputs, self.outputs, *self.hidden)) < 1:
            raise ValueError(f"network.hidden={written(self.hidden)}: every layer needs at least one unit")
        activation_of(self.activation)
        norm_of(self.norm)
        if not 0 <= self.dropout < 1:
            raise ValueError(f"network.dropout={self.dropout}: a probability in [0, 1)")

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """`(inputs, outputs)` of each linear layer."""
        ways = activation_of(self.activation).outputs
        reads = [self.inputs, *(width * ways for width in self.hidden)]
        return list(zip(reads, [*self.hidden, self.outputs], strict=True))

    def initial(self, seed: int, *, start: int = 0) -> list[Tensor]:
        """Initial weights `[outputs, inputs]` of each linear layer: Kaiming uniform; biases start at 0.

        Args:
            seed: of the run.
            start: which draw: 0 at the beginning, k at the k-th full reset.
        """
        generator = torch_draws(seed, Draw.WEIGHTS, start)
        return [
            torch.empty(outputs, inputs).uniform_(-bound, bound, generator=generator)
            for (inputs, outputs), bound in zip(self.shapes, self.bounds, strict=True)
        ]

    @property
    def bounds(self) -> list[float]:
        """Half widths of the layers' initial distributions: `gain * sqrt(3 / inputs)`; the output's gain is 1."""
        gain = activation_of(self.activation).gain
        gains = [gain] * len(self.hidden) + [1.0]
        return [g * math.sqrt(3 / inputs) for g, (inputs, _) in zip(gains, self.shapes, strict=True)]

    def module(self, seed: int, *, start: int = 0) -> nn.Sequential:
        """The same network as an ordinary module; arguments as in `initial`."""
        network = mlp(
            self.inputs, self.outputs, hidden=self.hidden, activation=self.activation, norm=self.norm,
            dropout=self.dropout, generator=torch_draws(seed, Draw.DROPOUT),
        )  # fmt: skip
        linears = [layer for layer in network if isinstance(layer, nn.Linear)]
        with torch.no_grad():
            for linear, weight in zip(linears, self.initial(seed, start=start), strict=True):
                linear.weight.copy_(weight)
        return network


@dataclass(frozen=True, kw_only=True)
class MaxPoolNet:
    """Three convolutions, each followed by 2x2 max pooling, and three linear layers (Dohare et al. 2024, ImageNet).

    Args:
        size: side of the square images, pixels; at 32 the first linear layer reads 128 x 2 x 2 features.
        inputs: colours.
        outputs: classes of a task.
        channels: of the convolutions.
        kernels: their sides.
        hidden: widths of the two hidden linear layers.
        activation: name in `continual_agents.networks.ACTIVATIONS` (not crelu).

    Raises:
        ValueError: images too small for three poolings, or an activation that does not fit.
    """

    size: int = 32
    inputs: int = 3
    outputs: int = 2
    channels: tuple[int, int, int] = (32, 64, 128)
    kernels: tuple[int, int, int] = (5, 3, 3)
    hidden: tuple[int, int] = (128, 128)
    activation: str = "relu"

    def __post_init__(self) -> None:
        if activation_of(self.activation).outputs != 1:
            raise ValueError(f"network.activation={self.activation} is for fully connected networks: choose relu")
        for name in ("channels", "kernels", "hidden"):
            if min(getattr(self, name)) < 1:
                raise ValueError(f"network.{name}={written(getattr(self, name))}: each is at least 1")
        if self.features < 1:
            raise ValueError(
                f"network.kernels={written(self.kernels)}: too large for images of {self.size} x {self.size} pixels, "
                "each convolution is followed by 2x2 pooling"
            )

    @property
    def features(self) -> int:
        """Inputs of the first linear layer."""
        side = self.size
        for kernel in self.kernels:
            side = (side - kernel + 1) // 2
        return max(side, 0) ** 2 * self.channels[-1]

    def module(self, seed: int, *, start: int = 0) -> nn.Sequential:
        """The network, Kaiming uniform with biases 0; arguments as in `Mlp.initial`."""
        layers: list[nn.Module] = []
        act = activation_of(self.activation)
        for inputs, outputs, kernel in zip((self.inputs, *self.channels), self.channels, self.kernels, strict=False):
            layers += [nn.Conv2d(inputs, outputs, kernel), act.module(), nn.MaxPool2d(2)]
        layers.append(nn.Flatten())
        for inputs, outputs in zip((self.features, *self.hidden), self.hidden, strict=False):
            layers += [nn.Linear(inputs, outputs), act.module()]
        layers.append(nn.Linear(self.hidden[-1], self.outputs))
        network = nn.Sequential(*layers)
        kaiming_uniform_(network, self.activation, torch_draws(seed, Draw.WEIGHTS, start))
        return network


Network = Mlp | MaxPoolNet | ResNet

NETWORKS: dict[str, type[Network]] = {"mlp": Mlp, "conv": MaxPoolNet, "resnet": ResNet}
"""Networks by kind."""


def make_network(settings: Mapping[str, Any], shape: tuple[int, ...], outputs: int) -> Network:
    """The network that a configuration asks for.

    Args:
        settings: `kind` of `NETWORKS`, and what that kind takes: `hidden`, `activation`, `norm`, `dropout`, `channels`.
        shape: of one input, without the batch: `(features,)` or `(colours, side, side)`.
        outputs: width of the output.

    Raises:
        ValueError: an unknown kind or setting, a value of another type or out of range, or a convolution over inputs
            that are no images.
    """
    chosen: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()
    }
    for key in ("activation", "norm"):
        if isinstance(chosen.get(key), str):
            chosen[key] = current(f"network.{key}", chosen[key])
    kind = chosen.pop("kind", "mlp")
    if kind not in NETWORKS:
        raise ValueError(f"network.kind={kind} is unknown{nearest(kind, NETWORKS)}")
    given = ("inputs", "outputs", "size")
    check_settings("network", chosen, NETWORKS[kind], given=given, to=f"kind={kind}")
    if kind == "mlp":
        return Mlp(inputs=math.prod(shape), outputs=outputs, **chosen)
    if len(shape) != 3:
        raise ValueError(f"network.kind={kind} needs images, this stream gives inputs of shape {shape}: use kind=mlp")
    make = MaxPoolNet if kind == "conv" else ResNet
    return make(size=shape[-1], inputs=shape[0], outputs=outputs, **chosen)
