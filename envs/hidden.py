"""A task that needs a memory: CartPole whose velocities are not seen."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box


class HiddenVelocities(gymnasium.ObservationWrapper[np.ndarray, Any, np.ndarray]):
    """Shows some coordinates of an observation only.

    Args:
        env: with a one-dimensional `Box` as observation.
        shown: coordinates that are seen.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], shown: tuple[int, ...]):
        super().__init__(env)
        space = env.observation_space
        if not isinstance(space, Box) or len(space.shape) != 1:
            raise ValueError(f"hidden coordinates need a one-dimensional Box, not {space}")
        self.shown = list(shown)
        self.observation_space = Box(space.low[self.shown], space.high[self.shown], dtype=np.float32)

    def observation(self, observation: np.ndarray) -> np.ndarray:
        """The coordinates that are seen."""
        return np.asarray(observation, np.float32)[self.shown]

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the wrapped environment's state is its own."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to continue."""


def hidden_cartpole(**settings: Any) -> gymnasium.Env[Any, Any]:
    """CartPole of which cart position and pole angle are seen, and neither velocity."""
    from gymnasium.envs.classic_control import CartPoleEnv

    return HiddenVelocities(CartPoleEnv(**settings), (0, 2))
