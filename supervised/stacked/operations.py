"""What a method does to a stack after each step or at the start of a task."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from continual_agents.methods import OPERATIONS, Method

from .continual_backprop import StackedContinualBackprop, StackedGenerateAndTest
from .network import StackedMlp
from .optimizers import OPTIMIZERS, StackedOptimizer
from .redo import StackedReDo, StackedReGraMa
from .surgeon import common
from .target import StackTarget

SURGERY: dict[str, Callable[..., Operation]] = {
    "continual_backprop": StackedContinualBackprop,
    "generate_and_test": StackedGenerateAndTest,
    "redo": StackedReDo,
    "regrama": StackedReGraMa,
}
"""Operations with a form for stacks: name -> constructor(stack, optimizer, settings per run). Any subclass of
`continual_agents.methods.Operation` needs none."""


class Operation(Protocol):
    """After every optimizer step `follow_step`; after the steps that `next_step` names also `act_now`.

    Attributes:
        steps: optimizer steps done, counted by the learner (`follow_step` may be captured, and must not count).
        follows: whether there is something to do at every step.
        draws: whether every step draws random numbers.
    """

    steps: int

    @property
    def follows(self) -> bool:
        """As above."""

    @property
    def draws(self) -> bool:
        """As above."""

    @property
    def next_step(self) -> float:
        """The next step after which `act_now` is due; inf if never."""

    def follow_step(self, number: int) -> None:
        """The part of every step (number `number` from 0): fixed operations on the device."""

    def act_now(self) -> None:
        """The part of some steps."""

    def start_task(self, index: int) -> None:
        """At the start of task `index`, from 0."""

    def report(self) -> dict[str, np.ndarray]:
        """Numbers for the table, each `[runs]`."""

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to continue exactly."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict()`."""


def obstacle(method: Method) -> str | None:
    """What of a method has no form for stacks, so that its runs are trained one after the other; None if nothing.

    Args:
        method: of the runs.
    """
    kind = method.optimizer.get("kind", "adam")
    if kind not in OPTIMIZERS:
        return f"optimizer {kind}"
    return next((name for name in method.operations if name not in SURGERY and not OPERATIONS[name].stacks), None)


def make_operations(stack: StackedMlp, optimizer: StackedOptimizer, methods: Sequence[Method]) -> dict[str, Any]:
    """The operations of a stack by name.

    Args:
        stack: the networks.
        optimizer: what trains them.
        methods: one per run, equal in the names of their operations.

    Raises:
        ValueError: a setting out of range, or one that runs of a stack cannot differ in.
    """
    target = StackTarget(stack, optimizer)
    made: dict[str, Any] = {}
    for name in methods[0].operations:
        settings = [method.operations[name] for method in methods]
        if name in SURGERY:
            made[name] = SURGERY[name](stack, optimizer, settings)
        else:
            made[name] = methods[0].make_operation(name, target, _together(name, settings, target))
    return made


def _together(name: str, settings: Sequence[Mapping[str, Any]], target: StackTarget) -> dict[str, Any]:
    """Settings of all runs as one: tensors where they may differ, else the common value."""
    row = OPERATIONS[name]
    defaults = {key: one.default for key, one in inspect.signature(row.make).parameters.items()}
    together: dict[str, Any] = {}
    for key in dict.fromkeys(key for one in settings for key in one):
        # a number a run where the formula can take one, else runs that differ would not be one stack
        if key in row.per_run:
            together[key] = target.per_run([float(one.get(key, defaults.get(key))) for one in settings])
        else:
            together[key] = common(settings, key, defaults.get(key))
    return together
