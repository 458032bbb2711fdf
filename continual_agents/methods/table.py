"""What a method may do after a step: one row per operation."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from continual_agents import surgery

from .after_step import AfterStep, parameters_of
from .l2_init import PullToInit
from .perturb import Perturb
from .reset import Reset


@dataclasses.dataclass(frozen=True)
class Operation:
    """One row.

    Attributes:
        make: constructor(modules, optimizer, generator, **settings).
        settings: its keyword arguments are what the operation's settings are called, and of which type.
    """

    make: Callable[..., AfterStep]
    settings: Callable[..., Any]


OPERATIONS: dict[str, Operation] = {
    "continual_backprop": Operation(
        lambda modules, optimizer, generator, **settings: surgery.ContinualBackprop(
            surgery.find(modules), optimizer, generator=generator, **settings
        ),
        surgery.ContinualBackprop,
    ),
    # Mahmood and Sutton 2012: the ancestor, worth by weight alone
    "generate_and_test": Operation(
        lambda modules, optimizer, generator, **settings: surgery.ContinualBackprop(
            surgery.find(modules), optimizer, generator=generator, **{**surgery.GENERATE_AND_TEST, **settings}
        ),
        surgery.ContinualBackprop,
    ),
    "redo": Operation(
        lambda modules, optimizer, generator, **settings: surgery.ReDo(
            surgery.find(modules), optimizer, generator=generator, **settings
        ),
        surgery.ReDo,
    ),
    "perturb": Operation(
        lambda modules, optimizer, generator, **settings: Perturb(
            parameters_of(modules), generator=generator, **settings
        ),
        Perturb,
    ),
    "l2_init": Operation(
        lambda modules, optimizer, generator, **settings: PullToInit(parameters_of(modules), **settings), PullToInit
    ),
    "reset": Operation(
        lambda modules, optimizer, generator, **settings: Reset(modules, optimizer, generator=generator, **settings),
        Reset,
    ),
}
"""Operations by name."""
