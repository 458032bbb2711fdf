"""Continual backpropagation: after each optimizer step a tiny fraction of the least useful, mature units is renewed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from .companion import Companion
from .finding import Units
from .replace import Renewal
from .replacement import Replacement, takes_replacement
from .running import Running
from .running_layer import RunningLayer
from .scratch import Scratch
from .selection import lowest
from .utility import Signals, Utility


class ContinualBackprop(Companion):
    """Continual backpropagation beside any network and optimizer (Dohare et al., Nature 632:768, 2024).

    Every optimizer step: each unit ages by one; its running utility follows `u <- decay u + (1 - decay) y`; the budget
    of each layer grows by `rate` times the number of its units older than `maturity`; whole units of budget are spent
    on the eligible units with the least bias-corrected utility.

    Args:
        units: from `surgery.find(net)`, or `Units` of your own.
        optimizer: the one (or several) that trains them. `surgery.Adam` counts steps per unit.
        rate: fraction of the eligible units replaced per step, in [0, 1].
        maturity: optimizer steps before a unit may be replaced.
        decay: of the running utility and mean activation, in [0, 1).
        utility: name in `surgery.UTILITIES`, a `surgery.Utility`, or a function of `surgery.Signals`.
        every: look at activations and weights at every so-many-th step only, with `decay ** every`: cheaper, and less
            exact; budget and ages count all steps.
        count_all: let the budget grow with all units, not the eligible ones (public code for conv nets).
        layers: settings by layer name that differ: {"actor.0": {"rate": 1e-3, "birth": "orthogonal"}}.
        distributed: with several processes (DDP), choose the same units on each; their statistics are averaged at
            replacements, so every process must take the same steps.
        replacement: keyword arguments of `Replacement`: `birth`, `bias`, `transfer`, `keep_optimizer_state`,
            `generator`.

    Raises:
        ValueError, TypeError, KeyError: a setting out of range or unknown, naming it.

    Example:
        >>> cbp = ContinualBackprop(surgery.find(net), optimizer, rate=1e-4, maturity=10_000)
        >>> loss.backward(); optimizer.step(); replaced = cbp.step()
    """

    layers: list[RunningLayer]  # type: ignore[assignment]

    @takes_replacement
    def __init__(
        self,
        units: Units | Iterable[Units],
        optimizer: Optimizer | Sequence[Optimizer],
        *,
        rate: float = 1e-4,
        maturity: int = 10_000,
        decay: float = 0.99,
        utility: str | Utility | Callable[[Signals], Tensor] = "contribution",
        every: int = 1,
        count_all: bool = False,
        layers: Mapping[str, Mapping[str, Any]] | None = None,
        distributed: bool = True,
        **replacement: Any,
    ) -> None:
        if every < 1:
            raise ValueError(f"every={every}: a number of optimizer steps is at least 1")
        self.scratch, self.every = Scratch(), every
        super().__init__(
            units,
            optimizer,
            {"rate": rate, "maturity": maturity, "decay": decay, "utility": utility, "count_all": count_all},
            layers=layers,
            distributed=distributed,
            replacement=Replacement.of("ContinualBackprop", replacement),
        )
        self._group()

    def refind(self, units: Units | Iterable[Units]) -> None:
        """As the base."""
        super().refind(units)
        self._group()

    def _group(self) -> None:
        self.running = Running.of(self.layers)
        self._listen()

    def _layer(self, units: Units, **settings: Any) -> RunningLayer:
        if 1 <= settings["maturity"] < self.every:
            raise ValueError(
                f"maturity={settings['maturity']}, every={self.every}: units would go before they were seen"
            )
        return RunningLayer(units, self.scratch, every=self.every, **settings)

    def _listen(self) -> None:
        """Record the passes of every so-many-th step."""
        if self.every > 1:
            for layer in self.layers:
                for watch in layer.watches:
                    watch.active = (self.steps + 1) % self.every == 0

    def _after_step(self) -> list[tuple[RunningLayer, Renewal]]:
        if self.steps % self.every in (0, self.every - 1):
            self._listen()
        counts = [(layer, layer.budget.spend(self.steps)) for layer in self.layers]
        counts = [(layer, count) for layer, count in counts if count]
        return self._renewals(counts) if counts else []

    @torch.no_grad()
    def _renewals(self, counts: Sequence[tuple[RunningLayer, int]]) -> list[tuple[RunningLayer, Renewal]]:
        self._agree([average for layer, _ in counts for average in layer.averages])
        standings: dict[RunningLayer, tuple[Tensor, Sequence[Tensor]]] = {}
        for running in self.running:
            standings |= running.standings(self.steps, dict(counts))
        return [(layer, self._renewal(layer, count, *standings[layer])) for layer, count in counts]

    def _follow_step(self) -> None:
        """Move every running average towards this step's."""
        if (self.steps + 1) % self.every:
            return
        seen = [running.follow(self.generator) for running in self.running]
        if not any(seen):
            raise self._seen_nothing()

    def _renewal(self, layer: RunningLayer, count: int, score: Tensor, corrected: Sequence[Tensor]) -> Renewal:
        index = lowest(score, count)
        means = [None if i is None else corrected[i] for i in layer.heard] if self.replacement.transfer else []
        layer.restart(index, self.steps)
        layer.budget.born(self.steps, count)
        layer.replaced += count
        return layer.renewal(index, means)

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to continue exactly: tensors and numbers, loadable with `weights_only=True`."""
        return {
            "steps": self.steps,
            "generator": self.generator.get_state(),
            "layers": {layer.units.name: layer.state_dict() for layer in self.layers},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict()`.

        Raises:
            ValueError: the state is of other layers.
        """
        self._same_layers({name: len(part["birth_step"]) for name, part in state["layers"].items()})
        self.steps = int(state["steps"])
        self.generator.set_state(state["generator"].cpu())
        for layer in self.layers:
            layer.load_state_dict(state["layers"][layer.units.name])
        self._group()

    @torch.no_grad()
    def report(self) -> dict[str, float]:
        """Numbers for a log, per layer; reads them from the device, so call it now and then."""
        numbers: dict[str, float] = {}
        for layer in self.layers:
            name, age = layer.units.name, (self.steps - layer.birth_step).double()
            numbers[f"replaced/{name}"] = float(layer.replaced)
            numbers[f"eligible/{name}"] = float(layer.budget.eligible)
            numbers[f"age_mean/{name}"] = float(age.mean())
            numbers[f"age_min/{name}"] = float(age.min())
            numbers[f"next_replacement_in/{name}"] = float(layer.budget.next_in(self.steps))
            utility = layer.corrected()[0].double()
            quantiles = utility.quantile(torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64, device=age.device))
            for label, value in zip(("p10", "p50", "p90"), quantiles.tolist(), strict=True):
                numbers[f"utility_{label}/{name}"] = value
        return numbers

    @torch.no_grad()
    def histograms(self) -> dict[str, Tensor]:
        """Ages and bias-corrected utilities of every layer, on the host."""
        ages = {f"age/{layer.units.name}": (self.steps - layer.birth_step).cpu() for layer in self.layers}
        return ages | {f"utility/{layer.units.name}": layer.corrected()[0].cpu() for layer in self.layers}


GENERATE_AND_TEST: dict[str, Any] = {"rate": 0.005, "utility": "weight", "decay": 0.0, "transfer": False}
"""Generate-and-test (Mahmood and Sutton 2012), the ancestor: `ContinualBackprop(units, optimizer,
**GENERATE_AND_TEST)` on a network with one hidden layer and one output. A feature is worth its |out-weight|, now."""
