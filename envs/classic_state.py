"""The state of gymnasium's classic control environments, which have no `state_dict` of their own, as plain data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
from gymnasium.wrappers import TimeLimit

PLAIN = (type(None), bool, int, float, str, np.ndarray, np.number)
"""What a classic environment's future depends on is held in attributes of these types, and tuples and lists of them."""


def _plain(value: Any) -> bool:
    return isinstance(value, PLAIN) or (isinstance(value, tuple | list) and all(map(_plain, value)))


def _layers(env: gymnasium.Env[Any, Any]) -> Iterator[gymnasium.Env[Any, Any]]:
    """The wrappers from the outside in, and the environment itself."""
    while isinstance(env, gymnasium.Wrapper):
        yield env
        env = env.env
    yield env


def can_be_saved(env: gymnasium.Env[Any, Any]) -> bool:
    """Whether `classic_state` holds all that this environment's future depends on."""
    return hasattr(env.unwrapped, "state_dict") or type(env.unwrapped).__module__.startswith(
        "gymnasium.envs.classic_control"
    )


def classic_state(env: gymnasium.Env[Any, Any]) -> dict[str, Any]:
    """Attributes, generator and elapsed time limits of `env`; its own `state_dict` where it has one.

    Raises:
        ValueError: an environment of another family without a `state_dict`.
    """
    source: Any = env.unwrapped
    limits = [layer._elapsed_steps for layer in _layers(env) if isinstance(layer, TimeLimit)]
    if hasattr(source, "state_dict"):
        return {"own": source.state_dict(), "elapsed_steps": limits}
    if not can_be_saved(env):
        raise ValueError(
            f"{type(source).__name__} has no state_dict: give it one (and load_state_dict), or its runs continue with "
            "a new episode"
        )
    attributes = {name: value for name, value in vars(source).items() if _plain(value) and name != "_np_random_seed"}
    return {
        "attributes": attributes,
        "generator": source.np_random.bit_generator.state,
        "seed": source._np_random_seed,
        "elapsed_steps": limits,
    }


def set_classic_state(env: gymnasium.Env[Any, Any], state: dict[str, Any]) -> None:
    """Continue from `classic_state()`."""
    source: Any = env.unwrapped
    if "own" in state:
        source.load_state_dict(state["own"])
    else:
        for name, value in state["attributes"].items():
            # arrays come back from a checkpoint as tensors; a copy, for the environment writes in place
            setattr(source, name, np.array(value) if hasattr(value, "__array__") else value)
        generator = np.random.Generator(np.random.PCG64())
        generator.bit_generator.state = state["generator"]
        source._np_random, source._np_random_seed = generator, state["seed"]
    limits = [layer for layer in _layers(env) if isinstance(layer, TimeLimit)]
    for limit, steps in zip(limits, state["elapsed_steps"], strict=True):
        limit._elapsed_steps = steps
