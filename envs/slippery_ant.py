"""`SlipperyAnt-v0` and its kin: PyBullet's walkers on ground whose friction changes during the agent's life."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium.spaces import Box

from .friction import FrictionSchedule
from .walker import Walker


class SlipperyAnt(gymnasium.Env[np.ndarray, np.ndarray]):
    """PyBullet's ant on slippery ground."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 60}

    def __init__(
        self,
        *,
        robot: str = "ant",
        friction: float | FrictionSchedule = FrictionSchedule(),
        time_limit: int | None = 1000,
        render_mode: str | None = None,
    ) -> None:
        self.render_mode = render_mode
        self._walker = Walker(robot, friction, time_limit=time_limit)
        self.action_space = Box(-1.0, 1.0, (self._walker.action_size,), np.float32)
        self.observation_space = Box(-5.0, 5.0, (self._walker.observation_size,), np.float32)

    @property
    def friction(self) -> float:
        """Effective friction between ground and robot now."""
        return self._walker.friction

    @property
    def task(self) -> int:
        """Index of the friction segment that is in force."""
        return self._walker.task

    @property
    def steps(self) -> int:
        """Environment steps of this life."""
        return self._walker.steps

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin an episode; with a seed, a new life."""
        newborn = self._np_random is None
        super().reset(seed=seed)
        generator = self.np_random
        if seed is not None or newborn:
            self._walker.begin(self.np_random_seed)
        observation = np.empty(self.observation_space.shape, np.float32)
        self._walker.reset(generator, observation)
        return observation, {"friction": self._walker.friction, "task": self._walker.task}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Apply torques for one step of 16.5 ms."""
        walker = self._walker
        action = np.asarray(action, dtype=np.float32)
        observation = np.empty(walker.observation_size, np.float32)
        reward, terminated, truncated = walker.step(action, observation)
        return observation, reward, terminated, truncated, {"friction": walker.friction, "task": walker.task}

    def state_dict(self) -> dict[str, Any]:
        """Everything that the future depends on: numbers, strings, lists, dicts and one uint8 array."""
        return {**self._walker.state_dict(), "generator": self.np_random.bit_generator.state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue bit for bit where `state_dict` was called, in this process or another one."""
        self._walker.load_state_dict(state)
        self._np_random, self._np_random_seed = np.random.Generator(np.random.PCG64(0)), self._walker.seed
        self._np_random.bit_generator.state = state["generator"]

    def close(self) -> None:
        """Free the simulator's client."""
        self._walker.close()
