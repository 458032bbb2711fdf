"""Any gymnasium environment as the collector wants it, and what can be known and kept of it."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv, VectorWrapper
from gymnasium.wrappers import TimeLimit

Environment = gymnasium.Env[Any, Any] | VectorEnv[Any, Any, Any]


def make_environment(source: str | Callable[[], Any] | Environment, count: int = 1) -> Environment:
    """One environment, or `count` of them in this process as a vector environment that the collector resets itself.

    Args:
        source: a gymnasium id, a callable that returns an environment, or an environment.
        count: how many; a ready-made environment is taken as it is.

    Raises:
        ValueError: `count` below 1, or an unknown id, with the nearest known one.
        TypeError: a source of another kind.
    """
    if count < 1:
        raise ValueError(f"environment.count={count}: at least one environment is needed")
    if isinstance(source, gymnasium.Env | VectorEnv):
        return source
    if isinstance(source, str):
        name = source
        try:
            gymnasium.spec(name)
        except gymnasium.error.Error as error:
            near = difflib.get_close_matches(name, gymnasium.registry, n=1)
            hint = f"did you mean {near[0]!r}?" if near else "is the package that registers it imported?"
            raise ValueError(f"environment.id={name!r} is not registered with gymnasium: {hint}") from error
        make: Callable[[], Any] = lambda: gymnasium.make(name, disable_env_checker=True)  # noqa: E731
    elif callable(source):
        make = source
    else:
        raise TypeError(f"an environment, a gymnasium id or a callable is needed, got {type(source).__name__}")
    if count == 1:
        environment: Environment = make()
        return environment
    return SyncVectorEnv([make] * count, autoreset_mode=AutoresetMode.DISABLED)


def tell(environment: Environment, name: str) -> np.ndarray:
    """What the environments say of themselves (`friction`, `task`), float64 `[envs]`; nan where they say nothing."""
    if isinstance(environment.unwrapped, SyncVectorEnv):
        return np.array([_said(member, name) for member in _members(environment)], dtype=np.float64)
    value = np.asarray(_said(environment, name), dtype=np.float64)
    return np.broadcast_to(value, (getattr(environment, "num_envs", 1),))


def _layers(environment: Any) -> list[Any]:
    """The wrappers from the outside in, and the environment itself."""
    found = [environment]
    while isinstance(found[-1], gymnasium.Wrapper | VectorWrapper):
        found.append(found[-1].env)
    return found


def _said(environment: Any, name: str) -> Any:
    """An attribute of the outermost layer that has it: a wrapper may announce tasks of its own."""
    return next((getattr(layer, name) for layer in _layers(environment) if hasattr(layer, name)), np.nan)


def environment_state(environment: Environment) -> dict[str, Any] | None:
    """State of the environment and of the time limits around it; None if the environment has no `state_dict`."""
    states = [_state(member) for member in _members(environment)]
    return None if any(state is None for state in states) else {"members": states}


def set_environment_state(environment: Environment, state: dict[str, Any]) -> None:
    """Continue from `environment_state()`."""
    for member, stored in zip(_members(environment), state["members"], strict=True):
        _stateful(member).load_state_dict(stored["state"])
        for limit, steps in zip(_time_limits(member), stored["elapsed_steps"], strict=True):
            limit._elapsed_steps = steps


def _members(environment: Environment) -> list[Any]:
    """The environments that have states of their own: a SyncVectorEnv's, or the environment itself."""
    source = environment.unwrapped
    return list(source.envs) if isinstance(source, SyncVectorEnv) else [environment]


def _state(member: Any) -> dict[str, Any] | None:
    source = _stateful(member)
    if source is None:
        return None
    return {
        "state": source.state_dict(),
        "elapsed_steps": [limit._elapsed_steps for limit in _time_limits(member)],
    }


def _stateful(member: Any) -> Any:
    """The outermost layer that can say its state and, with it, that of what it wraps; None if there is none."""
    for layer in _layers(member):
        if hasattr(layer, "state_dict") and getattr(layer, "saves_environment", True):
            return layer
    return None


def _time_limits(member: Any) -> list[TimeLimit]:
    """The wrappers that count steps, from the outside in. Gymnasium gives their count no public name."""
    return [layer for layer in _layers(member) if isinstance(layer, TimeLimit)]
