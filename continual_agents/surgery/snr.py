"""Self-normalised resets: a unit goes when it has been silent for longer than its own history makes likely."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from .companion import Companion, Layer, per_layer_settings
from .finding import Units
from .generator import Draw
from .replace import Job
from .watch import Watch


class _Layer(Layer):
    def __init__(self, units: Units, threshold: float, patience: int) -> None:
        super().__init__(units)
        if not 0 < threshold < 1:
            raise ValueError(f"threshold={threshold}: a probability lies in (0, 1)")
        if patience < 1:
            raise ValueError(f"patience={patience}: a number of steps is at least 1")
        self.threshold, self.patience = threshold, patience
        first = min(units.outgoing, key=lambda r: not r.recurrent)
        self.watches = [Watch(first, units.width, frozenset({"firing"}))]
        self.silent, self.waits, self.fired = (torch.zeros(units.width, device=self.device) for _ in range(3))

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


class SelfNormalizedResets(Companion):
    """Self-normalised resets (Farias and Jozefiak 2024, arXiv 2410.20098).

    A unit fires in a step when it is above 0 for any sample of that step's training passes. Each unit keeps the mean
    of its own waits between firings; a silence whose probability under a geometric law with that mean is at most
    `threshold` means that the unit has died, and it is replaced. Made for units that can be silent (ReLU and kin).

    Args:
        units, optimizer, birth, bias, generator, layers, keep_optimizer_state, distributed: as in
            `ContinualBackprop`.
        threshold: eta, the probability under which a silence is no chance, in (0, 1).
        patience: steps of silence that are always granted.
        period: optimizer steps between two looks; only these wait for the device.

    Example:
        >>> snr = SelfNormalizedResets(surgery.find(net), optimizer, threshold=0.02)
    """

    layers: list[_Layer]  # type: ignore[assignment]

    def __init__(
        self,
        units: Units | Iterable[Units],
        optimizer: Optimizer | Sequence[Optimizer],
        *,
        threshold: float = 0.02,
        patience: int = 100,
        period: int = 20,
        birth: str | Draw = "default",
        bias: str = "zero",
        generator: torch.Generator | None = None,
        layers: Mapping[str, Mapping[str, Any]] | None = None,
        keep_optimizer_state: bool = False,
        distributed: bool = True,
    ) -> None:
        super().__init__(
            units,
            optimizer,
            generator=generator,
            birth=birth,
            bias=bias,
            keep_optimizer_state=keep_optimizer_state,
            distributed=distributed,
        )
        with self._undone_on_error():
            if period < 1:
                raise ValueError(f"period={period}: a number of optimizer steps is at least 1")
        self.period = period
        with self._undone_on_error():
            settings = per_layer_settings(self.units, {"threshold": threshold, "patience": patience}, layers)
        with self._undone_on_error():
            for u, s in zip(self.units, settings, strict=True):
                self.layers.append(_Layer(u, **s))

    def _after_step(self) -> list[tuple[_Layer, Job]]:
        records = [layer.watches[0].take() for layer in self.layers]
        if not any(records):
            raise self._seen_nothing()
        jobs = []
        for layer, record in zip(self.layers, records, strict=True):
            if record is not None:
                self._count(layer, record["firing"])
            if self.steps % self.period == 0:
                index = layer.improbable().nonzero().flatten()
                if len(index):
                    for counter in (layer.silent, layer.waits, layer.fired):
                        counter.index_fill_(0, index, 0.0)
                    layer.replaced += len(index)
                    jobs.append((layer, Job(layer.units, index, birth=self.birth)))
        return jobs

    def _count(self, layer: _Layer, firing: Tensor) -> None:
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

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to continue exactly."""
        layers = {
            layer.units.name: {
                "replaced": layer.replaced,
                "silent": layer.silent.clone(),
                "waits": layer.waits.clone(),
                "fired": layer.fired.clone(),
            }
            for layer in self.layers
        }
        return {"steps": self.steps, "generator": self.generator.get_state(), "layers": layers}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict()`.

        Raises:
            ValueError: the state is of other layers.
        """
        self._same_layers({name: len(part["silent"]) for name, part in state["layers"].items()})
        self.steps = int(state["steps"])
        self.generator.set_state(state["generator"].cpu())
        for layer in self.layers:
            part = state["layers"][layer.units.name]
            layer.replaced = int(part["replaced"])
            for name in ("silent", "waits", "fired"):
                setattr(layer, name, part[name].to(layer.device, copy=True))

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
