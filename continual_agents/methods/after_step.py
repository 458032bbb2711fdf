"""What an operation is: something done to the network after each gradient step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from torch import nn

Modules = nn.Module | Mapping[str, nn.Module]
"""A network, or several by name (actor and critic)."""


class AfterStep(Protocol):
    """What runs after `optimizer.step()`. Surgery's companions satisfy it as they are."""

    def step(self) -> Any:
        """Do it once; called after every gradient step."""

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to continue exactly, as tensors and numbers."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict()`."""

    def report(self) -> dict[str, float]:
        """Numbers for the log, with names that need no prefix but the group's."""


def parameters_of(modules: Modules) -> list[nn.Parameter]:
    """Every parameter of one or several networks, in order."""
    parts = modules.values() if isinstance(modules, Mapping) else [modules]
    return [parameter for part in parts for parameter in part.parameters()]
