"""Self-normalised resets: a unit goes when it has been silent for longer than its own history makes likely."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from .finding import Units
from .periodic import Periodic, PeriodicLayer
from .replacement import takes_replacement


class _Layer(PeriodicLayer):
    def __init__(self, units: Units, birth: Any, threshold: float, patience: int) -> None:
        if not 0 < threshold < 1:
            raise ValueError(f"threshold={threshold}: a probability lies in (0, 1)")
        if patience < 1:
            raise ValueError(f"patience={patience}: a number of steps is at least 1")
        super().__init__(units, birth, frozenset({"firing"}))
        self.threshold, self.patience = threshold, patience
        self.silent, self.waits, self.fired = (torch.zeros(units.width, device=self.device) for _ in range(3))

    def adopt(self, before: _Layer) -> None:
        """As the base, with every unit's history."""
        super().adopt(before)
        self.silent, self.waits, self.fired = before.silent, before.waits, before.fired

    def improbable(self) -> Tensor:
        """bool [width]: silent for longer than its history makes likely."""
        return self.silent >= silence_limit(self.waits, self.fired, self.threshold).clamp_(min=self.patience)


def silence_limit(waits: Tensor, fired: Tensor, threshold: float) -> Tensor:
    """The silence `a` at which `P(A >= a) = threshold`, with A geometric and its mean the unit's own mean wait.

    Args:
        waits: sum of the steps between firings.
        fired: number of firings; a unit that never fired has no history: 0, and only patience holds it.
        threshold: probability.
    """
    rate = (fired / waits.clamp(min=1)).clamp(max=1 - 1e-6)
    return torch.where(fired > 0, math.log(threshold) / torch.log1p(-rate), torch.zeros_like(rate))


class SelfNormalizedResets(Periodic):
    """Self-normalised resets (Farias and Jozefiak 2024, arXiv 2410.20098).

    A unit fires in a step when it is above 0 for any sample of that step's training passes. Each unit keeps the mean
    of its own waits between firings; a silence whose probability under a geometric law with that mean is at most
    `threshold` means that the unit has died, and it is replaced. Made for units that can be silent (ReLU and kin).

    Args:
        units, optimizer: as in `ContinualBackprop`.
        threshold: eta, the probability under which a silence is no chance, in (0, 1).
        patience: steps of silence that are always granted.
        period: optimizer steps between two looks; only these wait for the device.
        layers: settings by layer name that differ: {"actor.0": {"patience": 500}}.
        distributed: as in `ContinualBackprop`.
        replacement: keyword arguments of `Replacement`; the mean handed over is that since the last look (0 for ReLU).

    Raises:
        ValueError, TypeError, KeyError: a setting out of range or unknown, naming it.

    Example:
        >>> snr = SelfNormalizedResets(surgery.find(net), optimizer, threshold=0.02)
    """

    layer_kind, remembers = _Layer, ("silent", "waits", "fired")

    @takes_replacement
    def __init__(
        self, units: Units | Iterable[Units], optimizer: Optimizer | Sequence[Optimizer], *,
        threshold: float = 0.02, patience: int = 100, period: int = 20, **common: Any,
    ) -> None:  # fmt: skip
        super().__init__(units, optimizer, {"threshold": threshold, "patience": patience}, period=period, **common)

    def _follow(self, layer: _Layer, records: Sequence[Mapping[str, Tensor] | None]) -> None:
        """Lengthen the silences, or end them."""
        if records[0] is None:
            return
        firing = records[0]["firing"]
        if layer.silent.device != firing.device:
            layer.silent, layer.waits, layer.fired = (
                t.to(firing.device) for t in (layer.silent, layer.waits, layer.fired)
            )
        self._agree([firing])
        firing = (firing > 0).to(layer.silent.dtype)
        layer.silent += 1
        layer.waits.addcmul_(firing, layer.silent)
        layer.fired += firing
        layer.silent *= 1 - firing

    def _improper(self, layer: _Layer) -> Tensor:
        chosen = layer.improbable()
        for count in (layer.silent, layer.waits, layer.fired):
            count.masked_fill_(chosen, 0.0)  # a newborn has no history
        return chosen

    @torch.no_grad()
    def report(self) -> dict[str, float]:
        """Per layer: units replaced so far, fraction silent in the last step, longest silence."""
        numbers: dict[str, float] = {}
        for layer in self.layers:
            numbers[f"replaced/{layer.units.name}"] = float(layer.replaced)
            numbers[f"silent/{layer.units.name}"] = float((layer.silent > 0).float().mean())
            numbers[f"silence_max/{layer.units.name}"] = float(layer.silent.max())
        return numbers

    @torch.no_grad()
    def histograms(self) -> dict[str, Tensor]:
        """Present silences of every layer, on the host."""
        return {f"silence/{layer.units.name}": layer.silent.cpu() for layer in self.layers}
