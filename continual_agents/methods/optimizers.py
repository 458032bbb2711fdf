"""The optimizers that a method may ask for: one row each."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch

from continual_agents import surgery
from continual_agents.settings import check_settings, nearest, written

from .muon import Muon
from .trac import TRAC
from .upgd import UPGD


def _common_settings(
    *,
    kind: str = "adam",
    step_size: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
) -> None:
    """What every method may set; each optimizer reads what it has a use for."""


def _upgd_settings(*, sigma: float = 1e-3, utility_decay: float = 0.999) -> None:
    """What UPGD takes beyond Adam's."""


@dataclasses.dataclass(frozen=True)
class OptimizerRow:
    """One row.

    Attributes:
        make: constructor(parameters, **settings).
        names: what each setting of ours is called there.
        per_run: settings in which the runs of one stack may differ.
        settings: keyword arguments of settings beyond the common ones.
    """

    make: Callable[..., torch.optim.Optimizer]
    names: Mapping[str, str]
    per_run: tuple[str, ...] = ("step_size", "weight_decay")
    settings: Callable[..., Any] | None = None


OPTIMIZERS: dict[str, OptimizerRow] = {
    "adam": OptimizerRow(
        # one pass over memory instead of a dozen: a PPO update is a sixth faster
        functools.partial(surgery.Adam, fused=True),
        {"step_size": "lr", "betas": "betas", "eps": "eps", "weight_decay": "weight_decay"},
    ),
    "sgd": OptimizerRow(
        torch.optim.SGD,
        {"step_size": "lr", "momentum": "momentum", "weight_decay": "weight_decay"},
        per_run=("step_size", "momentum", "weight_decay"),
    ),
    "muon": OptimizerRow(
        Muon, {"step_size": "lr", **{key: key for key in ("betas", "eps", "momentum", "weight_decay")}}
    ),
    "trac": OptimizerRow(
        functools.partial(TRAC, fused=True),
        {"step_size": "lr", **{key: key for key in ("betas", "eps", "weight_decay")}},
    ),
    "upgd": OptimizerRow(
        UPGD,
        {"step_size": "lr", **{key: key for key in ("betas", "eps", "weight_decay", "sigma", "utility_decay")}},
        per_run=("step_size", "weight_decay", "sigma"),
        settings=_upgd_settings,
    ),
}
"""Optimizers by kind."""


def check_optimizer(where: str, settings: Mapping[str, Any]) -> None:
    """Whether there is such an optimizer, with settings of fitting types and in range.

    Raises:
        ValueError: there is not.
    """
    kind = settings.get("kind", "adam")
    row = OPTIMIZERS.get(kind) if isinstance(kind, str) else None
    check_settings(where, settings, _common_settings, *([row.settings] if row and row.settings else []))
    if kind not in OPTIMIZERS:
        raise ValueError(f"{where}.kind={kind} is unknown{nearest(kind, OPTIMIZERS)}")
    for name in ("step_size", "eps", "momentum", "weight_decay"):
        if not settings.get(name, 0.0) >= 0:
            raise ValueError(f"{where}.{name}={settings[name]}: must not be negative")
    if not settings.get("momentum", 0.0) < 1:
        raise ValueError(f"{where}.momentum={settings['momentum']}: must be below 1, or old gradients never fade")
    if not all(0 <= beta < 1 for beta in settings.get("betas", ())):
        raise ValueError(f"{where}.betas={written(settings['betas'])}: each lies in [0, 1)")
