"""ReDo: every so many steps, units that are dormant by a threshold are renewed (Sokar et al. 2023)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from .finding import Units
from .periodic import Periodic, PeriodicLayer
from .replacement import takes_replacement
from .selection import dormant
from .utility import dormancy


class _Layer(PeriodicLayer):
    def __init__(self, units: Units, birth: Any, threshold: float) -> None:
        if not 0 <= threshold < 1:
            raise ValueError(f"threshold={threshold}: a fraction of the layer's mean activity lies in [0, 1)")
        super().__init__(units, birth, frozenset({"activity"}))
        self.threshold = threshold
        self.dormant = 0.0


class ReDo(Periodic):
    """Recycle dormant neurons (Sokar et al., ICML 2023).

    Every `period` optimizer steps, a unit whose score `mean|h| / mean over the layer of mean|h|` is at most `threshold`
    gets new in-weights and zero out-weights. The means are over all training passes since the last look: one batch,
    and one example all the more, says little about a unit that is active now and then.

    Args:
        units, optimizer: as in `ContinualBackprop`.
        threshold: tau, in [0, 1).
        period: optimizer steps between two looks. Only these steps wait for the device.
        layers: settings by layer name that differ: {"actor.0": {"threshold": 0.1}}.
        distributed: as in `ContinualBackprop`.
        replacement: keyword arguments of `Replacement`; the mean handed over is that since the last look.

    Raises:
        ValueError, TypeError, KeyError: a setting out of range or unknown, naming it.

    Example:
        >>> redo = ReDo(surgery.find(net), optimizer, threshold=0.1, period=100)
    """

    layer_kind, remembers = _Layer, ("dormant",)

    @takes_replacement
    def __init__(
        self, units: Units | Iterable[Units], optimizer: Optimizer | Sequence[Optimizer], *,
        threshold: float = 0.025, period: int = 1_000, **common: Any,
    ) -> None:  # fmt: skip
        super().__init__(units, optimizer, {"threshold": threshold}, period=period, **common)

    def _improper(self, layer: _Layer) -> Tensor:
        activity = layer.average("activity")
        if activity is None:  # no pass through this layer: nothing is known about it
            return torch.zeros(0)
        chosen = dormant(dormancy(activity), layer.threshold)
        layer.dormant = float(chosen.float().mean())
        return chosen

    def report(self) -> dict[str, float]:
        """Per layer: units replaced so far, fraction dormant at the last look, steps until the next one."""
        numbers: dict[str, float] = {}
        for layer in self.layers:
            numbers[f"replaced/{layer.units.name}"] = float(layer.replaced)
            numbers[f"dormant/{layer.units.name}"] = layer.dormant
            numbers[f"next_replacement_in/{layer.units.name}"] = float(self.period - self.steps % self.period)
        return numbers
