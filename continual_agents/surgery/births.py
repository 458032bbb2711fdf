"""How a unit is born: the distributions its in-weights are drawn from, and births that look at the layer first."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .finding import axes_of


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


def orthogonal_direction(birth: Birth) -> Tensor:
    """A default draw, turned away from the directions that the layer's present units cover, its length kept.

    With W the surviving in-weights [n, d], `r = (W'W + e I)^-1 z * e`, e a thousandth of W'W's mean eigenvalue: for
    n < d the part of z orthogonal to every survivor (to one part in a thousand), for n >= d the directions that they
    cover least. Costs a solve of size min(n, d)^3 per replacement.
    """
    draw = default(birth).flatten(1)
    stays = torch.ones(len(birth.weight), dtype=torch.bool, device=birth.weight.device)
    stays[birth.index] = False
    present = birth.weight.detach().flatten(1)[stays].to(draw.device, draw.dtype)
    n, d = present.shape
    if n == 0:
        return draw.view(birth.shape)
    small = 1e-3 * present.square().sum() / d + torch.finfo(draw.dtype).tiny
    if n < d:
        gram = present @ present.T + small * torch.eye(n, dtype=draw.dtype, device=draw.device)
        turned = draw - torch.linalg.solve(gram, present @ draw.T).T @ present
    else:
        gram = present.T @ present + small * torch.eye(d, dtype=draw.dtype, device=draw.device)
        turned = torch.linalg.solve(gram, draw.T).T
    length = draw.norm(dim=1, keepdim=True) / turned.norm(dim=1, keepdim=True).clamp_min(torch.finfo(draw.dtype).tiny)
    return (turned * length).view(birth.shape)


def data_scaled(birth: Birth) -> tuple[Tensor, Tensor]:
    """A default draw whose pre-activation on recent inputs has the layer's typical mean and spread.

    Weights are scaled so that the pre-activation's standard deviation is the median of the surviving units', and the
    bias set so that its mean is the median of theirs: not born dead, not born shouting. Linear and conv layers.
    """
    draw = default(birth)
    if birth.inputs is None or birth.weight.ndim < 2:
        raise ValueError("birth 'data_scaled' works for Linear and conv layers only; give another one in layers={...}")
    stays = torch.ones(len(birth.weight), dtype=torch.bool, device=birth.weight.device)
    stays[birth.index] = False
    fresh = draw.to(birth.weight.device, birth.weight.dtype)
    before = _preactivation(birth, birth.weight.detach()[stays])
    if birth.present_bias is not None:
        shift = birth.present_bias.detach()[stays]
    else:
        shift = torch.zeros(len(before.T), dtype=before.dtype, device=before.device)
    now = _preactivation(birth, fresh)
    if before.shape[1] == 0 or len(before) < 2:
        return fresh, torch.zeros(len(fresh), dtype=fresh.dtype, device=fresh.device)
    scale = before.std(0).median() / now.std(0).clamp_min(torch.finfo(now.dtype).tiny)
    scale = torch.where(torch.isfinite(scale) & (scale > 0), scale, torch.ones_like(scale))
    bias = (before.mean(0) + shift).median() - scale * now.mean(0)
    return fresh * scale.view(-1, *[1] * (fresh.ndim - 1)), bias


def _preactivation(birth: Birth, rows: Tensor) -> Tensor:
    """What units with these in-weights would feel, without bias: [samples, rows]."""
    inputs = birth.inputs
    assert inputs is not None
    if rows.ndim == 2:
        return inputs.reshape(-1, inputs.shape[-1]).to(rows.dtype) @ rows.T
    conv = (F.conv1d, F.conv2d, F.conv3d)[rows.ndim - 3]
    made = conv(inputs.to(rows.dtype), rows, None, birth.stride, birth.padding, birth.dilation)  # type: ignore[operator]
    return made.movedim(1, -1).reshape(-1, len(rows))


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
    "orthogonal_direction": orthogonal_direction,
    "data_scaled": data_scaled,
}


def birth_of(choice: str | Draw) -> Draw:
    """The birth meant by a name or a function `Birth -> weights of birth.shape`
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


NEEDS_INPUTS = (data_scaled,)
"""Births that look at recent inputs of the layer; a function of yours asks for them by `f.needs_inputs = True`."""


def obstacle(birth: object, module: nn.Module) -> str | None:
    """Why a birth cannot serve a layer; None: it can."""
    if birth is not data_scaled:
        return None
    convolution = isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)) and module.groups == 1
    axes = axes_of(module)
    plain = (
        axes is not None
        and not axes.recurrent
        and all(tensor.ndim == 2 for name in axes.inp if (tensor := getattr(module, name, None)) is not None)
    )
    if convolution or plain:
        return None
    kind = type(module).__name__
    return (
        f"birth 'data_scaled' works for Linear and ungrouped conv layers, not for {kind}: give another one in layers="
    )


def needs_inputs(birth: object) -> bool:
    """Whether a birth wants to see recent inputs."""
    return birth in NEEDS_INPUTS or bool(getattr(birth, "needs_inputs", False))
