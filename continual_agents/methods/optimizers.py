"""The optimizers that a method may ask for."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch

from continual_agents import surgery
from continual_agents.settings import check_settings, nearest, written

OPTIMIZERS: dict[str, tuple[Callable[..., torch.optim.Optimizer], dict[str, str]]] = {
    "adam": (
        # one pass over memory instead of a dozen: a PPO update is a sixth faster
        functools.partial(surgery.Adam, fused=True),
        {"step_size": "lr", "betas": "betas", "eps": "eps", "weight_decay": "weight_decay"},
    ),
    "sgd": (torch.optim.SGD, {"step_size": "lr", "momentum": "momentum", "weight_decay": "weight_decay"}),
}
"""Optimizer kinds: constructor, and what each setting of ours is called there."""


def _optimizer_settings(
    *,
    kind: str = "adam",
    step_size: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
) -> None:
    """What the optimizers take; each reads what it has a use for."""


def check_optimizer(where: str, settings: Mapping[str, Any]) -> None:
    """Whether there is such an optimizer, with settings of fitting types and in range.

    Raises:
        ValueError: there is not.
    """
    check_settings(where, settings, _optimizer_settings)
    kind = settings.get("kind", "adam")
    if kind not in OPTIMIZERS:
        raise ValueError(f"{where}.kind={kind} is unknown{nearest(kind, OPTIMIZERS)}")
    for name in ("step_size", "eps", "momentum", "weight_decay"):
        if not settings.get(name, 0.0) >= 0:
            raise ValueError(f"{where}.{name}={settings[name]}: must not be negative")
    if not settings.get("momentum", 0.0) < 1:
        raise ValueError(f"{where}.momentum={settings['momentum']}: must be below 1, or old gradients never fade")
    if not all(0 <= beta < 1 for beta in settings.get("betas", ())):
        raise ValueError(f"{where}.betas={written(settings['betas'])}: each lies in [0, 1)")
