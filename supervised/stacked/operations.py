"""What a method does to a stack after each step or at the start of a task."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from continual_agents import methods
from continual_agents.methods import OPERATIONS, Method

from .continual_backprop import StackedContinualBackprop, StackedGenerateAndTest
from .network import StackedMlp
from .optimizers import OPTIMIZERS, StackedOptimizer
from .redo import StackedReDo, StackedReGraMa
from .surgeon import StackedSurgery, common
from .target import StackTarget

SURGERY: dict[str, Callable[..., StackedSurgery]] = {
    "continual_backprop": StackedContinualBackprop,
    "generate_and_test": StackedGenerateAndTest,
    "redo": StackedReDo,
    "regrama": StackedReGraMa,
}
"""Operations with a form for stacks: name -> constructor(stack, optimizer, settings per run). Any subclass of
`continual_agents.methods.Operation` needs none."""


Operation = methods.Operation | StackedSurgery
"""After every optimizer step `follow_step`; after the steps that `next_step` names also `act_now`. The learner counts
their `steps`: `follow_step` may be captured, and must not."""


def obstacle(method: Method) -> str | None:
    """What of a method has no form for stacks, so that its runs are trained one after the other; None if nothing.

    Args:
        method: of the runs.
    """
    kind = method.optimizer.get("kind", "adam")
    if kind not in OPTIMIZERS:
        return f"optimizer {kind}"
    return next((name for name in method.operations if name not in SURGERY and not OPERATIONS[name].stacks), None)


def make_operations(stack: StackedMlp, optimizer: StackedOptimizer, runs: Sequence[Method]) -> dict[str, Any]:
    """The operations of a stack by name.

    Args:
        stack: the networks.
        optimizer: what trains them.
        runs: the method of each, equal in the names of their operations.

    Raises:
        ValueError: a setting out of range, or one that runs of a stack cannot differ in.
    """
    target = StackTarget(stack, optimizer)
    made: dict[str, Any] = {}
    for name in runs[0].operations:
        settings = [method.operations[name] for method in runs]
        if name in SURGERY:
            made[name] = SURGERY[name](stack, optimizer, settings)
        else:
            made[name] = runs[0].make_operation(name, target, _together(name, settings, target))
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
