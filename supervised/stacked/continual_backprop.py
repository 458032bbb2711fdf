"""Continual backpropagation and generate-and-test on a stack, with rates and maturities per run.

When and how many units are replaced follows from width, rate, maturity and step alone, so the host looks ahead and no
step asks the device.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from continual_agents.surgery.selection import Budget, least_useful
from continual_agents.surgery.utility import Signals, absolute_sum, finite, utility_of

from ..draws import Draw, numpy_draws
from .network import StackedMlp
from .optimizers import StackedOptimizer
from .surgeon import SURGEON, StackedSurgery, common, only

BLOCK = 64
"""Steps for which the random utility is drawn at once."""


class StackedContinualBackprop(StackedSurgery):
    """Continual backpropagation on every run of a stack (Dohare et al. 2024; formulas in `continual_agents.surgery`).

    Args:
        stack, optimizer: as trained.
        settings: per run: `rate` (fraction of eligible units per step), `maturity` (steps) and `birth`; `decay`,
            `utility`, `transfer` and `count_all` are common to the stack.

    Raises:
        ValueError: a setting out of range or unknown, or settings that runs of one stack cannot differ in.
    """

    def __init__(self, stack: StackedMlp, optimizer: StackedOptimizer, settings: Sequence[Mapping[str, Any]]):
        only(settings, "continual_backprop", "rate", "maturity", "decay", "utility", "transfer", "count_all", *SURGEON)
        super().__init__(stack, optimizer, settings)
        self.decay = float(common(settings, "decay", 0.99))
        if not 0 <= self.decay < 1:
            raise ValueError(f"decay={self.decay}: the decay of a running mean lies in [0, 1)")
        self.utility = utility_of(common(settings, "utility", "contribution"))
        count_all = bool(common(settings, "count_all", False))
        # utility, mean output, and the sum of the weights so far (1 - decay^age), which corrects both
        self.worth, self.means, self.weights = self.per_unit(), self.per_unit(), self.per_unit()
        self.births = self.per_unit(torch.int64)
        # a budget follows from width, rate, maturity and step: runs that have these in common share its arithmetic
        groups: dict[tuple[float, int], list[int]] = {}
        for run, one in enumerate(settings):
            groups.setdefault((float(one.get("rate", 1e-4)), int(one.get("maturity", 10_000))), []).append(run)
        self.plans = [
            _Plan(layer, runs, Budget(width, rate, maturity, count_all=count_all))
            for (rate, maturity), runs in groups.items()
            for layer, width in enumerate(stack.network.hidden)
        ]
        self._noise: list[Tensor] = []

    remembers = ("worth", "means", "weights", "births")

    @property
    def draws(self) -> bool:  # type: ignore[override]
        """Whether every step draws random numbers."""
        return "noise" in self.utility.needs

    @property
    def next_step(self) -> float:
        """The next step after which units are replaced; inf if never."""
        return min(plan.step for plan in self.plans)

    def follow_step(self, number: int) -> None:
        """Move running means and utilities towards this step's (number `number` from 0)."""
        for layer, (worth, mean, weight) in enumerate(zip(self.worth, self.means, self.weights, strict=True)):
            signals = self._signals(layer, mean, weight, number)
            worth.lerp_(finite(self.utility.score(signals)), 1 - self.decay)

    def _signals(self, layer: int, mean: Tensor, weight: Tensor, number: int) -> Signals:
        needs = self.utility.needs
        h = self.stack.inputs[layer + 1]
        single = h.shape[1] == 1  # a mean over one example is a kernel for nothing
        mean.lerp_(h[:, 0] if single else h.mean(1), 1 - self.decay)
        weight.mul_(self.decay).add_(1 - self.decay)
        signals = Signals()
        if "activity" in needs:
            signals.activity = h[:, 0].abs() if single else h.abs().mean(1)
        if "deviation" in needs:
            centre = mean / weight
            signals.deviation = (h[:, 0] - centre).abs_() if single else (h - centre[:, None]).abs_().mean(1)
        if "sensitivity" in needs:
            signals.sensitivity = (h * self.stack.sensitivities[layer]).abs().mean(1)
        if "out" in needs:
            signals.out = absolute_sum(self.stack.layers[layer + 1].weight, 2)
        if "incoming" in needs:
            signals.incoming = absolute_sum(self.stack.layers[layer].weight, 1)
        if "noise" in needs:
            signals.noise = self._uniform(layer, number)
        return signals

    def _uniform(self, layer: int, number: int) -> Tensor:
        block, place = divmod(number, BLOCK)
        if place == 0 or len(self._noise) <= layer:
            self._noise = [
                torch.from_numpy(
                    np.stack(
                        [numpy_draws(seed, Draw.UTILITY, k, block).random((BLOCK, width)) for seed in self.stack.seeds]
                    )
                ).to(self.stack.device, self.stack.dtype)
                for k, width in enumerate(self.stack.network.hidden)
            ]
        return self._noise[layer][:, place]

    def act_now(self) -> None:
        """Replace what is due at this step."""
        due = [plan for plan in self.plans if plan.step == self.steps]
        # together: a unit that goes may be read by one that goes, and its mean is handed over by its old weights
        self.surgeon.replace([self._job(plan) for plan in due])
        for plan in due:
            plan.done()

    def _job(self, plan: _Plan) -> tuple[int, Sequence[int], Tensor, Tensor | None]:
        layer, runs = plan.layer, torch.tensor(plan.runs, device=self.stack.device)
        rows = runs[:, None]
        age = self.steps - self.births[layer][runs]
        units = least_useful(self.worth[layer][runs], age, plan.count, maturity=plan.budget.maturity, decay=self.decay)
        means = self.means[layer][rows, units] / self.weights[layer][rows, units] if self.transfer else None
        # the sum of weights too, or a newborn's first estimates would be taken for settled ones, and be near 0
        for tensor in (self.worth[layer], self.means[layer], self.weights[layer]):
            tensor[rows, units] = 0.0
        self.births[layer][rows, units] = self.steps
        self.replaced[plan.runs, layer] += plan.count
        return layer, plan.runs, units, means

    def report(self) -> dict[str, np.ndarray]:
        """As the base, and the units' mean age per layer."""
        ages = [(self.steps - births).double().mean(1).cpu().numpy() for births in self.births]
        return super().report() | {f"age_mean/hidden_{layer}": age for layer, age in enumerate(ages)}

    def state_dict(self) -> dict[str, Any]:
        """As the base, and when units go next."""
        return {**super().state_dict(), "plans": [plan.state_dict() for plan in self.plans]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict()`."""
        super().load_state_dict(state)
        for plan, stored in zip(self.plans, state["plans"], strict=True):
            plan.load_state_dict(stored)
        self._noise = []


class _Plan:
    """When, and how many units of one layer, runs of equal rate and maturity replace next."""

    def __init__(self, layer: int, runs: list[int], budget: Budget):
        self.layer, self.runs, self.budget = layer, runs, budget
        self.step: float = 0
        self.count = 0
        self._look_ahead()

    def _look_ahead(self) -> None:
        if not self.budget.rate:
            self.step, self.count = math.inf, 0
            return
        # no value on the device has a say in when and how many, so fast code can be given all steps until then
        step, self.count = int(self.step), 0
        while not self.count:
            step += 1
            self.count = self.budget.spend(step)
        self.step = step

    def done(self) -> None:
        """The replacement was made."""
        self.budget.born(int(self.step), self.count)
        self._look_ahead()

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers."""
        return {"step": self.step, "count": self.count, "budget": self.budget.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict()`."""
        self.step, self.count = state["step"], int(state["count"])
        self.budget.load_state_dict(state["budget"])


class StackedGenerateAndTest(StackedContinualBackprop):
    """Generate-and-test (Mahmood and Sutton 2012): one hidden layer, worth is the weight a unit is read with.

    Raises:
        ValueError: a network with another number of hidden layers.
    """

    def __init__(self, stack: StackedMlp, optimizer: StackedOptimizer, settings: Sequence[Mapping[str, Any]]):
        if len(stack.network.hidden) != 1:
            raise ValueError(
                f"generate_and_test is for one hidden layer, this network has {len(stack.network.hidden)}: "
                "use continual_backprop"
            )
        only(settings, "generate_and_test", "rate", "maturity", "decay", *SURGEON)
        super().__init__(stack, optimizer, [{**one, "utility": "weight", "transfer": False} for one in settings])
