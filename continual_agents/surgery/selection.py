"""Which units go: rate and maturity with a budget kept on the host (continual backprop), a threshold (ReDo)."""

from __future__ import annotations

import math
from collections import deque
from typing import Any

import torch
from torch import Tensor

FEW = 3
"""Units are looked for one by one up to this many: a stable sort of 2,000 scores takes as long as ten of them."""


class Budget:
    """How many units of a layer to replace at each step, known without looking at the device.

    Each step adds `rate * (number of units older than maturity)`; when the sum reaches 1 its whole part is spent and
    the fraction carried over. Counted in float64. The number of eligible units is the width minus what was born in
    the last `maturity` steps, so it follows from the past replacements alone.

    Args:
        width: units in the layer.
        rate: fraction of the eligible units replaced per step, in [0, 1].
        maturity: steps, at least 1; a unit is eligible when its age is greater.
        count_all: add `rate * width` instead, as public code does for conv nets.

    Raises:
        ValueError: rate or maturity out of range.
    """

    def __init__(self, width: int, rate: float, maturity: int, *, count_all: bool = False) -> None:
        if not 0 <= rate <= 1:
            raise ValueError(f"rate={rate}: a fraction of the eligible units per step lies in [0, 1]")
        if maturity != int(maturity) or maturity < 1:
            raise ValueError(
                f"maturity={maturity}: a whole number of steps, at least 1, or newborns are replaced before they have "
                "learned anything (published: 100 to 10,000)"
            )
        self.width, self.rate, self.maturity, self.count_all = width, rate, int(maturity), count_all
        self.begin(0)

    def begin(self, step: int) -> None:
        """All units are born at `step`."""
        self.carried = 0.0
        self.eligible = 0
        self._young: deque[tuple[int, int]] = deque([(step, self.width)])  # (birth step, how many), oldest first

    def spend(self, step: int) -> int:
        """Grow the budget for this step (the first is 1) and return how many units to replace now."""
        while self._young and step - self._young[0][0] > self.maturity:
            self.eligible += self._young.popleft()[1]
        self.carried = min(self.carried + self.rate * (self.width if self.count_all else self.eligible), self.eligible)
        count = int(self.carried)
        self.carried -= count
        return count

    def born(self, step: int, count: int) -> None:
        """Note that `count` eligible units were replaced at `step`."""
        self.eligible -= count
        self._young.append((step, count))

    def next_in(self, step: int) -> float:
        """About how many steps until the next replacement, if nothing else happens; inf if the rate is 0."""
        eligible, wait = self.eligible, 0
        if not eligible and self._young:
            wait = max(self._young[0][0] + self.maturity - step, 0)
            eligible = self._young[0][1]
        growth = self.rate * (self.width if self.count_all else eligible)
        return wait + math.ceil((1 - self.carried) / growth) if growth else math.inf

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers."""
        return {"carried": self.carried, "eligible": self.eligible, "young": [list(pair) for pair in self._young]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict()`."""
        self.carried, self.eligible = float(state["carried"]), int(state["eligible"])
        self._young = deque((int(step), int(count)) for step, count in state["young"])


def least_useful(utility: Tensor, age: Tensor, count: int, *, maturity: int, decay: float = 0.0) -> Tensor:
    """The `count` eligible units with the least bias-corrected utility; of equals, the one with the lowest index.

    Args:
        utility: running utility [..., width]; NaN and infinite ones count as 0.
        age: steps since birth [..., width].
        count: how many, at most the number with `age > maturity`.
        maturity: steps; younger units are never chosen.
        decay: eta of the running mean; the utility is divided by `1 - eta^age`. 0: nothing to correct.

    Returns:
        int64 [..., count], least useful first.
    """
    score = finite_copy(utility / (1 - decay ** age.to(utility.dtype)) if decay else utility)
    score.masked_fill_(age <= maturity, math.inf)
    return lowest(score, count)


def finite_copy(score: Tensor) -> Tensor:
    """A copy in which NaN and infinite scores are 0."""
    return torch.nan_to_num(score, nan=0.0, posinf=0.0, neginf=0.0)


def mature_(utility: Tensor, birth_step: Tensor, step: int, maturity: int) -> Tensor:
    """The utilities [..., width], put to infinity where a unit is at most `maturity` steps old and must stay.

    Args:
        utility: bias-corrected, finite.
        birth_step: of every unit.
        step: the present one.
        maturity: steps.
    """
    return utility.masked_fill_(birth_step >= step - maturity, math.inf)


def lowest(score: Tensor, count: int) -> Tensor:
    """Indices [..., count] of the lowest scores [..., width], lowest first; of equals, the lowest index."""
    if count > FEW:
        return torch.sort(score, dim=-1, stable=True).indices[..., :count]
    found = [score.argmin(-1, keepdim=True)]
    for _ in range(count - 1):
        score = score.scatter(-1, found[-1], math.inf)
        found.append(score.argmin(-1, keepdim=True))
    return found[0] if count == 1 else torch.cat(found, -1)


def dormant(score: Tensor, threshold: float) -> Tensor:
    """ReDo: bool [..., width], True where the dormancy score is at or under the threshold."""
    return score <= threshold
