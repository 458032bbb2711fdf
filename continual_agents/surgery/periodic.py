"""What looks at units every so many steps shares: sums over all training passes since the last look."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from .companion import Companion
from .finding import Units
from .layer import Layer
from .replace import Renewal
from .replacement import Replacement


class PeriodicLayer(Layer):
    """The units of one layer and, per watch, sums of its statistics weighted by samples, since the last look."""

    def __init__(self, units: Units, birth: Any, wants: frozenset[str]) -> None:
        super().__init__(units, birth)
        self.listen(wants)
        self.restart()

    def restart(self) -> None:
        """Forget the passes so far."""
        self.sums: list[dict[str, Tensor]] = [{} for _ in self.watches]
        self.samples = [0] * len(self.watches)

    def gather(self) -> list[dict[str, Tensor] | None]:
        """Add what the watches recorded in this step; returns it."""
        records = self.take()
        for i, (watch, record) in enumerate(zip(self.watches, records, strict=True)):
            for name, value in (record or {}).items():
                self._add(self.sums[i], name, value * watch.samples)
            self.samples[i] += watch.samples if record else 0
        return records

    @staticmethod
    def _add(sums: dict[str, Tensor], name: str, value: Tensor) -> None:
        known = sums.get(name)
        if known is None:
            sums[name] = value
            return
        if known.shape != value.shape:  # mean maps of different sizes: only the units are common
            known, value = (one.flatten(1).mean(1) if one.ndim > 1 else one for one in (known, value))
        sums[name] = known.to(value.device) + value

    def average(self, name: str, i: int = 0) -> Tensor | None:
        """Mean of a statistic over all passes since the last look; None: watch `i` saw none."""
        return self.sums[i][name] / self.samples[i] if self.samples[i] else None

    def renewed(self, index: Tensor, transfer: bool) -> Renewal:
        """These units go, and their mean since the last look to the readers."""
        self.replaced += len(index)
        means = [None if i is None else self.average("mean", i) for i in self.heard] if transfer else []
        return self.renewal(index, means)


class Periodic(Companion):
    """Base of companions that look every `period` optimizer steps; only the looks wait for the device.

    Args:
        units, optimizer, settings, layers, distributed: see `Companion`.
        period: optimizer steps between two looks.
        replacement: keyword arguments of `Replacement`.

    Attributes:
        layer_kind: a `PeriodicLayer`, constructor(units, birth, **settings).
        remembers: names of a layer's attributes that a continued run needs besides: numbers or tensors.

    Raises:
        ValueError: a period below 1.
    """

    layers: list[Any]
    layer_kind: type[Any]
    remembers: tuple[str, ...] = ()

    def __init__(
        self,
        units: Units | Iterable[Units],
        optimizer: Optimizer | Sequence[Optimizer],
        settings: Mapping[str, Any],
        *,
        period: int,
        layers: Mapping[str, Mapping[str, Any]] | None = None,
        distributed: bool = True,
        **replacement: Any,
    ) -> None:
        if period < 1:
            raise ValueError(f"period={period}: a number of optimizer steps is at least 1")
        self.period = period
        replaced = Replacement.of(type(self).__name__, replacement)
        super().__init__(
            units, optimizer, settings, layers=layers, replacement=replaced, distributed=distributed
        )  # fmt: skip

    def _layer(self, units: Units, **settings: Any) -> Layer:
        return self.layer_kind(units, **settings)  # type: ignore[no-any-return]

    @torch.no_grad()
    def _after_step(self) -> list[tuple[PeriodicLayer, Renewal]]:
        seen = False
        for layer in self.layers:
            records = layer.gather()
            seen |= any(record is not None for record in records)
            self._follow(layer, records)
        if not seen:
            raise self._seen_nothing()
        if self.steps % self.period:
            return []
        self._agree([total for layer in self.layers for sums in layer.sums for total in sums.values()])
        renewals = []
        for layer in self.layers:
            index = self._improper(layer).nonzero().flatten()
            if len(index):
                renewals.append((layer, layer.renewed(index, self.replacement.transfer)))
            layer.restart()
        return renewals

    def _follow(self, layer: Any, records: Sequence[Mapping[str, Tensor] | None]) -> None:
        """What happens at every step."""

    def _improper(self, layer: Any) -> Tensor:
        """bool [width]: the units that go."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to continue exactly: tensors and numbers, loadable with `weights_only=True`."""
        layers = {
            layer.units.name: {
                "width": layer.units.width,
                "replaced": layer.replaced,
                "samples": list(layer.samples),
                "sums": [{name: total.clone() for name, total in sums.items()} for sums in layer.sums],
                **{name: _copied(getattr(layer, name)) for name in self.remembers},
            }
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
            layer.replaced, layer.samples = int(part["replaced"]), [int(n) for n in part["samples"]]
            layer.sums = [
                {name: total.to(layer.device, copy=True) for name, total in sums.items()} for sums in part["sums"]
            ]
            for name in self.remembers:
                value = part[name]
                setattr(layer, name, value.to(layer.device, copy=True) if isinstance(value, Tensor) else value)

    def report(self) -> dict[str, float]:
        """Per layer: units replaced so far."""
        return {f"replaced/{layer.units.name}": float(layer.replaced) for layer in self.layers}

    def histograms(self) -> dict[str, Tensor]:
        """Nothing worth a histogram is kept."""
        return {}


def _copied(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value
