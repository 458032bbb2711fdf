"""Surgery on a stack: renewing units of many runs at once.

The replacement touches the rows and columns of the units that go and nothing else. What a unit is worth, how many go
and which is `continual_agents.surgery`'s; `continual_backprop.py` and `redo.py` ask it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from continual_agents.settings import nearest
from continual_agents.surgery import Birth
from continual_agents.surgery.births import birth_of, needs_inputs

from ..draws import Draw, torch_draws
from ..states import array_of
from .network import StackedMlp
from .optimizers import StackedOptimizer

SURGEON = ("birth", "keep_optimizer_state")
"""Settings of every kind of surgery."""


class Surgeon:
    """Replaces units of a stack; the `bound` that births may go by is that of the layer's initial distribution.

    Births that look at recent inputs see what the layer would read of the stack's latest examples. Their products may
    round otherwise for a run in a stack than for the run alone.

    Args:
        stack: the networks.
        optimizer: whose moments are forgotten.
        settings: per run; `birth` (None: as the network began) and `keep_optimizer_state` are read here.

    Raises:
        ValueError: no hidden layer, units with two outputs (crelu), or an unknown `birth`.
    """

    def __init__(self, stack: StackedMlp, optimizer: StackedOptimizer, settings: Sequence[Mapping[str, Any]]):
        self.births = [birth_of(one.get("birth") or "default") for one in settings]
        self.keep_state = bool(common(settings, "keep_optimizer_state", False))
        if not stack.network.hidden:
            raise ValueError("surgery needs a hidden layer, this network is linear: give network.hidden, or no surgery")
        if stack.activation.outputs != 1:
            raise ValueError(f"surgery on {stack.network.activation} units is not offered: choose another activation")
        self.stack, self.optimizer = stack, optimizer
        if any(map(needs_inputs, self.births)):
            stack.remember()
        # newborns so far, per run: names the next draw
        self.born = np.zeros((stack.runs, len(stack.network.hidden)), dtype=np.int64)

    def newborn(self, run: int, layer: int, units: Tensor, inputs: Tensor | None) -> tuple[Tensor, Tensor]:
        """In-weights `[k, inputs]` and biases `[k]` of the units `[k]` of one run, born anew."""
        maker = self.stack.layers[layer]
        birth = Birth(
            (len(units), maker.inputs),
            fan_in=maker.inputs,
            fan_out=maker.outputs,
            bound=self.stack.network.bounds[layer],
            weight=maker.weight[run].T,
            index=units,
            generator=torch_draws(self.stack.seeds[run], Draw.NEWBORN, layer, int(self.born[run, layer])),
            inputs=inputs,
            present_bias=maker.bias[run],
        )
        born = self.births[run](birth)
        return born if isinstance(born, tuple) else (born, born.new_zeros(len(born)))

    def replace(self, jobs: Sequence[tuple[int, Sequence[int], Tensor, Tensor | None]]) -> None:
        """Renew units of several layers at once.

        All means are handed over with the old weights, then all in-weights are drawn, then all out-weights zeroed.

        Args:
            jobs: layer, runs `n`, units `[n, k]`, and their mean outputs `[n, k]` to hand over (or None).
        """
        places = [
            (layer, torch.tensor(list(runs), device=units.device)[:, None], units) for layer, runs, units, _ in jobs
        ]
        seen = self.stack.recent_inputs() if jobs else None
        for (layer, rows, units), (*_, means) in zip(places, jobs, strict=True):
            if means is not None:
                reader = self.stack.layers[layer + 1]
                reader.bias[rows[:, 0]] += (means[..., None] * reader.weight[rows, units]).sum(1)
        for (layer, rows, units), (_, runs, _, _) in zip(places, jobs, strict=True):
            maker = self.stack.layers[layer]
            # drawn run by run, each from its own seed: the same whatever runs are beside it
            born = [
                self.newborn(run, layer, own, None if seen is None else seen[layer][run].clone())
                for run, own in zip(runs, units, strict=True)
            ]
            weights, biases = (
                torch.stack(one).to(maker.full.device, maker.full.dtype) for one in zip(*born, strict=True)
            )
            maker.weight[rows, :, units] = weights
            maker.bias[rows, units] = biases
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


class StackedSurgery:
    """Base of what looks after single units of a stack: who replaces them, how many went, what a continued run needs.

    Args:
        stack, optimizer: as trained.
        settings: per run; those of `Surgeon`, and `transfer`, which is common to the stack.

    Attributes:
        steps: optimizer steps done, counted by the learner.
        follows: whether there is something to do at every step.
        draws: whether every step draws random numbers.
        remembers: names of its attributes that are a tensor a hidden layer and that a continued run needs.
    """

    follows, draws, native = True, False, True
    remembers: tuple[str, ...] = ()

    def __init__(self, stack: StackedMlp, optimizer: StackedOptimizer, settings: Sequence[Mapping[str, Any]]):
        self.stack, self.surgeon = stack, Surgeon(stack, optimizer, settings)
        self.transfer = bool(common(settings, "transfer", True))
        self.replaced = np.zeros((stack.runs, len(stack.network.hidden)), dtype=np.int64)
        self.steps = 0

    def per_unit(self, dtype: torch.dtype | None = None) -> list[Tensor]:
        """Zeros `[runs, width]` for each hidden layer."""
        kind: Any = {"device": self.stack.device, "dtype": dtype or self.stack.dtype}
        return [torch.zeros(self.stack.runs, width, **kind) for width in self.stack.network.hidden]

    @property
    def next_step(self) -> float:
        """The next step after which `act_now` is due; inf if never."""
        raise NotImplementedError

    def follow_step(self, number: int) -> None:
        """The part of every step (number `number` from 0): fixed operations on the device."""
        raise NotImplementedError

    def act_now(self) -> None:
        """The part of some steps."""
        raise NotImplementedError

    def start_task(self, index: int) -> None:
        """Tasks are nothing to it."""

    def report(self) -> dict[str, np.ndarray]:
        """Units replaced so far, in all and per layer, each `[runs]`."""
        layers = {f"replaced/hidden_{k}": self.replaced[:, k].astype(float) for k in range(self.replaced.shape[1])}
        return {"replaced": self.replaced.sum(1).astype(float), **layers}

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to continue exactly."""
        own = {name: [tensor.clone() for tensor in getattr(self, name)] for name in self.remembers}
        return {**own, "replaced": self.replaced.copy(), "born": self.surgeon.born.copy(), "steps": self.steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict()`."""
        for name in self.remembers:
            for tensor, stored in zip(getattr(self, name), state[name], strict=True):
                tensor.copy_(stored)
        self.replaced, self.surgeon.born = array_of(state["replaced"]), array_of(state["born"])
        self.steps = int(state["steps"])


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
