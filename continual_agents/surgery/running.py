"""The running averages of several layers in one piece of memory, followed step by step."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .finding import Slot
from .running_layer import MEASURED, RunningLayer
from .selection import mature
from .utility import CHUNK, Signals, finite, magnitude


class Running:
    """The averages of layers that share device, type, decay, utility and maturity, in one piece of memory.

    On vectors of a layer's width a call costs several times its arithmetic, so what happens at every step happens to
    all these layers at once, and everything that one step tells is written where the next operation wants it: watches
    reduce into `fresh`, and one call moves averages and weights towards it.

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
            key = (layer.device, layer.utility.dtype, layer.pace, id(layer.criterion), layer.budget.maturity, alone)
            groups.setdefault(key, []).append(layer)
        return [Running(group) for group in groups.values()]

    def arrange(self) -> None:
        """Put the layers' averages side by side, on the device where the layers are: all utilities, the means of all
        first watches, the others; behind them their weights."""
        layers, self.device = self.layers, self.layers[0].device
        heard = [(k, i) for k, layer in enumerate(layers) for i in range(len(layer.watches))]
        self.heard = sorted(heard, key=lambda place: place[1] > 0)
        places = [(k, 0) for k in range(len(layers))] + [(k, i + 1) for k, i in self.heard]
        averages = [(layers[k].averages, i) for k, i in places]
        self.state = _join([*averages, *((layers[k].weights, i) for k, i in places)], self.device)
        self.upcoming = _join([(layers[k].upcoming, i) for k, i in places], self.device)
        births = [[layer.birth_step] for layer in layers]
        self.births = _join([(own, 0) for own in births], self.device)
        for layer, own in zip(layers, births, strict=True):
            layer.birth_step = own[0]

        widths = [layer.units.width for layer in layers]
        units, total = sum(widths), len(self.state) - len(self.upcoming)
        plain = len(self.state) == 4 * units and len(places) == 2 * len(layers)
        tables = self.state.view(4, units).split(widths, 1) if plain else (None,) * len(layers)
        for layer, table in zip(layers, tables, strict=True):
            layer.table = table
        self.averages, self.weights = self.state[:total], self.state[total:]
        self.sizes = [layers[k].averages[i].numel() for k, i in places]
        self.owned = [[j for j, (k, _) in enumerate(places) if k == own] for own in range(len(layers))]
        self.fresh = torch.ones_like(self.state)  # what the weights move towards stays 1
        self.scores, self.means, self.values = self.fresh[:units], self.fresh[units:total], self.fresh[:total]
        self.watches = [layers[k].watches[i] for k, i in self.heard]
        shapes = [layers[k].averages[i + 1].shape for k, i in self.heard]
        pieces = self.means.split([shape.numel() for shape in shapes])
        self.places = [piece.view(shape) for piece, shape in zip(pieces, shapes, strict=True)]
        for watch, place in zip(self.watches, self.places, strict=True):
            watch.place = place
        first = zip(self.watches[: len(layers)], shapes[: len(layers)], strict=True)
        flat = all(shape == (watch.width,) for watch, shape in first)
        loud = flat and all(watch.reader.positive for watch in self.watches[: len(layers)])
        self.activity = self.means[:units] if loud else None  # where |h| is h and its mean one number a unit

        slots = [s for layer in layers for part in (*layer.units.read, layer.units.made) for s in part]
        layers[0].scratch.like(max((s.tensor() for s in slots), key=torch.Tensor.numel))  # smaller ones share it
        self.wires = {
            "out": [[Wire(s, layer) for slots in layer.units.read for s in slots] for layer in layers],
            "incoming": [[Wire(s, layer) for s in layer.units.made if s.tensor().ndim > 1] for layer in layers],
        }
        self.sums = {name: torch.empty_like(self.scores) for name in self.wires if name in self.needs}
        self.sum_of = {name: total.split(widths) for name, total in self.sums.items()}
        # where a step tells nothing but means and weights, what the utility looks at is always the same memory
        derived = {"activity", "deviation", *self.sums}
        simple = flat and derived.issuperset(self.needs) and not any(layer.scattered for layer in layers)
        self.signals = Signals(activity=self.activity, **self.sums) if simple else None
        self.ready = "deviation" not in self.needs and ("activity" not in self.needs or loud)
        self.mean, self.mean_weight = self.state[units : 2 * units], self.upcoming[units : 2 * units]
        self.wired = [(w, p) for n in self.sums for w, p in zip(self.wires[n], self.sum_of[n], strict=True)]
        self.look_ahead()

    def look_ahead(self) -> None:
        """Prepare the weights of the next step's means, for deviations from them."""
        if "deviation" in self.needs:
            torch.lerp(self.weights, self.fresh[-len(self.weights) :], self.pace, out=self.upcoming)

    def follow(self, generator: torch.Generator) -> bool:
        """Move every average towards what the watches recorded in this step; False: they recorded nothing."""
        if self.signals is not None and all(watch.in_place for watch in self.watches):
            self._divide()
            if self.ready or self._judge_lone(self.signals):
                for watch in self.watches:
                    watch.clear()
                for wires, place in self.wired:
                    _total(wires, place)
                self._move(self.criterion.score(self.signals))
                return True
        records = [watch.take() for watch in self.watches]
        for record, place in zip(records, self.places, strict=True):
            if record is None or record["mean"].shape != place.shape or record["mean"].device != self.device:
                return self._follow_some(records, generator)
        if any(layer.scattered for layer in self.layers) or not all(map(self._complete, records[: len(self.layers)])):
            return self._follow_some(records, generator)
        for record, place in zip(records, self.places, strict=True):
            if record["mean"] is not place:  # type: ignore[index]  # of several passes, or of a compiled one
                place.copy_(record["mean"])  # type: ignore[index]
        score = self._score(range(len(self.layers)), records, generator, self.activity)  # type: ignore[arg-type]
        self._move(score)
        return True

    def _divide(self) -> None:
        """Make means of the sums that the watches left, all at once where they saw as many samples."""
        due = self.watches[0].due
        if due and all(watch.due == due for watch in self.watches):
            self.means.div_(due)
            for watch in self.watches:
                watch.due = 0
        else:
            for watch in self.watches:
                if watch.due:
                    watch.settle()

    def _judge_lone(self, signals: Signals) -> bool:
        """What a single sample says of all units at once; False: some layer saw several."""
        if not all(watch.lone for watch in self.watches[: len(self.layers)]):
            return False
        means = self.means[: len(self.scores)]
        if "activity" in self.needs and self.activity is None:
            signals.activity = means.abs()
        if "deviation" in self.needs:
            centre = torch.lerp(self.mean, means, self.pace) / self.mean_weight
            signals.deviation = torch.sub(means, centre).abs_()
        return True

    def standings(
        self, step: int, wanted: Collection[RunningLayer]
    ) -> dict[RunningLayer, tuple[Tensor, Sequence[Tensor]]]:
        """Of the layers that are wanted: bias-corrected utilities [width], infinite where a unit is too young to go,
        and the bias-corrected mean of every watch."""
        layers = [layer for layer in self.layers if layer in wanted]
        maturity = self.layers[0].budget.maturity
        if not layers or len(self.averages) != len(self.weights):  # maps, or several inputs a unit
            corrected = {layer: layer.corrected() for layer in layers}
            return {
                layer: (mature(utility, layer.birth_step, step, maturity), means)
                for layer, (utility, *means) in corrected.items()
            }
        values = finite(self.averages / self.weights)
        scores = mature(values[: len(self.births)], self.births, step, maturity).split(self.sizes[: len(self.layers)])
        pieces = values.split(self.sizes)
        return {
            layer: (score, [pieces[j] for j in own[1:]])
            for layer, score, own in zip(self.layers, scores, self.owned, strict=True)
        }

    def _move(self, score: Tensor) -> None:
        """Every average towards `fresh`, where the means stand already."""
        self.scores.copy_(score)
        finite(self.values)
        self.state.lerp_(self.fresh, self.pace)
        self.look_ahead()

    def _follow_some(self, records: Sequence[dict[str, Tensor] | None], generator: torch.Generator) -> bool:
        """As `follow`, where some watches saw no pass or means of another shape: what was not seen stays as it is."""
        if not any(records):
            return False
        means = [None if record is None else record["mean"] for record in records]
        for j, ((k, i), mean) in enumerate(zip(self.heard, means, strict=True)):
            if mean is not None and mean.shape != self.places[j].shape:
                means[j] = self.layers[k].refit(i, mean)
        self.arrange()
        own: list[list[dict[str, Tensor] | None]] = [[None] * len(layer.watches) for layer in self.layers]
        for (k, i), record in zip(self.heard, records, strict=True):
            own[k][i] = record
        measured = [layer.measured(parts) for layer, parts in zip(self.layers, own, strict=True)]
        if any(layer.scattered for layer in self.layers):
            self.signals = None
        which = [k for k, signals in enumerate(measured) if signals is not None]
        score = [self._score(which, [measured[k] for k in which], generator)] if which else []  # type: ignore[misc]
        fresh = torch.cat([*score, *(mean.reshape(-1) for mean in means if mean is not None)])
        fresh = finite(fresh.to(self.state.dtype))
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

    def _score(
        self,
        which: Sequence[int],
        measured: Sequence[Mapping[str, Tensor]],
        generator: torch.Generator,
        activity: Tensor | None = None,
    ) -> Tensor:
        """The utility of all units of these layers; `activity`: known already, for all of them in one."""
        signals = Signals()
        for name in self.needs:
            if name == "activity" and activity is not None:
                signals.activity = activity
                continue
            if name in MEASURED:
                parts = [record[name] for record in measured[: len(which)]]
            elif name == "noise":
                parts = [self.layers[k].noise(generator) for k in which]
            else:
                parts = [_total(self.wires[name][k], self.sum_of[name][k]) for k in which]
                if len(parts) == len(self.layers):
                    parts = [self.sums[name]]
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

    def into(self, place: Tensor) -> Tensor:
        """The sum [width], in the memory given."""
        weight = self.slot.tensor()
        if self.other is not None and self.whole and weight.dtype == place.dtype == self.scratch.dtype:
            if weight.device.type != "cpu":  # as `absolute_sum`
                return torch.linalg.vector_norm(weight, 1, self.other, out=place)
            return torch.sum(torch.abs(weight, out=self.scratch), self.other, out=place)
        return place.copy_(self())

    def __call__(self) -> Tensor:
        """The sum [width]."""
        weight = self.slot.tensor()
        if weight.dtype != self.scratch.dtype:  # net.double() leaves the device as it is
            self.scratch = torch.empty_like(weight, requires_grad=False)
        total = magnitude(weight, self.slot.dim, self.scratch)
        return total if self.whole else self.slot.span(total, self.width)


def _total(wires: Sequence[Wire], place: Tensor) -> Tensor:
    wires[0].into(place)
    for wire in wires[1:]:
        place += wire()
    return place


def _join(own: Sequence[tuple[list[Tensor], int]], device: torch.device) -> Tensor:
    """One tensor with these tensors side by side, each replaced in its list by a view of its part."""
    parts = [where[i] for where, i in own]
    flat = torch.cat([part.reshape(-1).to(device) for part in parts])
    for (where, i), part, view in zip(own, parts, flat.split([part.numel() for part in parts]), strict=True):
        where[i] = view.view(part.shape)
    return flat
