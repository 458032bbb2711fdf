"""Resets at the start of a task."""

from __future__ import annotations

from typing import Any

import torch

from .after_step import AfterStep, Modules


def make_reset(
    modules: Modules, optimizer: torch.optim.Optimizer, generator: torch.Generator, **settings: Any
) -> AfterStep:
    """No reset: agents do not announce their tasks.

    Raises:
        ValueError: always.
    """
    raise ValueError("reset acts at the start of a task, which only streams announce: use it in a stream")


def reset_settings(*, layers: str = "head", keep_momentum: bool = False) -> None:
    """What `reset` takes, in streams."""
