"""The ages of reborn rows and columns of several parameters, flat, and what Adam's bias correction makes of them."""

from __future__ import annotations

import functools
import itertools
import math
import operator
from typing import Any

import torch
from torch import Tensor

AGE = "age_"
"""Prefix of the optimizer state that holds ages: `age_<dim>`."""


class Ages:
    """The ages of the parameters of one update, side by side, so that one call serves them all.

    Corrections are looked up by age: a table costs one call, the formula eight.

    Args:
        states: the optimizer's, each with ages; these become views of one tensor.
        like: one of the parameters: device and type of the corrections.

    Attributes:
        table: from `corrections`, once a step was counted.
    """

    def __init__(self, states: list[dict[str, Any]], like: Tensor) -> None:
        self._named = [(state, name) for state in states for name in state if name.startswith(AGE)]
        self._parts = [state[name] for state, name in self._named]
        self._flat = torch.cat([part.flatten() for part in self._parts])
        self._capped = torch.empty_like(self._flat)
        self._like = like
        self._betas = (math.nan, math.nan)
        self._parts = self._views(self._flat)
        for (state, name), part in zip(self._named, self._parts, strict=True):
            state[name] = part
        counts = [sum(name.startswith(AGE) for name in state) for state in states]
        ends = list(itertools.accumulate(counts))
        self._owned = [slice(end - count, end) for count, end in zip(counts, ends, strict=True)]
        self._joint: dict[int, Tensor] = {}  # memory for what a parameter with young rows and columns needs per entry
        self._younger: dict[int, list[Tensor]] = {}  # 1 where the column is the younger one; until the next birth
        self._strides: list[tuple[int, ...]] = []  # of the memory for changes

    def _views(self, flat: Tensor) -> list[Tensor]:
        pieces = flat.split([part.numel() for part in self._parts])
        return [piece.view(part.shape) for piece, part in zip(pieces, self._parts, strict=True)]

    def hold(self) -> bool:
        """Whether these are still the ages of the states."""
        return all(map(operator.is_, [state.get(name) for state, name in self._named], self._parts))

    def born(self) -> None:
        """Some entries were put to age 0."""
        self._younger.clear()

    def advance(self, betas: tuple[float, float]) -> None:
        """One step older."""
        if betas != self._betas:  # at first, and where a schedule changes them
            self._betas, self.table = betas, corrections(betas, self._like)
            self._shares = torch.empty(len(self._flat), dtype=self.table.dtype, device=self.table.device)
            shares = self._views(self._shares)
            self._share_of = [shares[own] for own in self._owned]
        self._flat.add_(1)

    def _cap(self) -> Tensor:
        """Ages as columns of the table."""
        return torch.clamp(self._flat, max=self.table.shape[1] - 1, out=self._capped)

    def shares(self) -> list[Tensor]:
        """What every entry has to take of an uncorrected change, `sqrt(1 - beta2^age) / (1 - beta1^age)`, per
        parameter, broadcastable: where it has young rows and columns, for the age of the younger."""
        torch.index_select(self.table[2], 0, self._cap(), out=self._shares)
        return [own[0] if len(own) == 1 else self._of_younger(i, own) for i, own in enumerate(self._share_of)]

    def divisors(self) -> list[tuple[Tensor, Tensor]]:
        """`1 - beta1^age` and `sqrt(1 - beta2^age)` likewise; both grow with age, so the younger has the smaller."""
        first, second = (self._views(row) for row in self.table[:2].index_select(1, self._cap()))
        return [(_smallest(first[own]), _smallest(second[own])) for own in self._owned]

    def _of_younger(self, i: int, shares: list[Tensor]) -> Tensor:
        if i not in self._joint:
            self._joint[i] = torch.empty_like(sum(shares[1:], shares[0]))
        joint = self._joint[i]
        if self._betas[0] == self._betas[1] and len(shares) == 2:  # then shares fall with age
            return torch.maximum(*shares, out=joint)
        if i not in self._younger:
            ages = self._parts[self._owned[i]]
            self._younger[i], youngest = [], ages[0]
            for age in ages[1:]:
                self._younger[i].append((age < youngest).to(joint.dtype))
                youngest = torch.minimum(youngest, age)
        share = shares[0]
        for other, younger in zip(shares[1:], self._younger[i], strict=True):
            share = torch.lerp(share, other, younger, out=joint if younger.shape == joint.shape else None)
        return share

    def changes(self, parameters: list[Tensor]) -> list[Tensor]:
        """Zeros of the parameters' strides, where an update is written first: the same ones every time."""
        strides = [parameter.stride() for parameter in parameters]
        if strides != self._strides:
            self._strides = strides
            if all(p.is_contiguous() for p in parameters):
                sizes = [p.numel() for p in parameters]
                self._zeros = [torch.empty(sum(sizes), dtype=parameters[0].dtype, device=parameters[0].device)]
                pieces = self._zeros[0].split(sizes)
                self._changes = [piece.view(p.shape) for piece, p in zip(pieces, parameters, strict=True)]
            else:
                self._zeros = self._changes = [torch.empty_like(p, requires_grad=False) for p in parameters]
        for piece in self._zeros:
            piece.zero_()
        return self._changes


def corrections(betas: tuple[float, float], like: Tensor) -> Tensor:
    """`1 - beta1^t`, `sqrt(1 - beta2^t)` and the second over the first, t = 0 to `horizon` [3, horizon + 1].

    Nothing is corrected at age 0; its column is that of age 1.
    """
    steps = torch.arange(horizon(betas, like.dtype) + 1, dtype=torch.float64, device=like.device).clamp_min_(1)
    first, second = (-torch.expm1(steps * (math.log(beta) if beta else -math.inf)) for beta in betas)
    return torch.stack([first, second.sqrt(), second.sqrt() / first]).to(like.dtype)


@functools.cache
def horizon(betas: tuple[float, float], dtype: torch.dtype) -> int:
    """Steps after which `1 - beta^age` differs from 1 by less than a quarter of the type's resolution."""
    beta = max(betas)
    return math.ceil(math.log(torch.finfo(dtype).eps / 4) / math.log(beta)) if beta > 0 else 1


def _smallest(views: list[Tensor]) -> Tensor:
    value = views[0]
    for other in views[1:]:
        value = torch.minimum(value, other)
    return value
