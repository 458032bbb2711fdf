"""Births that look at the layer first: at its present weights, or at what its units feel on recent inputs."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from .birth import Birth


def orthogonal_direction(birth: Birth) -> Tensor:
    """A default draw, turned away from the directions that the layer's present units cover, its length kept.

    With W the surviving in-weights [n, d], `r = (W'W + e I)^-1 z * e`, e a thousandth of W'W's mean eigenvalue: for
    n < d the part of z orthogonal to every survivor (to one part in a thousand), for n >= d the directions that they
    cover least. Costs a solve of size min(n, d)^3 per replacement.
    """
    draw = birth.uniform(birth.bound).flatten(1)
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
    stays = torch.ones(len(birth.weight), dtype=torch.bool, device=birth.weight.device)
    stays[birth.index] = False
    felt = _felt(birth, "data_scaled", stays.nonzero().flatten())
    if felt.shape[1] == 0 or len(felt) < 2:
        return _unscaled(birth)
    return _moved_to(birth, felt.mean(0).median(), felt.std(0).median())


def moment_matched(birth: Birth) -> tuple[Tensor, Tensor]:
    """A default draw whose pre-activation on recent inputs has the mean and spread of the unit that it replaces.

    For layers before a layer, group or RMS norm: its group's mean and variance stay about what they were, so that the
    other units' outputs and the readers' means move less. The newborn of a silent unit is about as silent. Linear and
    conv layers.
    """
    felt = _felt(birth, "moment_matched", birth.index)
    if len(felt) < 2:
        return _unscaled(birth)
    return _moved_to(birth, felt.mean(0), felt.std(0))


def _unscaled(birth: Birth) -> tuple[Tensor, Tensor]:
    draw = birth.uniform(birth.bound)
    return draw, torch.zeros(len(draw), dtype=draw.dtype, device=draw.device)


def _felt(birth: Birth, name: str, index: Tensor) -> Tensor:
    """Present pre-activations of these units on recent inputs [samples, units].

    Raises:
        ValueError: there are no inputs, or the layer is of another kind.
    """
    if birth.inputs is None or birth.weight.ndim < 2:
        raise ValueError(f"birth {name!r} works for Linear and conv layers only; give another one in layers={{...}}")
    felt = _preactivation(birth, birth.weight.detach().index_select(0, index))
    return felt if birth.present_bias is None else felt + birth.present_bias.detach().index_select(0, index)


def _moved_to(birth: Birth, mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
    """A default draw, scaled and shifted until it feels this mean and this standard deviation."""
    fresh = birth.uniform(birth.bound).to(birth.weight.device, birth.weight.dtype)
    now = _preactivation(birth, fresh)
    scale = std / now.std(0).clamp_min(torch.finfo(now.dtype).tiny)
    scale = torch.where(torch.isfinite(scale) & (scale > 0), scale, torch.ones_like(scale))
    return fresh * scale.view(-1, *[1] * (fresh.ndim - 1)), mean - scale * now.mean(0)


def _preactivation(birth: Birth, rows: Tensor) -> Tensor:
    """What units with these in-weights would feel, without bias: [samples, rows]."""
    inputs = birth.inputs
    assert inputs is not None
    if rows.ndim == 2:
        return inputs.reshape(-1, inputs.shape[-1]).to(rows.dtype) @ rows.T
    conv = (F.conv1d, F.conv2d, F.conv3d)[rows.ndim - 3]
    made = conv(inputs.to(rows.dtype), rows, None, birth.stride, birth.padding, birth.dilation)  # type: ignore[operator]
    return made.movedim(1, -1).reshape(-1, len(rows))
