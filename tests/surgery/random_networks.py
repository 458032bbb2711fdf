"""Networks put together at random, of everything that surgery says it can follow."""

from __future__ import annotations

import random

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ACTIVATIONS = (nn.ReLU, nn.Tanh, nn.GELU, nn.SiLU, nn.LeakyReLU, nn.Identity)


class Step(nn.Module):
    """One step of a trunk: `width` and `inputs` are channels, of vectors, images or sequences."""

    def __init__(self, rng: random.Random, inputs: int, image: bool) -> None:
        super().__init__()
        kinds = ["plain", "residual", "concatenate", "gated", "gain", "squeeze"]
        self.kind = rng.choice([*kinds, "depthwise", "grouped", "transposed"] if image else kinds)
        same = self.kind in ("residual", "depthwise")
        width = inputs if same else rng.randint(3, 7)
        if self.kind == "grouped":
            width = 2 * rng.randint(2, 3)
        bias = rng.random() < 0.8
        self.image, self.wide = image, width
        self.a = self.layer(rng, inputs, width, bias)
        norms = [nn.BatchNorm2d, nn.InstanceNorm2d] if image else [nn.BatchNorm1d, nn.LayerNorm, nn.RMSNorm]
        self.norm: nn.Module = rng.choice([nn.Identity, *norms, _group_norm])(width)
        self.act = rng.choice(ACTIVATIONS)()
        self.drop = nn.Dropout(rng.choice([0.0, 0.1]))
        if self.kind == "residual":
            self.b = self.layer(rng, width, inputs, bias)
        elif self.kind in ("gated", "squeeze"):
            self.b = self.layer(rng, inputs if self.kind == "gated" else width, width, True, size=1)
        elif self.kind == "gain":
            self.gain = nn.Parameter(torch.rand((width, 1, 1) if image else (width,)) + 0.5)
            self.offset = nn.Parameter(torch.rand((width, 1, 1) if image else (width,)))
        elif self.kind == "depthwise":
            self.b = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=bias)
        elif self.kind == "grouped":
            self.b = nn.Conv2d(width, width, 3, padding=1, groups=2, bias=bias)
        elif self.kind == "transposed":
            self.b = nn.ConvTranspose2d(width, width, 3, padding=1, bias=bias)
        self.width = width + inputs if self.kind == "concatenate" else width

    def layer(self, rng: random.Random, inputs: int, width: int, bias: bool, size: int | None = None) -> nn.Module:
        if not self.image:
            return nn.Linear(inputs, width, bias=bias)
        size = size or rng.choice([1, 3])
        return nn.Conv2d(inputs, width, size, padding=size // 2, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        h = self.drop(self.act(self.norm(self.a(x))))
        if self.kind == "residual":
            return F.relu(x + self.b(h))
        if self.kind == "concatenate":
            return torch.cat([x, h], 1 if self.image else -1)
        if self.kind == "gated":
            return h * torch.sigmoid(self.b(x))
        if self.kind == "squeeze":
            return h * torch.sigmoid(self.b(h.mean((2, 3), keepdim=True) if self.image else h))
        if self.kind == "gain":
            return h * self.gain + self.offset
        return self.b(h) if self.kind in ("depthwise", "grouped", "transposed") else h


def _group_norm(width: int) -> nn.Module:
    return nn.GroupNorm(2 if width % 2 == 0 else 1, width)


class RandomNetwork(nn.Module):
    """A trunk of steps behind a first layer, and one to three heads."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        rng = random.Random(seed)
        self.kind = rng.choice(["vector", "image", "sequence"])
        width = rng.randint(3, 7)
        if self.kind == "sequence":
            cell, layers = rng.choice([nn.RNN, nn.GRU, nn.LSTM]), rng.choice([1, 2])
            self.first: nn.Module = cell(3, width, num_layers=layers, batch_first=True)
        else:
            self.first = nn.Conv2d(3, width, 3, padding=1) if self.kind == "image" else nn.Linear(3, width)
        steps = []
        for _ in range(rng.randint(1, 4)):
            steps.append(Step(rng, width, self.kind == "image"))
            width = steps[-1].width
        self.steps = nn.Sequential(*steps)
        self.flat = self.kind == "image" and rng.random() < 0.5
        self.last = rng.random() < 0.5
        self.heads = nn.ModuleList(nn.Linear(width * (16 if self.flat else 1), 2) for _ in range(rng.randint(1, 3)))

    def forward(self, x: Tensor) -> list[Tensor]:
        h = self.first(x)
        if self.kind == "sequence":
            h = h[0][:, -1] if self.last else h[0].mean(1)
        h = self.steps(h)
        if self.kind == "image":
            h = h.flatten(1) if self.flat else F.adaptive_avg_pool2d(h, 1).flatten(1)
        return [head(h) for head in self.heads]

    def inputs(self, generator: torch.Generator) -> Tensor:
        shape = {"vector": (6, 3), "image": (3, 3, 4, 4), "sequence": (4, 5, 3)}[self.kind]
        return torch.randn(shape, generator=generator, dtype=torch.float64)
