"""Observations that change around any environment: the quickest way to see an agent lose plasticity."""

from typing import Any, Literal

import gymnasium
import numpy as np
from gymnasium.spaces import Box

KINDS = ("offset", "permute", "drift")


class ChangingObservation(gymnasium.Wrapper[np.ndarray, Any, np.ndarray, Any]):
    """Shows the same world through observations that are altered anew for every task.

    A task lasts `change_every` environment steps. With `x` the environment's observation, the agent sees in task k

    | kind      | instead of `x`                                                                           |
    |-----------|------------------------------------------------------------------------------------------|
    | `offset`  | `x + b_k`, `b_k ~ N(0, scale^2)` per coordinate                                          |
    | `permute` | `x[p_k]`, `p_k` a random permutation of the coordinates                                  |
    | `drift`   | `x + (1 - f) b_k + f b_(k+1)`, f the part of the task that has passed: no jump; a control |

    Offsets as in TRAC (Muppidi et al. 2024) and C-CHAIN (Tang et al. 2025). The k-th draw is that of
    `numpy.random.default_rng([seed, k])`: every method on the same seed meets the same tasks, and a continued run the
    tasks it would have met. `task` and `info["task"]` tell the index.

    Args:
        env: an environment with a one-dimensional `Box` observation.
        kind: "offset", "permute" or "drift".
        change_every: environment steps per task, at least 1.
        scale: standard deviation of the offsets, in the observation's units, >= 0.
        at_episode_end: change at the first episode that begins at or after the boundary; False: at the boundary itself,
            for environments whose episodes do not end.

    Raises:
        ValueError: an argument out of range, or an observation space of another kind.
    """

    def __init__(
        self,
        env: gymnasium.Env[Any, Any],
        *,
        kind: Literal["offset", "permute", "drift"] = "offset",
        change_every: int,
        scale: float = 2.0,
        at_episode_end: bool = True,
    ):
        super().__init__(env)
        if kind not in KINDS:
            raise ValueError(f"changing.kind={kind!r}: one of {', '.join(KINDS)}")
        if isinstance(change_every, bool) or not isinstance(change_every, int | np.integer) or change_every < 1:
            raise ValueError(f"changing.change_every={change_every!r}: a whole number of at least 1 is needed")
        if not 0 <= scale < np.inf:
            raise ValueError(f"changing.scale={scale!r}: a finite standard deviation of at least 0 is needed")
        space = env.observation_space
        if not isinstance(space, Box) or len(space.shape) != 1:
            raise ValueError(
                f"changing observations need a one-dimensional Box, not {space}: wrap the environment in "
                "gymnasium.wrappers.FlattenObservation first"
            )
        self.kind, self.change_every, self.scale, self.at_episode_end = kind, int(change_every), scale, at_episode_end
        if kind == "permute":
            low, high = np.full(space.shape, space.low.min()), np.full(space.shape, space.high.max())
        else:
            low, high = np.full(space.shape, -np.inf), np.full(space.shape, np.inf)
        self.observation_space = Box(low.astype(np.float32), high.astype(np.float32), dtype=np.float32)
        self.steps = 0
        self._task = 0
        self._life: int | None = None
        self._draw_task()

    @property
    def task(self) -> int:
        """Index of the task in force."""
        return self._task

    def _draw(self, task: int) -> np.ndarray:
        """Offset or permutation of a task."""
        assert isinstance(self.observation_space, Box)
        # before the first reset there is no life yet: `reset` draws again
        generator = np.random.default_rng([self._life or 0, task])
        size = self.observation_space.shape[0]
        if self.kind == "permute":
            return generator.permutation(size)
        return generator.normal(0.0, self.scale, size)

    def _draw_task(self) -> None:
        self._drawn = self._draw(self._task)
        self._following = self._draw(self._task + 1) if self.kind == "drift" else self._drawn

    def _enter(self) -> None:
        """Enter the task that the step count says."""
        if (task := self.steps // self.change_every) != self._task:
            self._task = task
            self._draw_task()

    def _altered(self, observation: np.ndarray) -> np.ndarray:
        if self.kind == "permute":
            return np.asarray(observation, np.float32)[self._drawn]
        offset = self._drawn
        if self.kind == "drift":
            # past the boundary, until the episode ends, the next task's offset is reached and kept
            passed = min((self.steps - self._task * self.change_every) / self.change_every, 1.0)
            offset = (1.0 - passed) * offset + passed * self._following
        return (observation + offset).astype(np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin the next episode or, with a seed, a new life: step 0, task 0, new draws."""
        observation, info = self.env.reset(seed=seed, options=options)
        if seed is not None or self._life is None:
            self._life = int(seed) if seed is not None else int(np.random.SeedSequence().generate_state(1)[0])
            self.steps, self._task = 0, 0
            self._draw_task()
        self._enter()
        return self._altered(observation), {**info, "task": np.int64(self._task)}

    def step(self, action: Any) -> tuple[np.ndarray, Any, bool, bool, dict[str, Any]]:
        """One step of the environment, seen as this task shows it."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        self.steps += 1
        if not self.at_episode_end:
            self._enter()
        return self._altered(observation), reward, terminated, truncated, {**info, "task": np.int64(self._task)}

    def state_dict(self) -> dict[str, Any]:
        """What this wrapper's future depends on; the wrapped environment's state is its own."""
        return {"life": self._life, "steps": self.steps, "task": self._task}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue bit for bit where `state_dict` was called."""
        self._life, self.steps, self._task = state["life"], state["steps"], state["task"]
        self._draw_task()
