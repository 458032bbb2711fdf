"""Surgery on a stack: renewing units of many runs at once.

The replacement touches the rows and columns of the units that go and nothing else. What a unit is worth, how many go
and which is `continual_agents.surgery`'s; `continual_backprop.py` and `redo.py` ask it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from continual_agents.settings import nearest

from ..draws import Draw, torch_draws
from .network import StackedMlp
from .optimizers import StackedOptimizer

SURGEON = ("birth", "keep_optimizer_state")
"""Settings of every kind of surgery."""


class Surgeon:
    """Replaces units of a stack: the new ones are drawn from the layers' initial distributions.

    Args:
        stack: the networks.
        optimizer: whose moments are forgotten.
        settings: per run; `birth` and `keep_optimizer_state` are read here.

    Raises:
        ValueError: no hidden layer, units with two outputs (crelu), or another `birth`.
    """

    def __init__(self, stack: StackedMlp, optimizer: StackedOptimizer, settings: Sequence[Mapping[str, Any]]):
        birth = common(settings, "birth", None)
        if birth is not None:
            raise ValueError(f"birth={birth!r}: a stack draws new units as the network began, give birth=null")
        self.keep_state = bool(common(settings, "keep_optimizer_state", False))
        if not stack.network.hidden:
            raise ValueError("surgery needs a hidden layer, this network is linear: give network.hidden, or no surgery")
        if stack.activation.outputs != 1:
            raise ValueError(f"surgery on {stack.network.activation} units is not offered: choose another activation")
        self.stack, self.optimizer = stack, optimizer
        # newborns so far, per run: names the next draw
        self.born = np.zeros((stack.runs, len(stack.network.hidden)), dtype=np.int64)

    def newborn(self, run: int, layer: int, count: int) -> Tensor:
        """In-weights of `count` new units `[count, inputs]` of one run."""
        generator = torch_draws(self.stack.seeds[run], Draw.NEWBORN, layer, int(self.born[run, layer]))
        bound = self.stack.network.bounds[layer]
        return torch.empty(count, self.stack.layers[layer].inputs).uniform_(-bound, bound, generator=generator)

    def replace(self, jobs: Sequence[tuple[int, Sequence[int], Tensor, Tensor | None]]) -> None:
        """Renew units of several layers at once.

        All means are handed over with the old weights, then all in-weights are drawn, then all out-weights zeroed.

        Args:
            jobs: layer, runs `n`, units `[n, k]`, and their mean outputs `[n, k]` to hand over (or None).
        """
        places = [(layer, _column(runs, units.device), units) for layer, runs, units, _ in jobs]
        for (layer, rows, units), (*_, means) in zip(places, jobs, strict=True):
            if means is not None:
                reader = self.stack.layers[layer + 1]
                reader.bias[rows[:, 0]] += (means[..., None] * reader.weight[rows, units]).sum(1)
        for (layer, rows, units), (_, runs, _, _) in zip(places, jobs, strict=True):
            maker = self.stack.layers[layer]
            # drawn run by run, each from its own seed: the same whatever runs are beside it
            draws = torch.stack([self.newborn(run, layer, units.shape[1]) for run in runs])
            maker.weight[rows, :, units] = draws.to(maker.full.device, maker.full.dtype)
            maker.bias[rows, units] = 0.0
            self.born[list(runs), layer] += units.shape[1]
            norm = self.stack.norms[layer]
            if norm is not None:
                norm.renew(rows, units)
        for layer, rows, units in places:
            self.stack.layers[layer + 1].weight[rows, units] = 0.0
            if self.keep_state:
                continue
            self.optimizer.forget(layer, rows, units=units)
            self.optimizer.forget(layer + 1, rows, inputs=units)
            if self.stack.norms[layer] is not None:
                number = len(self.stack.layers) + layer
                self.optimizer.forget(number, rows, units=units)


def only(settings: Sequence[Mapping[str, Any]], operation: str, *known: str) -> None:
    """Refuse settings that nobody would read.

    Raises:
        ValueError: an unknown one, with the nearest known.
    """
    for name in {name for one in settings for name in one}:
        if name not in known:
            raise ValueError(f"{operation}.{name} is unknown to a stack{nearest(name, known)}")


def common(settings: Sequence[Mapping[str, Any]], name: str, default: Any) -> Any:
    """The value that all runs of a stack share.

    Raises:
        ValueError: they differ.
    """
    values = {str(one.get(name, default)): one.get(name, default) for one in settings}
    if len(values) > 1:
        raise ValueError(f"{name} is common to the runs of a stack, got {', '.join(values)}")
    return next(iter(values.values()))


def _column(runs: Sequence[int], device: torch.device) -> Tensor:
    return torch.tensor(list(runs), device=device)[:, None]
