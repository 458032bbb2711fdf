"""The running state of one layer under continual backprop: utility, means, births and budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from . import kernels
from .finding import Units
from .layer import Layer
from .moving import moved
from .scratch import Scratch
from .selection import Budget
from .utility import Utility, finite, utility_of
from .watch import average as averaged

MEASURED = frozenset({"activity", "deviation", "sensitivity"})
"""Signals that watches record; the others come from weights and the generator."""


class RunningLayer(Layer):
    """State of one layer: running utility and means, birth step of every unit, budget.

    Attributes:
        averages: running means that start at 0: of the utility [width], and per watch of what is read
            [width * block], for conv layers a map [width, *space].
        weights: for each of them the same running mean of ones [width]: what it has to be divided by.
        upcoming: the weights as they will be after this step.
        birth_step: optimizer step of each unit's birth, int64 [width].
        table: averages and weights in one piece [4, width], where there is one watch and one number a unit; else None.
    """

    def __init__(
        self,
        units: Units,
        scratch: Scratch,
        *,
        every: int,
        rate: float,
        maturity: int,
        decay: float,
        utility: Any,
        birth: Any,
        count_all: bool,
    ) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay={decay}: the decay of a running mean lies in [0, 1)")
        super().__init__(units, birth)
        self.pace, self.scratch = 1 - decay**every, scratch
        self.criterion: Utility = utility_of(utility)
        self.budget = Budget(units.width, rate, maturity, count_all=count_all)
        self.wants = MEASURED & set(self.criterion.needs)
        self.scattered = False
        self.listen(self.wants, self._centre, scratch)
        weight = units.made[0].tensor()
        dtype = weight.dtype if weight.dtype in (torch.float32, torch.float64) else torch.float32
        sizes = [units.width, *(watch.size for watch in self.watches)]
        self.averages = [torch.zeros(size, dtype=dtype, device=weight.device) for size in sizes]
        self.weights = [torch.zeros(units.width, dtype=dtype, device=weight.device) for _ in sizes]
        self.upcoming = [weight.clone() for weight in self.weights]
        self.table: Tensor | None = None
        self.birth_step = torch.zeros(units.width, dtype=torch.int64, device=weight.device)
        self.mapped = [False] * len(self.watches)  # whether the first mean has told the shape

    @property
    def utility(self) -> Tensor:
        """Running utility [width], not yet divided by its weight."""
        return self.averages[0]

    def corrected(self) -> list[Tensor]:
        """The averages divided by their weights: utility, then means. 0 where a unit was not seen since its birth."""
        if self.table is not None:
            return list(finite(self.table[:2] / self.table[2:]).unbind())
        width = self.units.width
        return [
            finite(average.view(width, -1) / weight[:, None]).view(average.shape)
            for average, weight in zip(self.averages, self.weights, strict=True)
        ]

    def restart(self, index: Tensor, step: int) -> None:
        """These units are born at `step`: nothing is known about them."""
        library = None if self.table is None else kernels.library_for((self.utility,))
        if library is not None and self.table is not None and index.is_contiguous():
            table = self.table.data_ptr(), self.table.stride(0)
            library.restart(*table, self.birth_step.data_ptr(), step, index.data_ptr(), index.numel())
        else:
            self._restart_in_torch(index, step)
        if "deviation" in self.wants:
            for weight in self.upcoming:
                weight.index_fill_(0, index, self.pace)

    def _restart_in_torch(self, index: Tensor, step: int) -> None:
        self.birth_step.index_fill_(0, index, step)
        if self.table is not None:
            self.table.index_fill_(1, index, 0.0)
        else:
            for known in (*self.averages, *self.weights):
                known.view(self.units.width, -1).index_fill_(0, index, 0.0)

    def noise(self, generator: torch.Generator) -> Tensor:
        """Uniform in [0, 1) [width]."""
        noise = torch.rand(self.units.width, generator=generator, device=generator.device, dtype=self.utility.dtype)
        return moved(noise, self.utility)

    def measured(self, records: Sequence[Mapping[str, Tensor] | None]) -> Mapping[str, Tensor] | None:
        """What this step's passes tell about the units, for the utility; None: nothing.

        Raises:
            RuntimeError: passes were seen, and the utility needs gradients that did not come.
        """
        seen = [(watch.samples, own) for watch, own in zip(self.watches, records, strict=True) if own is not None]
        if not seen:
            return None
        if not self.scattered and records[0] is None:
            # the units were read elsewhere than where they are measured: from now on they are measured everywhere
            self.scatter()
            return None
        if not self.scattered:
            seen = seen[:1]
        for name in self.wants:
            if any(name not in own for _, own in seen):
                raise RuntimeError(
                    f"units {self.units.name!r}: their utility needs gradients, and no backward pass reached them "
                    "before the optimizer's step: choose another utility, or leave these units out"
                )
        if len(seen) == 1:
            return seen[0][1]
        return {name: averaged([(count, own[name]) for count, own in seen]) for name in self.wants}

    def refit(self, i: int, mean: Tensor) -> Tensor:
        """Make running mean `i` and this step's alike: conv layers have maps, until their size changes; then one
        number per unit is kept, and the mean is handed over as if it were the same everywhere."""
        running = self.averages[i + 1]
        if running.ndim == 1 and not self.mapped[i]:
            self.averages[i + 1] = running.new_zeros(mean.shape)
        elif running.ndim > 1:
            self.averages[i + 1] = running.flatten(1).mean(1)
            mean = mean.flatten(1).mean(1) if mean.ndim > 1 else mean
        else:
            mean = mean.flatten(1).mean(1)
        self.mapped[i] = True
        return mean

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to continue exactly."""
        return {
            "averages": [average.clone() for average in self.averages],
            "weights": [weight.clone() for weight in self.weights],
            "birth_step": self.birth_step.clone(),
            "mapped": list(self.mapped),
            "scattered": self.scattered,
            "replaced": self.replaced,
            "budget": self.budget.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict()`."""
        self.averages = [average.to(self.device, copy=True) for average in state["averages"]]
        self.weights = [weight.to(self.device, copy=True) for weight in state["weights"]]
        self.upcoming = [torch.zeros_like(weight) for weight in self.weights]
        self.birth_step = state["birth_step"].to(self.device, copy=True)
        self.mapped = [bool(known) for known in state["mapped"]]
        self.replaced = int(state["replaced"])
        self.budget.load_state_dict(state["budget"])
        if state["scattered"]:
            self.scatter()

    def adopt(self, before: RunningLayer) -> None:
        """As the base: ages, budget, utilities, and the means of the tensors that are read as before."""
        super().adopt(before)
        self.birth_step, self.budget = before.birth_step, before.budget
        kept = 1 if len(self.watches) != len(before.watches) else len(self.averages)
        for i in range(kept):
            if not i or self.watches[i - 1].size == before.watches[i - 1].size:
                self.averages[i], self.weights[i] = before.averages[i].clone(), before.weights[i].clone()
                if i:
                    self.mapped[i - 1] = before.mapped[i - 1]
        if before.scattered:
            self.scatter()

    def begin(self, step: int) -> None:
        """As the base."""
        self.birth_step.fill_(step)
        self.budget.begin(step)

    def scatter(self) -> None:
        """Measure the units at every watch from now on, not at the first one alone."""
        self.scattered = True
        for watch in self.watches:
            watch.wants = self.wants

    def _centre(self, place: int, mean: Tensor) -> Tensor:
        """Bias-corrected running mean per unit at watch `place`, as it will be after this step."""
        running, weight = self.averages[place + 1], self.upcoming[place + 1]
        if mean.device != running.device:
            running, weight = running.to(mean.device), weight.to(mean.device)
        if running.ndim > 1 or running.numel() > self.units.width:  # a map, be it of one position
            running = running.view(self.units.width, -1).mean(1)
        return torch.lerp(running, mean.to(running.dtype), self.pace) / weight
