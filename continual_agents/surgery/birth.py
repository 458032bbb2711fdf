"""What a birth is told about the weights that it draws."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass
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
        inputs: some recent inputs of the layer, as the layer got them, if the birth asks for them; else None.
        present_bias: the layer's present bias [width], or None.
        stride, padding, dilation: of a conv layer.
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
    dilation: tuple[int, ...] | int = 1

    def uniform(self, bound: float) -> Tensor:
        """Uniform in (-bound, bound)."""
        return self._empty().uniform_(-bound, bound, generator=self.generator)

    def normal(self, std: float) -> Tensor:
        """Normal with mean 0."""
        return self._empty().normal_(0.0, std, generator=self.generator)

    def _empty(self) -> Tensor:
        return torch.empty(self.shape, dtype=self.weight.dtype, device=self.generator.device)


Draw = Callable[[Birth], Tensor | tuple[Tensor, Tensor]]
"""What a birth is: Birth -> weights of `birth.shape`, or a pair of them and the biases."""
