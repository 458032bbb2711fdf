"""Residual networks for small images: ResNet-18 in the form that CIFAR is trained with, and smaller ones."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from continual_agents.networks import activation_of
from continual_agents.settings import check_counts, nearest, written

from .draws import Draw, torch_draws
from .kaiming import kaiming_uniform_

NORMS: dict[str, Callable[[int], nn.Module]] = {
    "batch_norm": nn.BatchNorm2d,
    "layer_norm": lambda channels: nn.GroupNorm(1, channels),  # over channels and positions of one image
}
"""Normalisations before an activation; `layer_norm` is Ba et al.'s, one mean and variance per image."""


class Block(nn.Module):
    """Two 3x3 convolutions around a shortcut (He et al. 2016, the basic block)."""

    def __init__(
        self, inputs: int, outputs: int, stride: int, norm: Callable[[int], nn.Module], act: Callable[[], nn.Module]
    ):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = norm(outputs)
        self.act1 = act()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = norm(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), norm(outputs))
        self.act2 = act()

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, inputs, side, side]` to `[batch, outputs, side / stride, side / stride]`."""
        h = self.act1(self.norm1(self.conv1(x)))
        return self.act2(self.norm2(self.conv2(h)) + self.shortcut(x))


class ResidualNet(nn.Module):
    """Stem, stages of blocks, mean over positions, linear head.

    Args:
        inputs: colours.
        outputs: classes.
        channels: of each stage; every stage but the first halves the side.
        blocks: of each stage.
        norm, act: constructors.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        channels: tuple[int, ...],
        blocks: int,
        norm: Callable[[int], nn.Module],
        act: Callable[[], nn.Module],
    ):
        super().__init__()
        self.conv = nn.Conv2d(inputs, channels[0], 3, 1, 1, bias=False)
        self.norm = norm(channels[0])
        self.act = act()
        made: list[nn.Module] = []
        width = channels[0]
        for stage, wider in enumerate(channels):
            for number in range(blocks):
                made.append(Block(width, wider, 2 if stage and not number else 1, norm, act))
                width = wider
        self.blocks = nn.Sequential(*made)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Images `[batch, colours, side, side]` to outputs `[batch, outputs]`."""
        h = self.blocks(self.act(self.norm(self.conv(x))))
        return self.head(torch.flatten(self.pool(h), 1))

    def looked_at(self) -> dict[str, nn.Module]:
        """The activations by name, first to last."""
        return {f"conv_{n}": m for n, m in self.named_modules() if n.rpartition(".")[2] in ("act", "act1", "act2")}

    def look(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Outputs, and every activation's `[batch * positions, channels]` by name."""
        layers: dict[str, Tensor] = {}

        def keep(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
            return lambda _, inputs, output: layers.update({name: output.movedim(1, -1).flatten(0, 2)})

        handles = [module.register_forward_hook(keep(name)) for name, module in self.looked_at().items()]
        try:
            return self(x), layers
        finally:
            for handle in handles:
                handle.remove()


@dataclass(frozen=True, kw_only=True)
class ResNet:
    """Residual network; as it stands ResNet-18 for 32x32 images (Dohare et al. 2024, class-incremental CIFAR-100).

    Args:
        size: side of the square images, pixels.
        inputs: colours.
        outputs: classes.
        channels: of the stages; every stage but the first halves the side.
        blocks: of each stage, two convolutions each.
        activation: name in `continual_agents.networks.ACTIVATIONS` (none that doubles its inputs).
        norm: name in `NORMS`.

    Raises:
        ValueError: a number below 1, or a name that does not fit.
    """

    size: int = 32
    inputs: int = 3
    outputs: int = 100
    channels: tuple[int, ...] = (64, 128, 256, 512)
    blocks: int = 2
    activation: str = "relu"
    norm: str = "batch_norm"

    def __post_init__(self) -> None:
        if activation_of(self.activation).outputs != 1:
            raise ValueError(f"network.activation={self.activation} is for fully connected networks: choose relu")
        if self.norm not in NORMS:
            raise ValueError(f"network.norm={self.norm} is unknown to kind=resnet{nearest(self.norm, NORMS)}")
        if not self.channels or min(self.channels) < 1:
            raise ValueError(f"network.channels={written(self.channels)}: at least one stage, each of at least 1")
        check_counts("network", blocks=self.blocks)

    def module(self, seed: int, *, start: int = 0) -> ResidualNet:
        """The network, Kaiming uniform with biases 0; arguments as in `Mlp.initial`."""
        act = activation_of(self.activation)
        with torch.random.fork_rng(devices=[]):  # torch's own initialisation draws, and is written over
            network = ResidualNet(
                self.inputs, self.outputs, self.channels, self.blocks, NORMS[self.norm], act.module
            )  # fmt: skip
        kaiming_uniform_(network, self.activation, torch_draws(seed, Draw.WEIGHTS, start))
        return network
