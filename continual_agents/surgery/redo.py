"""ReDo: every so many steps, units that are dormant by a threshold are renewed (Sokar et al. 2023)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from .companion import Companion, Layer, per_layer_settings
from .finding import Units
from .generator import Draw
from .replace import Job
from .selection import dormant
from .utility import dormancy
from .watch import Watch


class _Layer(Layer):
    def __init__(self, units: Units, threshold: float) -> None:
        super().__init__(units)
        if not 0 <= threshold < 1:
            raise ValueError(f"threshold={threshold}: a fraction of the layer's mean activity lies in [0, 1)")
        self.threshold = threshold
        self.dormant = 0.0
        first = min(units.outgoing, key=lambda r: not r.recurrent)
        self.watches = [Watch(first, units.width, frozenset({"activity"}))]


class ReDo(Companion):
    """Recycle dormant neurons (Sokar et al., ICML 2023).

    Every `period` optimizer steps, a unit whose score `mean|h| / mean over the layer of mean|h|`, on the training
    passes of that step, is at most `threshold` gets new in-weights and zero out-weights. A dormant unit has next to no
    mean contribution to hand over; with `transfer=True` what there is is handed over.

    Args:
        units, optimizer, birth, bias, generator, layers, keep_optimizer_state, distributed: as in
            `ContinualBackprop`.
        threshold: tau, in [0, 1).
        period: optimizer steps between two looks. Only these steps wait for the device.
        transfer: hand removed units' mean contribution (of this step) to their readers' biases.

    Example:
        >>> redo = ReDo(surgery.find(net), optimizer, threshold=0.1, period=100)
    """

    layers: list[_Layer]  # type: ignore[assignment]

    def __init__(
        self,
        units: Units | Iterable[Units],
        optimizer: Optimizer | Sequence[Optimizer],
        *,
        threshold: float = 0.1,
        period: int = 100,
        birth: str | Draw = "default",
        bias: str = "zero",
        generator: torch.Generator | None = None,
        layers: Mapping[str, Mapping[str, Any]] | None = None,
        transfer: bool = True,
        keep_optimizer_state: bool = False,
        distributed: bool = True,
    ) -> None:
        super().__init__(
            units,
            optimizer,
            generator=generator,
            birth=birth,
            bias=bias,
            transfer=transfer,
            keep_optimizer_state=keep_optimizer_state,
            distributed=distributed,
        )
        with self._undone_on_error():
            if period < 1:
                raise ValueError(f"period={period}: a number of optimizer steps is at least 1")
        self.period = period
        with self._undone_on_error():
            settings = per_layer_settings(self.units, {"threshold": threshold}, layers)
        with self._undone_on_error():
            for u, s in zip(self.units, settings, strict=True):
                self.layers.append(_Layer(u, **s))
        self._listen()

    def _listen(self) -> None:
        """Record only the passes of the step at whose end there is a look."""
        for layer in self.layers:
            for watch in layer.watches:
                watch.active = (self.steps + 1) % self.period == 0

    def _after_step(self) -> list[tuple[_Layer, Job]]:
        jobs = []
        if self.steps % self.period == 0:
            records = [layer.watches[0].take() for layer in self.layers]
            if not any(records):
                raise self._seen_nothing()
            for layer, record in zip(self.layers, records, strict=True):
                if record is None:
                    continue
                self._agree(list(record.values()))
                index = dormant(dormancy(record["activity"]), layer.threshold).nonzero().flatten()
                layer.dormant = len(index) / layer.units.width
                layer.replaced += len(index)
                if len(index):
                    same = [r.source == layer.watches[0].reader.source for r in layer.units.outgoing]
                    means = [record["mean"] if known else None for known in same] if self.transfer else []
                    jobs.append((layer, Job(layer.units, index, means, self.birth)))
        self._listen()
        return jobs

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to continue exactly."""
        layers = {
            layer.units.name: {"width": layer.units.width, "replaced": layer.replaced, "dormant": layer.dormant}
            for layer in self.layers
        }
        return {"steps": self.steps, "generator": self.generator.get_state(), "layers": layers}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict()`.

        Raises:
            ValueError: the state is of other layers.
        """
        self._same_layers({name: part["width"] for name, part in state["layers"].items()})
        self.steps = int(state["steps"])
        self.generator.set_state(state["generator"].cpu())
        for layer in self.layers:
            part = state["layers"][layer.units.name]
            layer.replaced, layer.dormant = int(part["replaced"]), float(part["dormant"])
        self._listen()

    def report(self) -> dict[str, float]:
        """Per layer: units replaced so far, fraction dormant at the last look, steps until the next one."""
        numbers: dict[str, float] = {}
        for layer in self.layers:
            numbers[f"replaced/{layer.units.name}"] = float(layer.replaced)
            numbers[f"dormant/{layer.units.name}"] = layer.dormant
            numbers[f"next_replacement_in/{layer.units.name}"] = float(self.period - self.steps % self.period)
        return numbers

    def histograms(self) -> dict[str, Tensor]:
        """Nothing is kept between looks."""
        return {}
