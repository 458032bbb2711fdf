"""How a unit is born: the distributions that its in-weights are drawn from, and the table of all births."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .birth import Birth as Birth
from .birth import Draw as Draw
from .births_from_data import data_scaled, moment_matched, orthogonal_direction
from .finding import axes_of


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
    "moment_matched": moment_matched,
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


NEEDS_INPUTS = (data_scaled, moment_matched)
"""Births that look at recent inputs of the layer; a function of yours asks for them by `f.needs_inputs = True`."""


def obstacle(birth: object, module: nn.Module) -> str | None:
    """Why a birth cannot serve a layer; None: it can."""
    name = next((name for name, known in BIRTHS.items() if known is birth), "")
    if birth not in NEEDS_INPUTS:
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
    return f"birth {name!r} works for Linear and ungrouped conv layers, not for {kind}: give another one in layers="


def needs_inputs(birth: object) -> bool:
    """Whether a birth wants to see recent inputs."""
    return birth in NEEDS_INPUTS or bool(getattr(birth, "needs_inputs", False))
