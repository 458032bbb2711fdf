"""The ages of reborn rows and columns of several parameters, flat, and what Adam's bias correction makes of them."""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .scratch import Scratch

AGE = "age_"
"""Prefix of the optimizer state that holds ages: `age_<dim>`."""


@dataclass
class Ages:
    """The ages of the parameters of one update.

    Attributes:
        parts: the age tensors as the optimizer's state holds them: views of `flat`.
        flat: steps since birth of every row and column, and at the end each parameter's own step count.
        owner: for each entry of `flat`, where its parameter's step count is.
        first: `1 - beta1^age`.
        second: `sqrt(1 - beta2^age)`.
        leap: first / second of the parameter, over that of the entry: how much smaller a step it should take.
        firsts, seconds, leaps: per parameter, broadcastable views of these, one per dim.
        own: likewise, of the ages.
        younger: parameter -> 1 where the row is younger than the column, else 0; until the next birth.
    """

    parts: list[Tensor]
    flat: Tensor
    owner: Tensor
    first: Tensor
    second: Tensor
    leap: Tensor
    firsts: list[list[Tensor]]
    seconds: list[list[Tensor]]
    leaps: list[list[Tensor]]
    own: list[list[Tensor]]
    younger: dict[int, Tensor] = field(default_factory=dict)

    @staticmethod
    def of(states: list[dict[str, Any]]) -> Ages:
        """Gather the ages in these parameters' states, and make those views of one tensor."""
        names = [[name for name in state if name.startswith(AGE)] for state in states]
        parts = [state[name] for state, own in zip(states, names, strict=True) for name in own]
        dtype = torch.float64 if any(part.dtype == torch.float64 for part in parts) else torch.float32
        steps = [state["step"].reshape(1).to(parts[0].device, dtype) for state in states]
        flat = torch.cat([*(part.flatten().to(dtype) for part in parts), *steps])
        sizes = [part.numel() for part in parts]
        total, owners = sum(sizes), [i for i, own in enumerate(names) for _ in own]
        owner = torch.cat(
            [torch.full((size,), total + i) for size, i in zip(sizes, owners, strict=True)]
            + [torch.arange(total, total + len(states))]
        ).to(flat.device)
        made = [torch.empty_like(flat) for _ in range(3)]
        views = [
            [v.view(part.shape) for v, part in zip(t[:total].split(sizes), parts, strict=True)] for t in (flat, *made)
        ]
        grouped = []
        for kind in views:
            rest = iter(kind)
            grouped.append([[next(rest) for _ in own] for own in names])
        for state, keys, ages in zip(states, names, grouped[0], strict=True):
            state.update(zip(keys, ages, strict=True))
        own, firsts, seconds, leaps = grouped
        first, second, leap = made
        return Ages(views[0], flat, owner, first, second, leap, firsts, seconds, leaps, own)

    def holds(self, states: list[dict[str, Any]]) -> bool:
        """Whether these are still the ages of exactly these states."""
        parts = [value for state in states for name, value in state.items() if name.startswith(AGE)]
        return len(parts) == len(self.parts) and all(map(operator.is_, parts, self.parts))

    def advance(self, beta1: float, beta2: float) -> None:
        """One step older."""
        self.flat.add_(1)
        torch.mul(self.flat, math.log(beta1) if beta1 else -math.inf, out=self.first).expm1_().neg_()
        torch.mul(self.flat, math.log(beta2) if beta2 else -math.inf, out=self.second).expm1_().neg_().sqrt_()
        torch.div(self.first, self.second, out=self.leap)
        torch.div(self.leap.index_select(0, self.owner), self.leap, out=self.leap)

    def leap_of(self, i: int, scratch: Scratch) -> Tensor:
        """`leap` of parameter i, broadcastable: that of the row or of the column, whichever is younger."""
        leaps = self.leaps[i]
        if len(leaps) == 1:
            return leaps[0]
        if i not in self.younger:
            self.younger[i] = (self.own[i][0] < self.own[i][1]).to(self.flat.dtype)
        rows, columns = leaps
        return torch.lerp(columns, rows, self.younger[i], out=scratch.like(self.younger[i]))

    @staticmethod
    def smallest(views: list[Tensor]) -> Tensor:
        """The corrections grow with age: the younger of row and column has the smaller one."""
        value = views[0]
        for other in views[1:]:
            value = torch.minimum(value, other)
        return value
