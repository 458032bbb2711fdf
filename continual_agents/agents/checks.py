"""Ranges of the settings of agents; their types are the constructors'."""

from __future__ import annotations

from typing import Any


def check_ppo(settings: dict[str, Any]) -> None:
    """The settings of `PPO`.

    Raises:
        ValueError: a value out of range, naming it.
    """
    if settings["on_not_finite"] not in ("stop", "skip"):
        raise ValueError(f"agent.on_not_finite={settings['on_not_finite']}: stop or skip")
    batch, minibatch = settings["batch"], settings["minibatch"]
    if not 0 < minibatch <= batch or batch % minibatch:
        raise ValueError(f"agent.batch={batch} is not divisible into minibatches of agent.minibatch={minibatch}")
    if settings["epochs"] < 1:
        raise ValueError(f"agent.epochs={settings['epochs']}: at least one pass over the batch")
    for name in ("discount", "gae_lambda"):
        if not 0 <= settings[name] <= 1:
            raise ValueError(f"agent.{name}={settings[name]} lies outside [0, 1]")
    if not 0 < settings["clip"] < 1:
        raise ValueError(f"agent.clip={settings['clip']} lies outside (0, 1)")
    if settings["max_gradient_norm"] is not None and not settings["max_gradient_norm"] > 0:
        raise ValueError(f"agent.max_gradient_norm={settings['max_gradient_norm']} must be positive (null: no limit)")
    for name in ("value_coefficient", "entropy_coefficient"):
        if not settings[name] >= 0:
            raise ValueError(f"agent.{name}={settings[name]} must not be negative")
