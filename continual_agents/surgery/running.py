"""The running state of one layer under continual backprop: utility, means, births, budget."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .companion import Layer
from .finding import Slot, Units
from .moving import moved
from .scratch import Scratch
from .selection import Budget
from .utility import Signals, Utility, magnitude, utility_of


class RunningLayer(Layer):
    """State of one layer: running utility and means, birth step of every unit, budget."""

    def __init__(
        self,
        units: Units,
        scratch: Scratch,
        *,
        rate: float,
        maturity: int,
        decay: float,
        utility: Any,
        birth: Any,
        count_all: bool,
    ) -> None:
        super().__init__(units, birth)
        if not 0 <= decay < 1:
            raise ValueError(f"decay={decay}: the decay of a running mean lies in [0, 1)")
        self.decay, self.scratch = decay, scratch
        self.criterion: Utility = utility_of(utility)
        self.budget = Budget(units.width, rate, maturity, count_all=count_all)
        weight = units.made[0].tensor()
        dtype = weight.dtype if weight.dtype in (torch.float32, torch.float64) else torch.float32
        self.utility = torch.zeros(units.width, dtype=dtype, device=weight.device)
        self.birth_step = torch.zeros(units.width, dtype=torch.int64, device=weight.device)
        wants = frozenset(self.criterion.needs) & {"activity", "deviation", "sensitivity"}
        self.listen(wants, self._centre, scratch)
        self.means = [torch.zeros(w.width * w.reader.block, dtype=dtype, device=weight.device) for w in self.watches]
        self.sized = [False] * len(self.means)
        # of the next step's means, in a tensor of its own: a number that changes would recompile a compiled network
        self.correction = torch.full_like(self.utility, 1 - decay)

    def move(self, device: torch.device) -> None:
        """Follow the network to another device."""
        if self.utility.device != device:
            self.utility, self.birth_step = self.utility.to(device), self.birth_step.to(device)
            self.means = [mean.to(device) for mean in self.means]
            self.correction = self.correction.to(device)

    def fit(self, i: int, mean: Tensor) -> Tensor:
        """Make running mean `i` and this step's alike: conv layers have maps, until their size changes; then one
        number per unit is kept, and the mean is handed over as if it were the same everywhere."""
        running = self.means[i]
        mean = mean.to(running.dtype)
        if running.shape == mean.shape:
            return mean
        if running.ndim == 1 and not self.sized[i]:
            self.means[i] = torch.zeros_like(mean, memory_format=torch.contiguous_format)
        elif running.ndim > 1:
            self.means[i] = running.flatten(1).mean(1)
            mean = mean.flatten(1).mean(1) if mean.ndim > 1 else mean
        else:
            mean = mean.flatten(1).mean(1)
        self.sized[i] = True
        return mean

    def look_ahead(self, step: int) -> None:
        """Prepare the bias correction of the next step's means."""
        if "deviation" in self.criterion.needs:
            age = ((step + 1) - self.birth_step).to(self.utility.dtype)
            torch.pow(self.decay, age, out=self.correction) if self.decay else self.correction.zero_()
            self.correction.neg_().add_(1.0)

    def _centre(self, mean: Tensor) -> Tensor:
        """Bias-corrected running mean per unit, as it will be after this step."""
        if mean.device != self.utility.device:
            self.move(mean.device)
        running = self.means[0]
        if running.numel() > self.units.width:
            running = running.view(self.units.width, -1).mean(1)
        return torch.lerp(running, mean.to(running.dtype), 1 - self.decay) / self.correction

    def _wired(self, slot: Slot) -> Tensor:
        weight = slot.tensor()
        return magnitude(weight, slot.dim, self.scratch.like(weight))

    def signals(self, statistics: dict[str, Tensor], generator: torch.Generator) -> Signals:
        """What the utility asked for."""
        needs = self.criterion.needs
        signals = Signals(*(statistics.get(name) for name in ("activity", "deviation", "sensitivity")))
        if "out" in needs:
            for slots in self.units.read:
                for slot in slots:
                    part = slot.span(self._wired(slot), self.units.width)
                    signals.out = part if signals.out is None else signals.out + part
        if "incoming" in needs:
            for slot in self.units.made:
                if slot.tensor().ndim > 1:
                    part = slot.span(self._wired(slot), self.units.width)
                    signals.incoming = part if signals.incoming is None else signals.incoming + part
        if "noise" in needs:
            noise = torch.rand(self.units.width, generator=generator, device=generator.device, dtype=self.utility.dtype)
            signals.noise = moved(noise, self.utility)
        return signals
