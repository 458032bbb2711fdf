"""What one step of Adam updates, gathered once: torch gathers its parameters anew at every step."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .adam_in_c import AdamInC
from .ages import Ages


class Update:
    """The parameters of one device and type that one call steps, those with young entries first.

    Args:
        young: (parameter, the optimizer's state of it), with ages.
        others: the same without.

    Attributes:
        young: how many parameters have young entries.
        ages: theirs; None: there are none.
        in_c: takes the steps, where C can; None: torch does.
        steps: the parameters' step counts, once they were counted.
    """

    def __init__(self, young: Sequence[tuple[Tensor, dict]], others: Sequence[tuple[Tensor, dict]]) -> None:
        self.params = [parameter for parameter, _ in (*young, *others)]
        self.states = [state for _, state in (*young, *others)]
        self.young = len(young)
        self.ages = Ages(self.states[: self.young], self.params[0]) if young else None
        self.in_c = AdamInC.of(self.params, self.states, self.ages) if self.ages else None
        self.steps: list[Tensor] = []

    def count(self) -> None:
        """One more on each parameter's step count; these become views of one tensor, which one call counts."""
        steps = [state["step"] for state in self.states]
        if len(steps) != len(self.steps) or not all(map(operator.is_, steps, self.steps)):
            self._all_steps = torch.stack(steps)
            self.steps = list(self._all_steps.unbind())
            for state, step in zip(self.states, self.steps, strict=True):
                state["step"] = step
        self._all_steps.add_(1)


class Gathered:
    """The parameters of a group that have a gradient: those that `surgery.Adam` steps, and the rest.

    Args:
        params: with a gradient.
        states: the optimizer's; None: a parameter that was not stepped yet, which torch's first step serves.
        fused: take the parameters without young entries too.
    """

    def __init__(self, params: Sequence[Tensor], states: Sequence[dict[str, Any] | None], fused: bool) -> None:
        self._params, self._states, self._fused = list(params), list(states), fused
        kinds: dict[Any, tuple[list, list]] = {}
        self.rest: list[Tensor] = []
        for parameter, state in zip(params, states, strict=True):
            if state and (fused or "young" in state):
                young, others = kinds.setdefault((parameter.device, parameter.dtype), ([], []))
                (young if "young" in state else others).append((parameter, state))
            else:
                self.rest.append(parameter)
        self.updates = [Update(*kind) for kind in kinds.values()]

    def hold(self, params: Sequence[Tensor], states: Sequence[dict[str, Any] | None], fused: bool) -> bool:
        """Whether these are the same, and their ages still those that were gathered."""
        return (
            len(params) == len(self._params)
            and fused == self._fused
            and all(map(operator.is_, params, self._params))
            and all(map(operator.is_, states, self._states))
            and all(update.ages.hold() for update in self.updates if update.ages)
        )

    def born(self) -> None:
        """Some entries were put to age 0."""
        for update in self.updates:
            if update.ages:
                update.ages.born()
