"""The running averages of several layers in one piece of memory, followed step by step."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from . import kernels
from .finding import Slot
from .quiet_step import QuietStep
from .row import Row, Wire, total
from .running_layer import MEASURED, RunningLayer
from .selection import mature_
from .utility import Signals, finite


class Running:
    """The averages of layers that share device, type, decay, utility and maturity, in one piece of memory.

    On vectors of a layer's width a call costs several times its arithmetic, so what happens at every step happens to
    all these layers at once, and everything that one step tells is written where the next operation wants it: watches
    reduce into a row, and one call moves averages and weights towards it. Where a utility follows from means and
    weights alone, on a CPU with a C compiler, all of it is one call.

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
        self._library = kernels.library_for((self.state, self.judged))
        self.judged_scores = self.judged[:units]
        self.mean, self.mean_weight = self.state[units : 2 * units], self.upcoming[units : 2 * units]

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
        self.row = Row(self.state.new_ones(len(self.state)), widths, shapes, self.wires)  # weights move towards 1
        for watch, place in zip(self.watches, self.row.places, strict=True):
            watch.settle()
            watch.in_place = False  # what it holds stands elsewhere
            watch.aim(place)
        self._prepare()
        self.look_ahead()

    def _prepare(self) -> None:
        """Get quiet steps ready, where C can take them."""
        self._quiet: QuietStep | None = None
        if self.ready and self.criterion.product:
            self._quiet = QuietStep.of(self.state, self.row, activity="activity" in self.needs, pace=self.pace)
        self._in_c = self._quiet is not None

    def _step_in_c(self, samples: int) -> bool:
        """Take a quiet step there; False: it cannot be done."""
        if self._quiet is not None and self._quiet(samples):
            return True
        if self._in_c:  # weights have moved, or this is a copy, which prepares its own
            self._prepare()
        return self._quiet is not None and self._quiet(samples)

    def look_ahead(self) -> None:
        """Prepare the weights of the next step's means, for deviations from them."""
        if "deviation" in self.needs:
            torch.lerp(self.weights, self.row.fresh[-len(self.weights) :], self.pace, out=self.upcoming)

    def follow(self, generator: torch.Generator) -> bool:
        """Take in what the watches recorded in this step; False: they recorded nothing."""
        in_place = self.simple and all(watch.in_place for watch in self.watches)
        if in_place and self.ready:
            self._follow_quietly()
            return True
        with torch.no_grad():
            return self._follow_records(generator, in_place)

    def _follow_records(self, generator: torch.Generator, in_place: bool) -> bool:
        """As `follow`, where a utility needs more than means and weights, or passes were several or other ones."""
        row = self.row
        if in_place and all(watch.lone for watch in self.watches[: len(self.layers)]):
            signals = self._of_lone(row)
            for watch in self.watches:
                watch.clear()
            self._move(row, self.criterion.score(signals))
            return True
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

    def _follow_quietly(self) -> None:
        """Where means and weights tell all."""
        dues = [watch.due for watch in self.watches]
        samples = dues[0]
        if dues.count(samples) < len(dues):
            samples = 0
            for watch in self.watches:
                watch.settle()
        for watch in self.watches:
            watch.clear()
        if self._step_in_c(samples):
            return
        row = self.row
        with torch.no_grad():
            for wires, place in row.wired:
                total(wires, place)
            if samples:
                row.means.div_(samples)
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
        layers = [layer for layer in self.layers if layer in wanted]
        maturity = self.layers[0].budget.maturity
        if not layers or not self.even:
            corrected = {layer: layer.corrected() for layer in layers}
            return {
                layer: (mature_(utility, layer.birth_step, step, maturity), means)
                for layer, (utility, *means) in corrected.items()
            }
        if self._library is not None:
            born = (self.births.data_ptr(), len(self.births), step - maturity)
            self._library.judge(self.state.data_ptr(), len(self.judged), *born, self.judged.data_ptr())
        else:
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
        signals, row = Signals(), self.row
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
    return [Wire(slot, layer.units.width) for slot in slots]


def _join(own: Sequence[tuple[list[Tensor], int]], device: torch.device) -> Tensor:
    """One tensor with these tensors side by side, each replaced in its list by a view of its part."""
    parts = [where[i] for where, i in own]
    flat = torch.cat([part.reshape(-1).to(device) for part in parts])
    for (where, i), part, view in zip(own, parts, flat.split([part.numel() for part in parts]), strict=True):
        where[i] = view.view(part.shape)
    return flat
