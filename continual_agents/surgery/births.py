"""Candidates for a better generator: birth where the layer is not yet, and birth at the layer's own scale."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from .generator import BIRTHS, Birth, default


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
    made = conv(inputs.to(rows.dtype), rows, None, birth.stride, birth.padding)  # type: ignore[operator]
    return made.movedim(1, -1).reshape(-1, len(rows))


BIRTHS["orthogonal_direction"] = orthogonal_direction
BIRTHS["data_scaled"] = data_scaled

NEEDS_INPUTS = (data_scaled,)
"""Generators that look at recent inputs of the layer; a function of yours asks for them by `f.needs_inputs = True`."""


def needs_inputs(birth: object) -> bool:
    """Whether a generator wants to see recent inputs."""
    return birth in NEEDS_INPUTS or bool(getattr(birth, "needs_inputs", False))
