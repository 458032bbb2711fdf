"""The ages of reborn rows and columns of several parameters, flat, and what Adam's bias correction makes of them."""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

AGE = "age_"
"""Prefix of the optimizer state that holds ages: `age_<dim>`."""


@dataclass
class Ages:
    """The ages of the parameters of one update.

    Attributes:
        parts: the age tensors as the optimizer's state holds them: views of `flat`.
        flat: steps since birth of every row and column, and at the end each parameter's own step count.
        owner: for each entry of `flat`, where its parameter's step count is.
        corrections: `1 - beta1^age` and `sqrt(1 - beta2^age)` [2, entries].
        leap: their quotient for the parameter, over that for the entry: how much smaller a step it should take.
        firsts, seconds, leaps: per parameter, broadcastable views of these, one per dim.
        own: likewise, of the ages.
        joint: parameter with young rows and columns -> memory for the leap of each of its entries.
        younger: likewise, 1 where the column is younger than the row, else 0 (and so on); until the next birth.
        zeros: memory for changes, in one piece where that can be, and its views.
    """

    parts: list[Tensor]
    flat: Tensor
    owner: Tensor
    corrections: Tensor
    leap: Tensor
    firsts: list[list[Tensor]]
    seconds: list[list[Tensor]]
    leaps: list[list[Tensor]]
    own: list[list[Tensor]]
    joint: dict[int, Tensor] = field(default_factory=dict)
    younger: dict[int, list[Tensor]] = field(default_factory=dict)
    zeros: tuple[list[Tensor], list[Tensor]] = ([], [])

    def __post_init__(self) -> None:
        self.rows = self.corrections.unbind()
        self.equal = False  # whether both moments decay alike

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
        corrections, leap = torch.empty(2, len(flat), dtype=dtype, device=flat.device), torch.empty_like(flat)
        views = [
            [v.view(part.shape) for v, part in zip(t[:total].split(sizes), parts, strict=True)]
            for t in (flat, *corrections, leap)
        ]
        grouped = []
        for kind in views:
            rest = iter(kind)
            grouped.append([[next(rest) for _ in own] for own in names])
        for state, keys, ages in zip(states, names, grouped[0], strict=True):
            state.update(zip(keys, ages, strict=True))
        own, firsts, seconds, leaps = grouped
        return Ages(views[0], flat, owner, corrections, leap, firsts, seconds, leaps, own)

    def holds(self, states: list[dict[str, Any]]) -> bool:
        """Whether these are still the ages of exactly these states."""
        parts = [value for state in states for name, value in state.items() if name.startswith(AGE)]
        return len(parts) == len(self.parts) and all(map(operator.is_, parts, self.parts))

    def advance(self, beta1: float, beta2: float) -> None:
        """One step older."""
        self.flat.add_(1)
        self.equal = beta1 == beta2
        first, second = self.rows
        for beta, row in ((beta1, first),) if self.equal else ((beta1, first), (beta2, second)):
            torch.mul(self.flat, math.log(beta) if beta else -math.inf, out=row).expm1_().neg_()
        torch.sqrt(first if self.equal else second, out=second)

    def leaps_of(self) -> list[Tensor]:
        """`leap` of every parameter, broadcastable: where it has young rows and columns, that of the younger."""
        torch.div(*self.rows, out=self.leap)
        torch.div(self.leap.index_select(0, self.owner), self.leap, out=self.leap)
        return [leaps[0] if len(leaps) == 1 else self._joint(i, leaps) for i, leaps in enumerate(self.leaps)]

    def _joint(self, i: int, leaps: list[Tensor]) -> Tensor:
        if i not in self.joint:
            self.joint[i] = torch.empty_like(sum(leaps[1:], leaps[0]))
        joint = self.joint[i]
        if self.equal and len(leaps) == 2:  # then the leap falls with age, and the younger one has the larger
            return torch.maximum(*leaps, out=joint)
        if i not in self.younger:
            self.younger[i], youngest = [], self.own[i][0]
            for age in self.own[i][1:]:
                self.younger[i].append((age < youngest).to(age.dtype))
                youngest = torch.minimum(youngest, age)
        leap = leaps[0]
        for other, younger in zip(leaps[1:], self.younger[i], strict=True):
            leap = torch.lerp(leap, other, younger, out=joint if younger.shape == joint.shape else None)
        return leap

    def changes(self, parameters: list[Tensor]) -> list[Tensor]:
        """Zeros of the parameters' shapes and strides, where an update is written first: the same ones every time."""
        pieces, views = self.zeros
        if any(v.shape != p.shape or v.dtype != p.dtype for v, p in zip(views, parameters, strict=False)):
            pieces = views = []
        if len(views) != len(parameters):
            if len({p.dtype for p in parameters}) == 1 and all(p.is_contiguous() for p in parameters):
                sizes = [p.numel() for p in parameters]
                pieces = [torch.empty(sum(sizes), dtype=parameters[0].dtype, device=parameters[0].device)]
                views = [v.view(p.shape) for v, p in zip(pieces[0].split(sizes), parameters, strict=True)]
            else:
                pieces = views = [torch.empty_like(p, requires_grad=False) for p in parameters]
            self.zeros = pieces, views
        for piece in pieces:
            piece.zero_()
        return views

    @staticmethod
    def smallest(views: list[Tensor]) -> Tensor:
        """The corrections grow with age: the younger of row and column has the smaller one."""
        value = views[0]
        for other in views[1:]:
            value = torch.minimum(value, other)
        return value
