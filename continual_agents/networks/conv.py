"""The network of agents that see pictures: convolutions, then a fully connected network."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from continual_agents.settings import written

from .activations import activation_of
from .mlp import initialised, mlp
from .norms import norm_of

SMALL = ((16, 3, 1),)
"""Rows of [channels, kernel, stride] for MinAtar's 10 x 10 cells (Young and Tian 2019)."""

LARGE = ((32, 8, 4), (64, 4, 2), (64, 3, 1))
"""The same for Atari's 84 x 84 pixels (Mnih et al. 2015)."""


class Pixels(nn.Module):
    """Pictures as a network computes with them: floats from 0 to 1, channels first.

    They stay whole numbers until here, in batches and in the replay buffer: a quarter of the memory.

    Args:
        shape: of one picture: height, width, channels, or channels first.
        highest: its largest value: 255 of a photograph, 1 of a grid that says what is where.
    """

    def __init__(self, shape: Sequence[int], highest: int):
        super().__init__()
        self.shape, self.highest = tuple(map(int, shape)), int(highest)
        self.channels_first = self.shape[0] < self.shape[2]  # a stack of grey frames, as gymnasium gives it

    @property
    def seen(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        channels, height, width = self.shape if self.channels_first else (self.shape[2], *self.shape[:2])
        return channels, height, width

    def forward(self, picture: Tensor) -> Tensor:
        """`[batch, *shape]` to float32 `[batch, channels, height, width]`."""
        scaled = picture.float() * (1.0 / self.highest)
        return scaled if self.channels_first else scaled.permute(0, 3, 1, 2)

    def get_extra_state(self) -> Tensor:
        """What tells the network's shape to who has only its weights."""
        return torch.tensor([*self.shape, self.highest])

    def set_extra_state(self, state: Tensor) -> None:
        """Checked only.

        Raises:
            ValueError: of other pictures.
        """
        if state.tolist() != [*self.shape, self.highest]:
            raise ValueError(f"these weights are of pictures {state.tolist()}, not {[*self.shape, self.highest]}")


class ConvNet(nn.Sequential):
    """`Pixels -> Conv2d -> norm -> activation, repeated -> Flatten -> mlp`, over any number of leading dims.

    Args:
        shape, highest: as of `Pixels`; channels are the last dim unless the first one is smaller.
        outputs: size of the output.
        conv: rows of [channels, kernel, stride]; None: `LARGE` from 36 pixels a side on, else `SMALL`.
        hidden, activation, norm, dropout, init, generator: as of `mlp`; dropout is of the fully connected part only.

    Raises:
        ValueError: convolutions that do not fit into the pictures, or an activation or norm that has no form for them.
    """

    def __init__(
        self,
        shape: Sequence[int],
        highest: int,
        outputs: int,
        *,
        conv: Sequence[Sequence[int]] | None = None,
        hidden: Sequence[int] = (128,),
        activation: str = "relu",
        norm: str | None = None,
        init: str = "lecun_uniform",
        generator: torch.Generator,
        **rest: Any,
    ):
        pixels, act, normalise = Pixels(shape, highest), activation_of(activation), norm_of(norm)
        if act.outputs != 1:
            raise ValueError(f"network.activation={activation} is for fully connected networks: choose relu")
        if normalise is not None and normalise.channels is None:
            raise ValueError(f"network.norm={norm} is for fully connected networks: choose layer_norm or null")
        conv = conv_of(conv, pixels.seen)
        features = features_of(conv, pixels.seen)
        layers: list[nn.Module] = [pixels]
        for (channels, inputs, kernel, _), (*_, stride) in zip(kernels_of(conv, pixels.seen), conv, strict=True):
            # skip_init: its own initialisation would draw from the global generator
            layer: Any = nn.utils.skip_init(nn.Conv2d, inputs, channels, kernel, stride)
            layers.append(initialised(layer, init, generator))
            if normalise is not None and normalise.channels is not None:
                layers.append(normalise.channels(channels))
            layers.append(act.module())
        settings = {"activation": activation, "norm": norm, "init": init, **rest}
        head = mlp(features, outputs, hidden=hidden, generator=generator, **settings)
        super().__init__(*layers, nn.Flatten(), *head)
        self.shape, self.outputs = pixels.shape, outputs

    def __call__(self, picture: Tensor) -> Tensor:
        """`[..., *shape]` to `[..., outputs]`."""
        # around `forward`, not in it: surgery follows `forward` without shapes, and cannot follow a reshape so
        output: Tensor = super().__call__(picture.reshape(-1, *self.shape))
        return output.reshape(*picture.shape[:-3], self.outputs)


def conv_of(conv: Sequence[Sequence[int]] | None, seen: Sequence[int]) -> list[tuple[int, int, int]]:
    """The convolutions for pictures `(channels, height, width)`.

    Raises:
        ValueError: rows of another kind.
    """
    rows = (LARGE if min(seen[1:]) >= 36 else SMALL) if conv is None else conv
    if not rows or not all(len(row) == 3 and min(row) >= 1 for row in rows):
        raise ValueError(
            f"network.conv={written(rows)}: rows of [channels, kernel, stride], each at least 1, as [[16, 3, 1]]"
        )
    return [(row[0], row[1], row[2]) for row in rows]


def kernels_of(conv: Sequence[Sequence[int]], seen: Sequence[int]) -> list[tuple[int, int, int, int]]:
    """Shapes of the convolutions' weights, for pictures `(channels, height, width)`."""
    read = [seen[0], *(row[0] for row in conv)]
    return [(channels, before, kernel, kernel) for before, (channels, kernel, _) in zip(read, conv, strict=False)]


def features_of(conv: Sequence[Sequence[int]], seen: Sequence[int]) -> int:
    """How many numbers are left of a picture `(channels, height, width)` behind the convolutions.

    Raises:
        ValueError: nothing is.
    """
    sides = list(seen[1:])
    for _, kernel, stride in conv:
        sides = [(side - kernel) // stride + 1 for side in sides]
    if min(sides) < 1:
        raise ValueError(f"network.conv={written(conv)} is too much for pictures of {seen[1]} x {seen[2]}")
    return conv[-1][0] * math.prod(sides)
