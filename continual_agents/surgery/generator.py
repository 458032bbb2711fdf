"""How a unit is born: the distribution its in-weights are drawn from."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

SEED = 1_812_433_253
"""Seed of the private generator: not one that a network is likely to have been initialised with, or the newborns
would be the first layer's initial units again."""


def private() -> torch.Generator:
    """The generator of whoever brings none."""
    return torch.Generator().manual_seed(SEED)


@dataclass(frozen=True)
class Birth:
    """What is known about the weights to be drawn.

    Attributes:
        shape: [k, ...]: k rows of an in-weight tensor, unit dim first (k = units x gates).
        fan_in: inputs per unit, kernel included.
        fan_out: units times kernel.
        bound: half width of PyTorch's own uniform distribution for this layer.
        weight: the layer's present in-weights, unit dim first [width, ...]; not to be changed.
        index: rows of `weight` that are being replaced, int64 [k].
        generator: source of every draw; draws are made on its device.
        inputs: some recent inputs of the layer, as the layer got them, if the generator asks for them; else None.
        present_bias: the layer's present bias [width], or None.
        stride, padding: of a conv layer.
    """

    shape: tuple[int, ...]
    fan_in: int
    fan_out: int
    bound: float
    weight: Tensor
    index: Tensor
    generator: torch.Generator
    inputs: Tensor | None = None
    present_bias: Tensor | None = None
    stride: tuple[int, ...] = ()
    padding: Any = 0

    def uniform(self, bound: float) -> Tensor:
        """Uniform in (-bound, bound)."""
        return self._empty().uniform_(-bound, bound, generator=self.generator)

    def normal(self, std: float) -> Tensor:
        """Normal with mean 0."""
        return self._empty().normal_(0.0, std, generator=self.generator)

    def _empty(self) -> Tensor:
        return torch.empty(self.shape, dtype=self.weight.dtype, device=self.generator.device)


def default(birth: Birth) -> Tensor:
    """PyTorch's own: uniform, 1 / sqrt(fan_in) wide to each side (1 / sqrt(hidden) in recurrent layers)."""
    return birth.uniform(birth.bound)


def kaiming_uniform(birth: Birth) -> Tensor:
    """He et al. 2015, for ReLU: uniform with variance 2 / fan_in."""
    return birth.uniform(math.sqrt(6 / birth.fan_in))


def kaiming_normal(birth: Birth) -> Tensor:
    """He et al. 2015, for ReLU: normal with variance 2 / fan_in."""
    return birth.normal(math.sqrt(2 / birth.fan_in))


def lecun_uniform(birth: Birth) -> Tensor:
    """LeCun et al. 1998: uniform with variance 1 / fan_in."""
    return birth.uniform(math.sqrt(3 / birth.fan_in))


def lecun_normal(birth: Birth) -> Tensor:
    """LeCun et al. 1998: normal with variance 1 / fan_in."""
    return birth.normal(math.sqrt(1 / birth.fan_in))


def xavier_uniform(birth: Birth) -> Tensor:
    """Glorot and Bengio 2010: uniform with variance 2 / (fan_in + fan_out)."""
    return birth.uniform(math.sqrt(6 / (birth.fan_in + birth.fan_out)))


def xavier_normal(birth: Birth) -> Tensor:
    """Glorot and Bengio 2010: normal with variance 2 / (fan_in + fan_out)."""
    return birth.normal(math.sqrt(2 / (birth.fan_in + birth.fan_out)))


def truncated_normal(birth: Birth) -> Tensor:
    """Normal with variance 1 / fan_in, cut at two standard deviations (and widened, so that the variance holds)."""
    std = math.sqrt(1 / birth.fan_in) / 0.87962566103423978
    draw = birth._empty()
    return torch.nn.init.trunc_normal_(draw, 0.0, std, -2 * std, 2 * std, generator=birth.generator)


def orthogonal(birth: Birth) -> Tensor:
    """Rows of a random orthogonal matrix (Saxe et al. 2014): the newborns are orthonormal among each other."""
    flat = birth.normal(1.0).flatten(1)
    if flat.shape[0] > flat.shape[1]:
        return _rows(flat).reshape(birth.shape)
    q, r = torch.linalg.qr(flat.T)
    return (q * r.diagonal().sign()).T.reshape(birth.shape).contiguous()


def _rows(flat: Tensor) -> Tensor:
    return flat / flat.norm(dim=1, keepdim=True)


Draw = Callable[[Birth], "Tensor | tuple[Tensor, Tensor]"]

BIRTHS: dict[str, Draw] = {
    "default": default,
    "kaiming_uniform": kaiming_uniform,
    "kaiming_normal": kaiming_normal,
    "lecun_uniform": lecun_uniform,
    "lecun_normal": lecun_normal,
    "xavier_uniform": xavier_uniform,
    "xavier_normal": xavier_normal,
    "truncated_normal": truncated_normal,
    "orthogonal": orthogonal,
}


def birth_of(choice: str | Draw) -> Draw:
    """The generator meant by a name or a function `Birth -> Tensor of birth.shape`
    (or a pair of it and the biases).

    Raises:
        ValueError: an unknown name, listing the known ones.
        TypeError: neither a name nor callable.
    """
    if isinstance(choice, str):
        if choice not in BIRTHS:
            raise ValueError(f"unknown birth {choice!r}: known are {', '.join(BIRTHS)}, or pass a function")
        return BIRTHS[choice]
    if callable(choice):
        return choice
    raise TypeError(f"birth must be a name or a function of surgery.Birth, got {choice!r}")
