"""The running state of layers under continual backprop: utilities, means, births and budgets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .companion import Layer
from .finding import Slot, Units
from .moving import moved
from .scratch import Scratch
from .selection import Budget
from .utility import CHUNK, Signals, Utility, finite, magnitude, utility_of
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
        self.birth_step = torch.zeros(units.width, dtype=torch.int64, device=weight.device)
        self.mapped = [False] * len(self.watches)  # whether the first mean has told the shape

    @property
    def utility(self) -> Tensor:
        """Running utility [width], not yet divided by its weight."""
        return self.averages[0]

    def corrected(self) -> list[Tensor]:
        """The averages divided by their weights: utility, then means. 0 where a unit was not seen since its birth."""
        width = self.units.width
        return [
            finite(average.view(width, -1) / weight[:, None]).view(average.shape)
            for average, weight in zip(self.averages, self.weights, strict=True)
        ]

    def restart(self, index: Tensor, step: int) -> None:
        """These units are born at `step`: nothing is known about them."""
        self.birth_step.index_fill_(0, index, step)
        for known in (*self.averages, *self.weights):
            known.view(self.units.width, -1).index_fill_(0, index, 0.0)
        if "deviation" in self.wants:
            for weight in self.upcoming:
                weight.index_fill_(0, index, self.pace)

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
        if running.numel() > self.units.width:
            running = running.view(self.units.width, -1).mean(1)
        return torch.lerp(running, mean.to(running.dtype), self.pace) / weight


class Running:
    """The averages of layers that share device, type, decay and utility, in one piece of memory.

    On vectors of a layer's width a call costs several times its arithmetic, so what happens at every step happens to
    all these layers at once.

    Args:
        layers: their averages, weights and upcoming become views of this memory.
    """

    def __init__(self, layers: Sequence[RunningLayer]) -> None:
        self.layers, self.criterion, self.pace = list(layers), layers[0].criterion, layers[0].pace
        self.needs = tuple(self.criterion.needs)
        self.arrange()

    @staticmethod
    def of(layers: Sequence[RunningLayer]) -> list[Running]:
        """As few as there can be. A utility of the user's own may look at its layer as a whole: it gets one alone."""
        groups: dict[Any, list[RunningLayer]] = {}
        for i, layer in enumerate(layers):
            alone = None if layer.criterion.elementwise else i
            key = (layer.device, layer.utility.dtype, layer.pace, id(layer.criterion), alone)
            groups.setdefault(key, []).append(layer)
        return [Running(group) for group in groups.values()]

    def arrange(self) -> None:
        """Put the layers' averages side by side, on the device where the layers are: all utilities, the means of all
        first watches, the others."""
        self.device = self.layers[0].device
        places = [(k, 0) for k in range(len(self.layers))]
        self.heard = [(k, i) for k, layer in enumerate(self.layers) for i in range(len(layer.watches))]
        self.heard.sort(key=lambda place: place[1] > 0)
        places += [(k, i + 1) for k, i in self.heard]
        self.averages = _join([layer.averages for layer in self.layers], places, self.device)
        self.weights = _join([layer.weights for layer in self.layers], places, self.device)
        self.upcoming = _join([layer.upcoming for layer in self.layers], places, self.device)
        self.ones = torch.ones_like(self.weights)
        for layer in self.layers:
            layer.birth_step = layer.birth_step.to(self.device)
        self.watches = [self.layers[k].watches[i] for k, i in self.heard]
        self.shapes = [self.layers[k].averages[i + 1].shape for k, i in self.heard]
        slots = [s for layer in self.layers for part in (*layer.units.read, layer.units.made) for s in part]
        self.layers[0].scratch.like(max((s.tensor() for s in slots), key=torch.Tensor.numel))  # smaller ones share it
        self.wires = {
            "out": [[Wire(s, layer) for slots in layer.units.read for s in slots] for layer in self.layers],
            "incoming": [[Wire(s, layer) for s in layer.units.made if s.tensor().ndim > 1] for layer in self.layers],
        }
        self.look_ahead()

    def look_ahead(self) -> None:
        """Prepare the weights of the next step's means, for deviations from them."""
        if "deviation" in self.needs:
            torch.lerp(self.weights, self.ones, self.pace, out=self.upcoming)

    def follow(self, generator: torch.Generator) -> bool:
        """Move every average towards what the watches recorded in this step; False: they recorded nothing."""
        records = [watch.take() for watch in self.watches]
        for record, shape in zip(records, self.shapes, strict=True):
            if record is None or record["mean"].shape != shape or record["mean"].device != self.device:
                return self._follow_some(records, generator)
        if any(layer.scattered for layer in self.layers) or not all(map(self._complete, records[: len(self.layers)])):
            return self._follow_some(records, generator)
        score = self._score(range(len(self.layers)), records, generator)  # type: ignore[arg-type]
        fresh = torch.cat([score, *(record["mean"].reshape(-1) for record in records)])  # type: ignore[index]
        self.averages.lerp_(self._finite(fresh), self.pace)
        self.weights.lerp_(self.ones, self.pace)
        self.look_ahead()
        return True

    def _follow_some(self, records: Sequence[dict[str, Tensor] | None], generator: torch.Generator) -> bool:
        """As `follow`, where some watches saw no pass or means of another shape: what was not seen stays as it is."""
        if not any(records):
            return False
        means = [None if record is None else record["mean"] for record in records]
        for j, ((k, i), mean) in enumerate(zip(self.heard, means, strict=True)):
            if mean is not None and mean.shape != self.shapes[j]:
                means[j] = self.layers[k].refit(i, mean)
        self.arrange()
        own: list[list[dict[str, Tensor] | None]] = [[None] * len(layer.watches) for layer in self.layers]
        for (k, i), record in zip(self.heard, records, strict=True):
            own[k][i] = record
        measured = [layer.measured(parts) for layer, parts in zip(self.layers, own, strict=True)]
        which = [k for k, signals in enumerate(measured) if signals is not None]
        score = [self._score(which, [measured[k] for k in which], generator)] if which else []  # type: ignore[misc]
        fresh = self._finite(torch.cat([*score, *(mean.reshape(-1) for mean in means if mean is not None)]))
        seen = [(self.layers[k], 0) for k in which]
        seen += [(self.layers[k], i + 1) for (k, i), mean in zip(self.heard, means, strict=True) if mean is not None]
        pieces = fresh.split([layer.averages[i].numel() for layer, i in seen])
        for (layer, i), piece in zip(seen, pieces, strict=True):
            layer.averages[i].lerp_(piece.view(layer.averages[i].shape), self.pace)
            layer.weights[i].lerp_(torch.ones_like(layer.weights[i]), self.pace)
        self.look_ahead()
        return True

    def _complete(self, record: Mapping[str, Tensor] | None) -> bool:
        """Whether the gradient has come that a utility may need: it is recorded apart from the others."""
        return "sensitivity" not in self.needs or "sensitivity" in (record or ())

    def _finite(self, fresh: Tensor) -> Tensor:
        return finite(fresh if fresh.dtype == self.averages.dtype else fresh.to(self.averages.dtype))

    def _score(
        self, which: Sequence[int], measured: Sequence[Mapping[str, Tensor]], generator: torch.Generator
    ) -> Tensor:
        """The utility of all units of these layers."""
        signals = Signals()
        for name in self.needs:
            if name in MEASURED:
                parts = [record[name] for record in measured[: len(which)]]
            elif name == "noise":
                parts = [self.layers[k].noise(generator) for k in which]
            else:
                parts = [_total(self.wires[name][k]) for k in which]
            setattr(signals, name, parts[0] if len(parts) == 1 else torch.cat(parts))
        return self.criterion.score(signals)


class Wire:
    """The sum of |w| over one slot's entries of each unit, with everything but the sum prepared."""

    def __init__(self, slot: Slot, layer: RunningLayer) -> None:
        weight = slot.tensor()
        self.slot, self.width = slot, layer.units.width
        self.scratch = layer.scratch.like(weight)
        # a plain matrix of moderate size, all of it: two calls
        self.other = 1 - slot.dim % weight.ndim if weight.ndim == 2 and weight.numel() < 4 * CHUNK else None
        self.whole = slot.repeat == 1 and weight.shape[slot.dim] == self.width

    def __call__(self) -> Tensor:
        """The sum [width]."""
        weight = self.slot.tensor()
        if weight.dtype != self.scratch.dtype:  # net.double() leaves the device as it is
            self.scratch = torch.empty_like(weight, requires_grad=False)
        if self.other is not None:
            total = torch.abs(weight, out=self.scratch).sum(self.other)
        else:
            total = magnitude(weight, self.slot.dim, self.scratch)
        return total if self.whole else self.slot.span(total, self.width)


def _total(wires: Sequence[Wire]) -> Tensor:
    total = wires[0]()
    for wire in wires[1:]:
        total = total + wire()
    return total


def _join(own: Sequence[list[Tensor]], places: Sequence[tuple[int, int]], device: torch.device) -> Tensor:
    """One tensor with these tensors side by side in the order of `places`, each replaced by a view of its part."""
    parts = [own[k][i] for k, i in places]
    flat = torch.cat([part.reshape(-1).to(device) for part in parts])
    for (k, i), part, view in zip(places, parts, flat.split([part.numel() for part in parts]), strict=True):
        own[k][i] = view.view(part.shape)
    return flat
