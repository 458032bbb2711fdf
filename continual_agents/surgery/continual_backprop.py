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
from .running import RunningLayer
from .scratch import Scratch
from .selection import least_useful
from .utility import Signals, Utility, finite


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
        count_all: bool = False,
        layers: Mapping[str, Mapping[str, Any]] | None = None,
        distributed: bool = True,
        **replacement: Any,
    ) -> None:
        self.scratch = Scratch()
        super().__init__(
            units,
            optimizer,
            {"rate": rate, "maturity": maturity, "decay": decay, "utility": utility, "count_all": count_all},
            layers=layers,
            distributed=distributed,
            replacement=Replacement.of("ContinualBackprop", replacement),
        )

    def _layer(self, units: Units, **settings: Any) -> RunningLayer:
        return RunningLayer(units, self.scratch, **settings)

    def _after_step(self) -> list[tuple[RunningLayer, Renewal]]:
        self._follow()
        counts = []
        for layer in self.layers:
            counts.append((layer, layer.budget.spend(self.steps)))
        counts = [(layer, count) for layer, count in counts if count]
        self._agree([tensor for layer, _ in counts for tensor in (layer.utility, *layer.means)])
        renewals = [(layer, self._renewal(layer, count)) for layer, count in counts]
        for layer in self.layers:
            layer.look_ahead(self.steps)
        return renewals

    def _follow(self) -> None:
        """Move every running utility and mean towards this step's."""
        running: list[Tensor] = []
        fresh: list[Tensor] = []
        weights: list[float] = []
        for layer in self.layers:
            layer.move(layer.device)
            for i, watch in enumerate(layer.watches):
                statistics = watch.take()
                if statistics is None:
                    continue
                fresh.append(layer.fit(i, finite(statistics["mean"])))
                running.append(layer.means[i])
                weights.append(1 - layer.decay)
                if i == 0:
                    score = layer.criterion.score(layer.signals(statistics, self.generator))
                    running.append(layer.utility)
                    fresh.append(finite(score.to(layer.utility.dtype)))
                    weights.append(1 - layer.decay)
        if not running:
            raise self._seen_nothing()
        if len(set(weights)) == 1:
            torch._foreach_lerp_(running, fresh, weights[0])
        else:
            for mean, value, weight in zip(running, fresh, weights, strict=True):
                mean.lerp_(value, weight)

    def _renewal(self, layer: RunningLayer, count: int) -> Renewal:
        age = self.steps - layer.birth_step
        index = least_useful(layer.utility, age, count, maturity=layer.budget.maturity, decay=layer.decay)
        means: list[Tensor | None] = []
        if self.replacement.transfer:
            correction = 1 - layer.decay ** age.to(layer.utility.dtype)
            corrected = [(m.view(len(age), -1) / correction[:, None]).view(m.shape) for m in layer.means]
            means = [None if i is None else corrected[i] for i in layer.heard]
        layer.utility.index_fill_(0, index, 0.0)
        layer.birth_step.index_fill_(0, index, self.steps)
        for mean in layer.means:
            mean.view(layer.units.width, -1).index_fill_(0, index, 0.0)
        layer.budget.born(self.steps, count)
        layer.replaced += count
        return layer.renewal(index, means)

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to continue exactly: tensors and numbers, loadable with `weights_only=True`."""
        return {
            "steps": self.steps,
            "generator": self.generator.get_state(),
            "layers": {
                layer.units.name: {
                    "utility": layer.utility.clone(),
                    "birth_step": layer.birth_step.clone(),
                    "means": [mean.clone() for mean in layer.means],
                    "sized": [int(known) for known in layer.sized],
                    "replaced": layer.replaced,
                    "budget": layer.budget.state_dict(),
                }
                for layer in self.layers
            },
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict()`.

        Raises:
            ValueError: the state is of other layers.
        """
        self._same_layers({name: len(part["utility"]) for name, part in state["layers"].items()})
        self.steps = int(state["steps"])
        self.generator.set_state(state["generator"].cpu())
        for layer in self.layers:
            part = state["layers"][layer.units.name]
            layer.utility, layer.birth_step = (part[k].to(layer.device, copy=True) for k in ("utility", "birth_step"))
            layer.means = [mean.to(layer.device, copy=True) for mean in part["means"]]
            layer.sized = [bool(known) for known in part["sized"]]
            layer.replaced = int(part["replaced"])
            layer.budget.load_state_dict(part["budget"])
            layer.correction = torch.empty_like(layer.utility)
            layer.look_ahead(self.steps)

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
            quantiles = (
                self._corrected(layer)
                .double()
                .quantile(torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64, device=age.device))
            )
            for label, value in zip(("p10", "p50", "p90"), quantiles.tolist(), strict=True):
                numbers[f"utility_{label}/{name}"] = value
        return numbers

    @torch.no_grad()
    def histograms(self) -> dict[str, Tensor]:
        """Ages and bias-corrected utilities of every layer, on the host."""
        ages = {f"age/{layer.units.name}": (self.steps - layer.birth_step).cpu() for layer in self.layers}
        return ages | {f"utility/{layer.units.name}": self._corrected(layer).cpu() for layer in self.layers}

    def _corrected(self, layer: RunningLayer) -> Tensor:
        age = (self.steps - layer.birth_step).clamp(min=1).to(layer.utility.dtype)
        return layer.utility / (1 - layer.decay**age)


GENERATE_AND_TEST: dict[str, Any] = {"rate": 0.005, "utility": "weight", "decay": 0.0, "transfer": False}
"""Generate-and-test (Mahmood and Sutton 2012), the ancestor: `ContinualBackprop(units, optimizer,
**GENERATE_AND_TEST)` on a network with one hidden layer and one output. A feature is worth its |out-weight|, now."""
