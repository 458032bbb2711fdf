"""What a method does to a stack after each step or at the start of a task, besides surgery."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ..draws import Draw, torch_draws
from .continual_backprop import StackedContinualBackprop, StackedGenerateAndTest
from .network import StackedMlp
from .optimizers import StackedOptimizer
from .redo import StackedReDo
from .surgeon import common, only

BLOCK = 8192
"""Random numbers that a run draws at once, at least one step's."""


class Operation(Protocol):
    """After every optimizer step `follow`; after the steps that `next_step` names also `act`.

    Attributes:
        steps: optimizer steps done, counted by the learner (`follow` may be captured, and must not count).
    """

    steps: int

    @property
    def next_step(self) -> float:
        """The next step after which `act` is due; inf if never."""

    def follow(self, number: int) -> None:
        """The part of every step (number `number` from 0): fixed operations on the device."""

    def act(self) -> None:
        """The part of some steps."""

    def restart(self, runs: Sequence[int]) -> None:
        """These runs were drawn anew."""

    def report(self) -> dict[str, np.ndarray]:
        """Numbers for the table, each `[runs]`."""

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to continue exactly."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict()`."""


class Quiet:
    """An operation that never acts, knows no state and has nothing to tell; the others override what they need."""

    next_step = float("inf")
    steps = 0

    def follow(self, number: int) -> None:
        """Nothing."""

    def act(self) -> None:
        """Nothing."""

    def restart(self, runs: Sequence[int]) -> None:
        """Nothing."""

    def report(self) -> dict[str, np.ndarray]:
        """Nothing."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Nothing."""


class StackedPerturb(Quiet):
    """The noise of shrink-and-perturb (Ash and Adams 2020): `w <- w + noise * N(0, 1)` for every weight, each step.

    The shrinking is the optimizer's coupled weight decay.

    Args:
        stack: the networks.
        settings: per run: `noise`, standard deviation per step, at least 0.
    """

    def __init__(self, stack: StackedMlp, optimizer: StackedOptimizer, settings: Sequence[Mapping[str, Any]]):
        only(settings, "perturb", "noise")
        noise = [float(one["noise"]) for one in settings]
        if not all(value >= 0 for value in noise):
            raise ValueError(f"perturb.noise={min(noise)}: a standard deviation is at least 0")
        self.stack = stack
        self.noise = torch.tensor(noise, device=stack.device, dtype=stack.dtype).view(-1, 1, 1)
        self.targets = [layer.full[..., : layer.outputs] for layer in stack.layers]
        self.targets += [norm.affine for norm in stack.norms if norm is not None]
        self.sizes = [target[0].numel() for target in self.targets]
        self.length = max(1, BLOCK // sum(self.sizes))
        self._block: list[Tensor] | None = None

    def follow(self, number: int) -> None:
        """Add fresh noise."""
        block, place = divmod(number, self.length)
        if place == 0 or self._block is None:
            draws = [
                torch.randn(self.length, sum(self.sizes), generator=torch_draws(seed, Draw.NOISE, block))
                for seed in self.stack.seeds
            ]
            self._block = list(torch.stack(draws).to(self.stack.device, self.stack.dtype).split(self.sizes, -1))
        for target, part in zip(self.targets, self._block, strict=True):
            target.addcmul_(part[:, place].view_as(target), self.noise)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Nothing but to draw again: the noise follows from the number of the step."""
        self._block = None


class StackedPullToInit(Quiet):
    """L2 towards the initial weights (Kumar et al. 2023), decoupled: `w <- w + strength * (w_0 - w)` after each step.

    Args:
        stack: the networks; their weights at construction are `w_0`.
        settings: per run: `strength`, in [0, 1].
    """

    def __init__(self, stack: StackedMlp, optimizer: StackedOptimizer, settings: Sequence[Mapping[str, Any]]):
        only(settings, "l2_init", "strength")
        strength = [float(one["strength"]) for one in settings]
        if not all(0 <= value <= 1 for value in strength):
            raise ValueError(f"l2_init.strength={strength}: a fraction of the distance per step lies in [0, 1]")
        self.stack = stack
        self.strength = torch.tensor(strength, device=stack.device, dtype=stack.dtype).view(-1, 1, 1)
        self.initial = [tensor.clone() for tensor in stack.tensors]

    def follow(self, number: int) -> None:
        """Pull once."""
        for tensor, initial in zip(self.stack.tensors, self.initial, strict=True):
            tensor.lerp_(initial, self.strength)

    def restart(self, runs: Sequence[int]) -> None:
        """The new weights are the ones to pull to."""
        for tensor, initial in zip(self.stack.tensors, self.initial, strict=True):
            initial[list(runs)] = tensor[list(runs)]

    def state_dict(self) -> dict[str, Any]:
        """The initial weights."""
        return {"initial": [tensor.clone() for tensor in self.initial]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict()`."""
        for tensor, stored in zip(self.initial, state["initial"], strict=True):
            tensor.copy_(stored)


OPERATIONS: dict[str, Callable[..., Operation]] = {
    "continual_backprop": StackedContinualBackprop,
    "generate_and_test": StackedGenerateAndTest,
    "redo": StackedReDo,
    "perturb": StackedPerturb,
    "l2_init": StackedPullToInit,
}
"""Operations of a stack: name -> constructor(stack, optimizer, settings per run). `reset` is the learner's own."""

RESETS = ("head", "last", "all")
"""What `reset.layers` names: the output layer set to 0, the last two layers drawn anew, the network drawn anew."""


class Reset:
    """What is reset at the start of every task but the first.

    Args:
        settings: per run: `layers` of `RESETS`, and `keep_momentum` (a quirk of the published ImageNet code).

    Raises:
        ValueError: an unknown part of the network.
    """

    def __init__(self, settings: Sequence[Mapping[str, Any]]):
        only(settings, "reset", "layers", "keep_momentum", "birth")
        self.layers = common(settings, "layers", "head")
        self.keep_momentum = bool(common(settings, "keep_momentum", False))
        if self.layers not in RESETS:
            raise ValueError(f"reset.layers={self.layers!r}: one of {', '.join(RESETS)}")

    def __call__(self, stack: StackedMlp, optimizer: StackedOptimizer, task: int) -> bool:
        """Reset before task number `task`; whether the whole network was drawn anew."""
        runs = range(stack.runs)
        head = len(stack.layers) - 1
        if self.layers == "head":
            stack.layers[head].full.zero_()
            numbers: list[int] | None = [head]
        elif self.layers == "last":
            numbers = list(range(max(head - 1, 0), head + 1))
            stack.draw(runs, start=task, layers=numbers)
        else:
            numbers = None
            stack.draw(runs, start=task)
        if not self.keep_momentum:
            optimizer.restart(runs, numbers)
        return numbers is None
