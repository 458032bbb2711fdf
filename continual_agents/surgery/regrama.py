"""ReGraMa: every so many steps, units whose in-weights hardly get a gradient are renewed (Liu et al. 2025)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from .finding import Units, own, whole
from .periodic import Periodic, PeriodicLayer
from .replacement import takes_replacement
from .selection import dormant
from .utility import dormancy


class _Layer(PeriodicLayer):
    def __init__(self, units: Units, birth: Any, threshold: float) -> None:
        if not 0 <= threshold < 1:
            raise ValueError(f"threshold={threshold}: a fraction of the layer's mean gradient lies in [0, 1)")
        super().__init__(units, birth, frozenset())
        self.threshold = threshold
        self.slope = torch.zeros(units.width, device=self.device)

    def steepness(self) -> Tensor | None:
        """Mean |dL/dW_in| of each unit in this step, `[width]`; None without gradients."""
        total = None
        for slot in self.units.made:
            tensor = slot.tensor()
            gradient = whole(tensor).grad
            if gradient is None or tensor.ndim < 2:
                continue
            gradient = own(tensor, gradient)
            each = slot.span(gradient.abs().movedim(slot.dim, 0).flatten(1).mean(1), self.units.width)
            total = each if total is None else total + each
        return total


class ReGraMa(Periodic):
    """Renew units by gradient magnitude (Liu et al. 2025): a unit can be active and still no longer learn.

    Every `period` optimizer steps, a unit whose score `mean |dL/dW_in| / mean over the layer of it` is at most
    `threshold` is renewed. The means are over all steps since the last look. Call `step()` before `zero_grad()`.

    Args:
        units, optimizer: as in `ContinualBackprop`.
        threshold: in [0, 1).
        period: optimizer steps between two looks. Only these steps wait for the device.
        layers: settings by layer name that differ.
        distributed: as in `ContinualBackprop`.
        replacement: keyword arguments of `Replacement`; the mean handed over is that since the last look.

    Raises:
        ValueError, TypeError, KeyError: a setting out of range or unknown, naming it.

    Example:
        >>> regrama = ReGraMa(surgery.find(net), optimizer, threshold=0.01, period=1_000)
    """

    layer_kind, remembers = _Layer, ("slope",)

    @takes_replacement
    def __init__(
        self, units: Units | Iterable[Units], optimizer: Optimizer | Sequence[Optimizer], *,
        threshold: float = 0.01, period: int = 1_000, **common: Any,
    ) -> None:  # fmt: skip
        super().__init__(units, optimizer, {"threshold": threshold}, period=period, **common)

    def _follow(self, layer: _Layer, records: Sequence[Mapping[str, Tensor] | None]) -> None:
        """Add up this step's gradients.

        Raises:
            RuntimeError: there are none any more.
        """
        steepness = layer.steepness()
        if steepness is None:
            raise RuntimeError(
                f"ReGraMa.step(): the layers that make {layer.units.name} have no gradients: call it before zero_grad()"
            )
        layer.slope = layer.slope.to(steepness.device).add_(steepness)

    def _improper(self, layer: _Layer) -> Tensor:
        self._agree([layer.slope])
        chosen = dormant(dormancy(layer.slope), layer.threshold)
        layer.slope.zero_()
        return chosen
