"""Layers that methods of keeping plasticity ask for and torch does not have in this form."""

import torch
from torch import Tensor, nn


class CReLU(nn.Module):
    """Concatenated ReLU (Shang et al. 2016; Abbas et al. 2023): `[relu(x), relu(-x)]`, twice as wide as its input."""

    def forward(self, input: Tensor) -> Tensor:
        """`[..., width]` to `[..., 2 * width]`."""
        return torch.cat((input, -input), -1).relu()


class Fourier(nn.Module):
    """Deep Fourier features (Lewandowski et al. 2025): `[sin x, cos x]`, twice as wide as its input.

    Whatever the input, one of the two is nearly linear in it: a unit that is saturated on one side learns on the other.
    """

    def forward(self, input: Tensor) -> Tensor:
        """`[..., width]` to `[..., 2 * width]`."""
        return torch.cat((input.sin(), input.cos()), -1)


class Dropout(nn.Dropout):
    """Dropout with a generator of its own, which is part of its `state_dict`, so that a continued run drops the same.

    It acts in passes that build a graph, the gradient steps; acting, advantages and log-probabilities of the batch are
    computed without it.
    """

    def __init__(self, p: float, generator: torch.Generator):
        super().__init__(p)
        self.generator = generator

    def forward(self, input: Tensor) -> Tensor:
        """Zero each entry with probability `p` and scale the others by `1 / (1 - p)`."""
        if not (self.training and torch.is_grad_enabled()):
            return input
        keep = torch.empty(input.shape, device=self.generator.device)
        keep.bernoulli_(1 - self.p, generator=self.generator).div_(1 - self.p)
        return input * keep.to(input)

    def get_extra_state(self) -> Tensor:
        """State of the generator."""
        return self.generator.get_state()

    def set_extra_state(self, state: Tensor) -> None:
        """Continue the generator."""
        self.generator.set_state(state.cpu())
