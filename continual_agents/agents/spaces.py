"""Observation and action spaces of all kinds as the agents have them: a vector in, a number or a vector out."""

import math
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import FlattenObservation, TransformAction

LARGEST = 1_000
"""Most combinations of several discrete actions that are offered as one choice."""


def fit_spaces(environment: gymnasium.Env[Any, Any]) -> gymnasium.Env[Any, Any]:
    """The environment with a one-dimensional `Box` as observation, and a `Discrete` from 0 or such a `Box` as action.

    | space                                         | becomes                                             |
    |-----------------------------------------------|-----------------------------------------------------|
    | observations: Dict, Tuple, Discrete, Multi... | gymnasium's `FlattenObservation`: one-hot, in a row |
    | observations: Box of 0 or several dimensions  | the same, numbers in a row                          |
    | observations: pictures (`is_picture`)         | themselves                                          |
    | actions: Discrete from another number         | Discrete from 0                                     |
    | actions: MultiDiscrete, MultiBinary, int Box  | Discrete over all combinations, at most 1,000       |
    | actions: Box of 0 or several dimensions       | the same numbers in a row                           |

    Args:
        environment: one environment; returned as it is where nothing is to be done.

    Raises:
        ValueError: spaces that hold nothing, or too many combinations.
    """
    return _fit_actions(_fit_observations(environment))


def _fit_observations(environment: gymnasium.Env[Any, Any]) -> gymnasium.Env[Any, Any]:
    space = environment.observation_space
    if not space.is_np_flattenable:
        raise ValueError(f"observation space {space} has no fixed length: wrap the environment so that it has one")
    if spaces.flatdim(space) == 0:
        raise ValueError(f"observation space {_brief(space)} is empty: there is nothing to learn from")
    if is_picture(space) or (isinstance(space, spaces.Box) and len(space.shape) == 1):
        return environment
    return FlattenObservation(environment)


def is_picture(space: spaces.Space[Any]) -> bool:
    """Whether observations are pictures: a `Box` of uint8 and three dims, channels last or (where fewest) first."""
    return isinstance(space, spaces.Box) and space.dtype == np.uint8 and len(space.shape) == 3


def size_of(space: spaces.Space[Any]) -> int:
    """How many numbers an observation has.

    Raises:
        ValueError: it is no row of numbers.
    """
    if is_picture(space):
        raise ValueError(
            f"observation space {_brief(space)} holds pictures, which agent.kind=dqn and ppo see: use one of them, or "
            "wrap the environment in gymnasium.wrappers.FlattenObservation"
        )
    if not isinstance(space, spaces.Box) or len(space.shape) != 1:
        raise ValueError(
            f"observation space {space} is not a one-dimensional Box: wrap the environment "
            "(continual_agents.agents.fit_spaces)"
        )
    return int(space.shape[0])


def outputs_of(space: spaces.Space[Any]) -> tuple[int, bool]:
    """How many outputs a policy has, and whether they are the means of a Gaussian (a Box) or logits (Discrete from 0).

    Raises:
        ValueError: a space of another kind.
    """
    if isinstance(space, spaces.Box) and len(space.shape) == 1:
        return space.shape[0], True
    if isinstance(space, spaces.Discrete) and space.start == 0:
        return int(space.n), False
    raise ValueError(
        f"action space {space} is neither a one-dimensional Box nor a Discrete from 0: wrap the environment "
        "(continual_agents.agents.fit_spaces)"
    )


def _fit_actions(environment: gymnasium.Env[Any, Any]) -> gymnasium.Env[Any, Any]:
    space = environment.action_space
    if isinstance(space, spaces.Discrete):
        if space.start == 0:
            return environment
        start = int(space.start)
        return TransformAction(environment, lambda action: int(action) + start, spaces.Discrete(int(space.n)))
    if isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.floating):
        if 0 in space.shape:
            raise ValueError(f"action space {_brief(space)} is empty: there is nothing to do")
        if len(space.shape) == 1:
            return environment
        shape = space.shape
        low, high = space.low.reshape(-1), space.high.reshape(-1)
        row = spaces.Box(low, high, dtype=space.dtype.type)  # type: ignore[arg-type]
        return TransformAction(environment, lambda action: np.asarray(action).reshape(shape), row)
    lowest, counts = _choices(space)
    # Python's whole numbers: a product of many counts would go round in int64 and look small
    combinations = int(np.prod([int(count) for count in counts], dtype=object))
    if combinations > LARGEST:
        raise ValueError(
            f"action space {_brief(space)} has {combinations:,} combinations, more than {LARGEST:,} cannot be one "
            "choice: wrap the environment in gymnasium.wrappers.TransformAction with fewer, or with a Box of floats"
        )

    def chosen(action: Any) -> np.ndarray:
        values = np.array(np.unravel_index(int(action), counts)).reshape(lowest.shape) + lowest
        return values.astype(space.dtype)

    return TransformAction(environment, chosen, spaces.Discrete(combinations))


def _choices(space: spaces.Space[Any]) -> tuple[np.ndarray, tuple[int, ...]]:
    """The lowest value of each part of a space of whole numbers, and how many values each part has."""
    if isinstance(space, spaces.MultiDiscrete):
        return np.asarray(space.start), tuple(space.nvec.reshape(-1).tolist())
    if isinstance(space, spaces.MultiBinary):
        lowest = np.zeros(space.shape, np.int64)
        return lowest, (2,) * lowest.size
    if isinstance(space, spaces.Box) and space.is_bounded() and 0 not in space.shape:
        counts = space.high.astype(np.int64) - space.low.astype(np.int64) + 1
        return space.low.astype(np.int64), tuple(counts.reshape(-1).tolist())
    raise ValueError(
        f"action space {_brief(space)} is none that these agents act in: wrap the environment in "
        "gymnasium.wrappers.TransformAction with a Discrete or a Box"
    )


def lost_by_clipping(space: spaces.Space[Any]) -> str | None:
    """What a Gaussian policy, which begins near mean 0 with deviation 1, loses where its actions are only clipped.

    Returns:
        a sentence where more than half of its first actions fall outside of the bounds, or more than half of the range
        lies beyond two deviations; None: nothing of the kind.
    """
    if not isinstance(space, spaces.Box) or not space.is_bounded() or not np.issubdtype(space.dtype, np.floating):
        return None
    low, high = space.low.astype(np.float64).reshape(-1), space.high.astype(np.float64).reshape(-1)
    below = [0.5 * math.erfc(-bound / math.sqrt(2.0)) for bound in (*low, *high)]  # the normal distribution function
    outside = 1.0 - float(np.min(np.subtract(below[len(low) :], below[: len(low)])))
    beyond = 1.0 - float(np.min((np.minimum(high, 2.0) - np.maximum(low, -2.0)).clip(0.0) / (high - low)))
    bounds = f"actions from {low.min():g} to {high.max():g}"
    if outside > 0.5:
        return f"{bounds}: {outside:.0%} of the first actions lie outside and are clipped"
    return f"{bounds}: {beyond:.0%} of that range lie beyond the reach of the first actions" if beyond > 0.5 else None


def _brief(space: spaces.Space[Any]) -> str:
    """A space in one line; a Box with different bounds prints all of them."""
    if isinstance(space, spaces.Box):
        return f"Box(shape={space.shape}, {space.dtype})"
    return " ".join(str(space).split())
