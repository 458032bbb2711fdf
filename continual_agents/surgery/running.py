"""The running averages of several layers in one piece of memory, followed step by step."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .finding import Slot
from .row import Row, Wire, total
from .running_layer import MEASURED, RunningLayer
from .selection import mature_
from .utility import Signals, finite

PUT_OFF = 16
"""Steps whose numbers wait for the averages, where nobody asks for these before."""


class Running:
    """The averages of layers that share device, type, decay, utility and maturity, in one piece of memory.

    On vectors of a layer's width a call costs several times its arithmetic, so what happens at every step happens to
    all these layers at once, and everything that one step tells is written where the next operation wants it: watches
    reduce into a row of `fresh`, and one call moves averages and weights towards it. Where a utility follows from means
    and weights alone, on a CPU, rows of several steps wait: the first call of a kind takes as long as the next three.

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
        units, size = sum(widths), len(self.state) - len(self.upcoming)
        plain = len(self.state) == 4 * units and len(places) == 2 * len(layers)
        tables = self.state.view(4, units).split(widths, 1) if plain else (None,) * len(layers)
        for layer, table in zip(layers, tables, strict=True):
            layer.table = table
        self.averages, self.weights = self.state[:size], self.state[size:]
        self.even = size == len(self.upcoming)  # neither maps nor several inputs a unit
        self.judged = torch.empty_like(self.averages)  # what standings are told from
        pieces = self.judged.split([layers[k].averages[i].numel() for k, i in places])
        self.standing = [
            [p for p, (k, _) in zip(pieces, places, strict=True) if k == own] for own in range(len(layers))
        ]
        self.judged_scores = self.judged[:units]
        self.mean, self.mean_weight = self.state[units : 2 * units], self.upcoming[units : 2 * units]

        slots = [s for layer in layers for part in (*layer.units.read, layer.units.made) for s in part]
        layers[0].scratch.like(max((s.tensor() for s in slots), key=torch.Tensor.numel))  # smaller ones share it
        wires = {
            "out": [_wires(layer, (s for slots in layer.units.read for s in slots)) for layer in layers],
            "incoming": [_wires(layer, (s for s in layer.units.made if s.tensor().ndim > 1)) for layer in layers],
        }
        self.wires = {name: own for name, own in wires.items() if name in self.needs}
        self.watches = [layers[k].watches[i] for k, i in self.heard]
        shapes = [layers[k].averages[i + 1].shape for k, i in self.heard]
        first = zip(self.watches[: len(layers)], shapes[: len(layers)], strict=True)
        flat = all(shape == (watch.width,) for watch, shape in first)
        # where |h| is h, and its mean one number a unit
        self.loud = flat and all(watch.reader.positive for watch in self.watches[: len(layers)])
        scattered = any(layer.scattered for layer in layers)
        self.simple = flat and {"activity", "deviation", *self.wires}.issuperset(self.needs) and not scattered
        self.ready = self.simple and "deviation" not in self.needs and ("activity" not in self.needs or self.loud)
        count = PUT_OFF if self.ready and self.device.type == "cpu" else 1
        fresh = self.state.new_ones(count, len(self.state))  # weights move towards 1
        self.rows = [Row(own, widths, shapes, self.wires) for own in fresh]
        self.waiting = self.at = 0
        for watch in self.watches:
            watch.settle()
            watch.in_place = False  # what it holds stands elsewhere
        self._aim()
        for layer in layers:
            layer.settle = self.settle
        self.look_ahead()

    def _aim(self) -> None:
        """Watches write into the present row."""
        for watch, place in zip(self.watches, self.rows[self.at].places, strict=True):
            watch.place = place

    def look_ahead(self) -> None:
        """Prepare the weights of the next step's means, for deviations from them."""
        if "deviation" in self.needs:
            torch.lerp(self.weights, self.rows[0].fresh[-len(self.weights) :], self.pace, out=self.upcoming)

    def follow(self, generator: torch.Generator) -> bool:
        """Take in what the watches recorded in this step; False: they recorded nothing."""
        row = self.rows[self.at]
        if self.simple and all(watch.in_place for watch in self.watches):
            if self.ready:
                self._note(row)
                return True
            if all(watch.lone for watch in self.watches[: len(self.layers)]):
                signals = self._of_lone(row)
                for watch in self.watches:
                    watch.clear()
                self._move(row, self.criterion.score(signals))
                return True
        self.settle()
        records = [watch.take() for watch in self.watches]
        for record, place in zip(records, row.places, strict=True):
            if record is None or record["mean"].shape != place.shape or record["mean"].device != self.device:
                return self._follow_some(records, generator)
        if any(layer.scattered for layer in self.layers) or not all(map(self._complete, records[: len(self.layers)])):
            return self._follow_some(records, generator)
        for record, place in zip(records, row.places, strict=True):
            if record["mean"] is not place:  # type: ignore[index]  # of several passes, or of a compiled one
                place.copy_(record["mean"])  # type: ignore[index]
        self._move(row, self._score(range(len(self.layers)), records, generator, self.loud))  # type: ignore[arg-type]
        return True

    def _note(self, row: Row) -> None:
        """Leave what this step tells in its row."""
        dues = [watch.due for watch in self.watches]
        even = dues.count(dues[0]) == len(dues)
        row.due = dues[0] if even else 0
        for watch in self.watches:
            if not even:
                watch.settle()
            watch.clear()
        for wires, place in row.wired:
            total(wires, place)
        self.at += 1
        if self.at == len(self.rows):
            self.settle()
            self.waiting = self.at = 0
        if len(self.rows) > 1:
            self._aim()

    def settle(self) -> None:
        """Move the averages through the steps that wait."""
        first, self.waiting = self.waiting, self.at
        for row in self.rows[first : self.at]:
            if row.due:
                row.means.div_(row.due)
            self._move(row, self.criterion.score(Signals(activity=row.activity if self.loud else None, **row.sums)))

    def _of_lone(self, row: Row) -> Signals:
        """What a single sample says of all units at once."""
        for wires, place in row.wired:
            total(wires, place)
        signals = Signals(**row.sums)
        if "activity" in self.needs:
            signals.activity = row.activity if self.loud else row.activity.abs()
        if "deviation" in self.needs:
            centre = torch.lerp(self.mean, row.activity, self.pace) / self.mean_weight
            signals.deviation = torch.sub(row.activity, centre).abs_()
        return signals

    def standings(
        self, step: int, wanted: Collection[RunningLayer]
    ) -> dict[RunningLayer, tuple[Tensor, Sequence[Tensor]]]:
        """Of the layers that are wanted: bias-corrected utilities [width], infinite where a unit is too young to go,
        and the bias-corrected mean of every watch."""
        self.settle()
        layers = [layer for layer in self.layers if layer in wanted]
        maturity = self.layers[0].budget.maturity
        if not layers or not self.even:
            corrected = {layer: layer.corrected() for layer in layers}
            return {
                layer: (mature_(utility, layer.birth_step, step, maturity), means)
                for layer, (utility, *means) in corrected.items()
            }
        finite(torch.div(self.averages, self.weights, out=self.judged))
        mature_(self.judged_scores, self.births, step, maturity)
        return {layer: (own[0], own[1:]) for layer, own in zip(self.layers, self.standing, strict=True)}

    def _move(self, row: Row, score: Tensor) -> None:
        """Every average towards `row`, where the means stand already."""
        row.scores.copy_(score)
        finite(row.values)
        self.state.lerp_(row.fresh, self.pace)
        self.look_ahead()

    def _follow_some(self, records: Sequence[dict[str, Tensor] | None], generator: torch.Generator) -> bool:
        """As `follow`, where some watches saw no pass or means of another shape: what was not seen stays as it is."""
        if not any(records):
            return False
        means = [None if record is None else record["mean"] for record in records]
        for j, ((k, i), mean) in enumerate(zip(self.heard, means, strict=True)):
            if mean is not None and mean.shape != self.layers[k].averages[i + 1].shape:
                means[j] = self.layers[k].refit(i, mean)
        self.arrange()
        own: list[list[dict[str, Tensor] | None]] = [[None] * len(layer.watches) for layer in self.layers]
        for (k, i), record in zip(self.heard, records, strict=True):
            own[k][i] = record
        measured = [layer.measured(parts) for layer, parts in zip(self.layers, own, strict=True)]
        self.simple = self.simple and not any(layer.scattered for layer in self.layers)
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
        loud: bool = False,
    ) -> Tensor:
        """The utility of all units of these layers; `loud`: the activity is their mean, for all of them in one."""
        signals, row = Signals(), self.rows[self.at]
        for name in self.needs:
            if name == "activity" and loud:
                signals.activity = row.activity
                continue
            if name in MEASURED:
                parts = [record[name] for record in measured[: len(which)]]
            elif name == "noise":
                parts = [self.layers[k].noise(generator) for k in which]
            else:
                parts = [total(self.wires[name][k], row.sum_of[name][k]) for k in which]
                if len(parts) == len(self.layers):
                    parts = [row.sums[name]]
            setattr(signals, name, parts[0] if len(parts) == 1 else torch.cat(parts))
        return self.criterion.score(signals)


def _wires(layer: RunningLayer, slots: Iterable[Slot]) -> list[Wire]:
    return [Wire(slot, layer.units.width, layer.scratch) for slot in slots]


def _join(own: Sequence[tuple[list[Tensor], int]], device: torch.device) -> Tensor:
    """One tensor with these tensors side by side, each replaced in its list by a view of its part."""
    parts = [where[i] for where, i in own]
    flat = torch.cat([part.reshape(-1).to(device) for part in parts])
    for (where, i), part, view in zip(own, parts, flat.split([part.numel() for part in parts]), strict=True):
        where[i] = view.view(part.shape)
    return flat
