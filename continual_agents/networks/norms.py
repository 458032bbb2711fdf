"""Normalisation that works at batch 1: layer norm, and online normalisation with its backward pass written out.

Online normalisation (Chiley et al., NeurIPS 2019) uses running statistics in both directions, so that a batch of one
is enough. Forward, per feature x with running mean m and variance v (decay a_f):

    y = (x - m) / sqrt(v + eps);  then  v <- a_f v + a_f (1 - a_f) (x - m)^2,  m <- a_f m + (1 - a_f) x

Backward, for the gradient g of y, with two running errors e_y and e_1 (decay a_b):

    g <- g - (1 - a_b) e_y y;  e_y <- e_y + mean(g y);  g <- g / sqrt(v + eps) - (1 - a_b) e_1;  e_1 <- e_1 + mean(g)

Layer scaling follows (their section 3.5): `s = y / sqrt(mean over features of y^2 + eps)`, then gain and offset.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from continual_agents import surgery
from continual_agents.settings import nearest

from .spellings import current

EPSILON = 1e-5
FORWARD_DECAY = 0.999
BACKWARD_DECAY = 0.99


class NormOfRuns:
    """One normalisation layer of every run of a stack: gain and offset `[runs, 2, width]`, trained like weights.

    Args:
        runs: runs of the stack.
        width: features.
        device, dtype: of its tensors.
    """

    def __init__(
        self, runs: int, width: int, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ):
        self.affine = torch.zeros(runs, 2, width, device=device, dtype=dtype)
        self.gain, self.offset = self.affine[:, :1], self.affine[:, 1:]
        self.reset(slice(None))

    def reset(self, runs: Any) -> None:
        """Start these runs anew."""
        self.gain[runs] = 1.0
        self.offset[runs] = 0.0

    def forward(self, x: Tensor, *, training: bool) -> tuple[Tensor, tuple[Tensor, ...]]:
        """`x [runs, batch, width]` to the output and what `backward` needs."""
        raise NotImplementedError

    def backward(self, g: Tensor, cache: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """Gradients of the input `[runs, batch, width]` and of gain and offset `[runs, 2, width]`."""
        raise NotImplementedError

    def state(self) -> dict[str, Tensor]:
        """Tensors besides gain and offset, by name."""
        return {}

    def renew(self, runs: Tensor, units: Tensor) -> None:
        """Reset the entries of newborn units: `runs [n, 1]`, `units [n, k]`."""
        self.affine[runs, 0, units] = 1.0
        self.affine[runs, 1, units] = 0.0


class LayerNormOfRuns(NormOfRuns):
    """Layer normalisation (Ba et al. 2016): each example by its own mean and variance over the features."""

    def forward(self, x: Tensor, *, training: bool) -> tuple[Tensor, tuple[Tensor, ...]]:
        """As the base."""
        centred = x - x.mean(-1, keepdim=True)
        scale = (centred.square().mean(-1, keepdim=True) + EPSILON).rsqrt()
        y = centred * scale
        return torch.addcmul(self.offset, y, self.gain), (y, scale)

    def backward(self, g: Tensor, cache: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """As the base."""
        y, scale = cache
        affine = torch.stack([(g * y).sum(1), g.sum(1)], 1)
        g = g * self.gain
        return scale * (g - g.mean(-1, keepdim=True) - y * (g * y).mean(-1, keepdim=True)), affine


class OnlineNormOfRuns(NormOfRuns):
    """Online normalisation; the formulas are at the top of this file. Statistics of a batch are its mean's."""

    def __init__(
        self, runs: int, width: int, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ):
        shape = (runs, 1, width)
        self.mean, self.error_y, self.error_1 = (torch.zeros(shape, device=device, dtype=dtype) for _ in range(3))
        self.variance = torch.ones(shape, device=device, dtype=dtype)
        super().__init__(runs, width, device=device, dtype=dtype)

    def reset(self, runs: Any) -> None:
        """As the base, running statistics too."""
        super().reset(runs)
        for tensor in (self.mean, self.error_y, self.error_1):
            tensor[runs] = 0.0
        self.variance[runs] = 1.0

    def forward(self, x: Tensor, *, training: bool) -> tuple[Tensor, tuple[Tensor, ...]]:
        """As the base; running statistics move in training only."""
        scale = (self.variance + EPSILON).rsqrt()
        centred = x - self.mean
        y = centred * scale
        if training:
            a = FORWARD_DECAY
            self.variance.mul_(a).add_(centred.square().mean(1, keepdim=True), alpha=a * (1 - a))
            self.mean.lerp_(x.mean(1, keepdim=True), 1 - a)
        size = (y.square().mean(-1, keepdim=True) + EPSILON).rsqrt()
        scaled = y * size
        return torch.addcmul(self.offset, scaled, self.gain), (y, scale, scaled, size)

    def backward(self, g: Tensor, cache: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """As the base; the running errors move with every call."""
        y, scale, scaled, size = cache
        affine = torch.stack([(g * scaled).sum(1), g.sum(1)], 1)
        g = g * self.gain
        g = size * (g - scaled * (g * scaled).mean(-1, keepdim=True))
        g = g - (1 - BACKWARD_DECAY) * self.error_y * y
        self.error_y.add_((g * y).mean(1, keepdim=True))
        g = g * scale - (1 - BACKWARD_DECAY) * self.error_1
        self.error_1.add_(g.mean(1, keepdim=True))
        return g, affine

    def state(self) -> dict[str, Tensor]:
        """Running statistics and errors."""
        return {"mean": self.mean, "variance": self.variance, "error_y": self.error_y, "error_1": self.error_1}

    def renew(self, runs: Tensor, units: Tensor) -> None:
        """As the base, running statistics too."""
        super().renew(runs, units)
        for tensor in (self.mean, self.error_y, self.error_1):
            tensor[runs, 0, units] = 0.0
        self.variance[runs, 0, units] = 1.0


class _Online(torch.autograd.Function):
    """Lets autograd use the two running errors of an `OnlineNorm`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor, offset: Tensor, layer: OnlineNorm) -> Tensor:
        """One run of the stacked layer."""
        output, ctx.cache = layer.stacked.forward(x[None], training=True)
        ctx.layer = layer
        return output[0]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        """Gradients of input, gain and offset."""
        g, affine = ctx.layer.stacked.backward(gradients[0][None], ctx.cache)
        return g[0], affine[0, 0], affine[0, 1], None


class OnlineNorm(nn.Module):
    """Online normalisation as an ordinary module."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))
        for name in ("mean", "error_y", "error_1"):
            self.register_buffer(name, torch.zeros(width))
        self.register_buffer("variance", torch.ones(width))
        self.stacked = OnlineNormOfRuns(1, width)

    def forward(self, x: Tensor) -> Tensor:
        """`[..., width]` to the same shape; statistics move in passes that build a graph, the gradient steps."""
        # linked anew each time: `.to(device)` and a loaded state put other tensors in their place
        self.stacked.gain, self.stacked.offset = self.weight.detach().view(1, 1, -1), self.bias.detach().view(1, 1, -1)
        for name in self.stacked.state():
            setattr(self.stacked, name, getattr(self, name).view(1, 1, -1))
        flat = x.reshape(-1, x.shape[-1])
        if not (self.training and torch.is_grad_enabled()):  # also inside vmap, which knows no autograd.Function
            return self.stacked.forward(flat[None], training=False)[0].view(x.shape)
        output: Tensor = _Online.apply(flat, self.weight, self.bias, self)
        return output.view(x.shape)


surgery.register_norm(
    OnlineNorm, {"weight": 1.0, "bias": 0.0, "mean": 0.0, "variance": 1.0, "error_y": 0.0, "error_1": 0.0}
)


@dataclass(frozen=True)
class Norm:
    """One row.

    Attributes:
        module: the layer for an ordinary network, from its width.
        runs: the same for many runs at once, with its backward pass written out.
        channels: the same behind a convolution, from its channels; None: there is none.
    """

    module: Callable[[int], nn.Module]
    runs: type[NormOfRuns]
    channels: Callable[[int], nn.Module] | None = None


NORMS: dict[str, Norm] = {
    "layer_norm": Norm(nn.LayerNorm, LayerNormOfRuns, functools.partial(nn.GroupNorm, 1)),
    "online_norm": Norm(OnlineNorm, OnlineNormOfRuns),
}
"""Norms by name."""


def norm_of(name: str | None) -> Norm | None:
    """The norm called `name`; None if there is to be none.

    Raises:
        ValueError: unknown, with the nearest known one.
    """
    if name is None:
        return None
    name = current("network.norm", name)
    if name not in NORMS:
        raise ValueError(f"network.norm={name} is unknown{nearest(name, [*NORMS, 'null'])}")
    return NORMS[name]
