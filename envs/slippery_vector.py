"""Many slippery walkers in one process as one gymnasium vector environment."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.spaces import Box
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from .friction import SLIPPERY, FrictionSchedule, check_friction
from .walker import STATE_VERSION, Walker

Friction = float | FrictionSchedule


class SlipperyVectorEnv(VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """`n` environments like `SlipperyAnt`, each in a simulator of its own, stepped in turn by one call.

    Every member gives, bit for bit, what a `SlipperyAnt` with its seed and friction gives. Observations, rewards, ends
    and infos are written straight into batched arrays; the arrays that are returned belong to the caller.

    Autoreset is disabled: `step` returns the true last observation of an episode, and the caller begins the next one
    with `reset(options={"reset_mask": terminated | truncated})`, which returns the observations of all members.

    Each member has its own friction schedule, its own steps and so its own task. `info["friction"]` and `info["task"]`,
    as well as the properties, are arrays of shape `[n]`.

    Args:
        robot: Key of `envs.ROBOTS`.
        n: Number of members, at least 1; about 28 MB of memory each.
        friction: What `SlipperyAnt` takes, for all members, or one per member. Schedules without a seed of their own
            draw differently in every member.
        time_limit: Steps after which an episode is truncated; None: never.
        merge_fixed_links: As in `SlipperyAnt`.
        render_mode: "rgb_array": `render()` gives one picture per member; None: no pictures.
        render_size: Width and height of a picture in pixels.

    Raises:
        ValueError: `n` is below 1 or does not fit the number of frictions, or an argument is out of range.

    Example:
        >>> vector = SlipperyVectorEnv("ant", 2, friction=[0.1, 1.2])
        >>> observations, infos = vector.reset(seed=0)
        >>> observations.shape, infos["friction"].tolist()
        ((2, 28), [0.1, 1.2])
        >>> vector.close()
    """

    metadata: ClassVar[dict[str, Any]] = {  # type: ignore[misc]
        "render_modes": ["rgb_array"],
        "render_fps": 61,
        "autoreset_mode": AutoresetMode.DISABLED,
    }
    autoreset_mode = AutoresetMode.DISABLED

    def __init__(
        self,
        robot: str = "ant",
        n: int = 1,
        *,
        friction: Friction | Sequence[Friction] = SLIPPERY,
        time_limit: int | None = 1000,
        merge_fixed_links: bool = False,
        render_mode: str | None = None,
        render_size: tuple[int, int] = (320, 240),
    ) -> None:
        if not isinstance(n, (int, np.integer)):
            raise TypeError(f"n must be a whole number of environments, got {n!r}")
        if n < 1:
            raise ValueError(f"n must be at least 1 environment, got {n}")
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode must be 'rgb_array' or None, got {render_mode!r}")
        frictions = list(friction) if isinstance(friction, Sequence) else [friction] * n
        if len(frictions) != n:
            raise ValueError(f"friction must be one for all or one for each of the n={n} members, got {len(frictions)}")
        self.num_envs = n
        self.render_mode = render_mode
        self._render_size = render_size
        self._walkers: list[Walker] = []
        for one in frictions:
            self._walkers.append(Walker(robot, one, time_limit=time_limit, merge_fixed_links=merge_fixed_links))
        first = self._walkers[0]
        self.single_action_space = Box(-1.0, 1.0, (first.action_size,), np.float32)
        self.single_observation_space = Box(-5.0, 5.0, (first.observation_size,), np.float32)
        self.action_space = batch_space(self.single_action_space, n)
        self.observation_space = batch_space(self.single_observation_space, n)
        self._action_shape = (n, first.action_size)
        self._observations = np.zeros((n, first.observation_size), np.float32)
        self._rewards = np.zeros(n)
        self._terminated, self._truncated = np.zeros(n, bool), np.zeros(n, bool)
        self._every = np.ones(n, bool)
        # handed out with every info, and the mask of a reset of all: nobody may write into it
        self._every.flags.writeable = False
        self._read_friction()

    def _read_friction(self) -> None:
        self._friction = np.array([walker.friction for walker in self._walkers])
        self._task = np.array([walker.task for walker in self._walkers])

    @property
    def friction(self) -> np.ndarray:
        """Effective friction of every member now, float64 of shape `[n]`; nan before the first reset."""
        return self._friction.copy()

    @property
    def task(self) -> np.ndarray:
        """Index of the friction segment in force in every member, int64 of shape `[n]`."""
        return self._task.copy()

    @property
    def steps(self) -> np.ndarray:
        """Environment steps of every member's life, over all its episodes, int64 of shape `[n]`."""
        return np.array([walker.steps for walker in self._walkers])

    def _info(self) -> dict[str, Any]:
        # Gymnasium's convention: the mask says for which members the entry holds.
        return {"friction": self.friction, "_friction": self._every, "task": self.task, "_task": self._every}

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin the next episode of all members or of those in `options["reset_mask"]`; with a seed, a new life.

        Args:
            seed: Member i gets `seed + i`, or the i-th of a list; None: the life goes on.
            options: `"reset_mask"`: bool array of shape `[n]`; `"friction"`: one for all members that begin, or one
                for each member, from now on until their schedule's next change.

        Returns:
            Observations of all members, also of those not reset; infos.

        Raises:
            ValueError: the mask, the list of seeds or of frictions has another shape; a friction is out of range.
            TypeError: the mask is not a bool array, a friction is no number.
        """
        mask, seeds = self._check_mask((options or {}).get("reset_mask")), self._seeds(seed)
        frictions = self._frictions((options or {}).get("friction"))
        for index in np.flatnonzero(mask):
            walker, own = self._walkers[index], seeds[index]
            if own is not None or walker.generator is None:
                walker.begin(*seeding.np_random(own))
            walker.reset(self._observations[index])
            if frictions is not None:
                walker.choose_friction(frictions[index])
        self._read_friction()
        return self._observations.copy(), self._info()

    def _seeds(self, seed: int | Sequence[int | None] | None) -> list[int | None]:
        if seed is None:
            return [None] * self.num_envs
        if isinstance(seed, (int, np.integer)):
            return [int(seed) + index for index in range(self.num_envs)]
        if len(seed) != self.num_envs:
            raise ValueError(f"a list of seeds must have one for each of the {self.num_envs} members, got {len(seed)}")
        return list(seed)

    def _frictions(self, given: Any) -> list[float] | None:
        if given is None:
            return None
        each = [given] * self.num_envs if np.ndim(given) == 0 else list(given)
        if len(each) != self.num_envs:
            raise ValueError(
                f"options['friction'] must be one for each of the {self.num_envs} members, got {len(each)}"
            )
        return [check_friction(one, "options['friction']") for one in each]

    def _check_mask(self, mask: Any) -> np.ndarray:
        if mask is None:
            return self._every
        if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_:
            kind = mask.dtype if isinstance(mask, np.ndarray) else type(mask).__name__
            raise TypeError(f"options['reset_mask'] must be a NumPy array of bool, got {kind}")
        if mask.shape != (self.num_envs,):
            raise ValueError(f"options['reset_mask'] must have shape ({self.num_envs},), got {mask.shape}")
        return mask

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Apply torques `[n, joints]` in every member for one step of 16.5 ms.

        Returns:
            Observations float32 `[n, size]`, rewards float64 `[n]`, terminated and truncated bool `[n]`, infos.

        Raises:
            gymnasium.error.ResetNeeded: an episode is over and was not reset.
            ValueError: the actions have another shape or numbers that are not finite.
        """
        actions = np.asarray(actions, np.float32)
        self._check_step(actions)
        observations, rewards = self._observations, self._rewards
        terminated, truncated = self._terminated, self._truncated
        pairs = list(zip(self._walkers, actions.tolist(), strict=True))
        # All simulate, then all look: 5% faster than one member after the other, which throws each other's code out of
        # the processor's cache.
        for walker, action in pairs:
            walker.act(action)
        for index, (walker, action) in enumerate(pairs):
            rewards[index], terminated[index], truncated[index] = walker.sense(action, observations[index])
            self._friction[index], self._task[index] = walker.friction, walker.task
        return observations.copy(), rewards.copy(), terminated.copy(), truncated.copy(), self._info()

    def _check_step(self, actions: np.ndarray) -> None:
        if actions.shape != self._action_shape:
            raise ValueError(f"the actions must have shape {self._action_shape}, got {actions.shape}")
        if not np.isfinite(actions).all():
            index = int(np.argmin(np.isfinite(actions).all(axis=1)))
            raise ValueError(
                f"the action of member {index} must be finite, got {actions[index]}: the policy has diverged"
            )
        over = [index for index, walker in enumerate(self._walkers) if walker.needs_reset]
        if over:
            raise ResetNeeded(
                f"no episode is running in members {over}: call reset(options={{'reset_mask': terminated | truncated}})"
            )

    def render(self) -> tuple[np.ndarray, ...] | None:  # type: ignore[override]
        """One picture per member, uint8 of shape `[height, width, 3]`, with render mode "rgb_array"; otherwise None."""
        if self.render_mode is None:
            gymnasium.logger.warn('render() gives pictures only with render_mode="rgb_array"')
            return None
        return tuple(walker.world.picture(*self._render_size) for walker in self._walkers)

    def state_dict(self) -> dict[str, Any]:
        """Everything that the future of all members depends on, in the form of `SlipperyAnt.state_dict`."""
        return {
            "version": STATE_VERSION,
            "observations": self._observations.copy(),
            "walkers": [walker.state_dict() for walker in self._walkers],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue bit for bit where `state_dict` was called, in this process or another one.

        Raises:
            ValueError: the state is damaged or of another number of members, robot, link merging or version.
        """
        walkers = state.get("walkers", [])
        if len(walkers) != self.num_envs:
            raise ValueError(
                f"the state is of {len(walkers)} environments, this vector has n={self.num_envs}: make it with "
                f"n={len(walkers)}"
            )
        # all are looked at before the first one changes
        for walker, stored in zip(self._walkers, walkers, strict=True):
            walker.check_state(stored)
        for walker, stored in zip(self._walkers, walkers, strict=True):
            walker.load_state_dict(stored)
        self._observations[:] = np.asarray(state["observations"])
        self._read_friction()

    def __copy__(self) -> SlipperyVectorEnv:
        # two environments on one simulator would move each other's robots
        return copy.deepcopy(self)

    def close_extras(self, **kwargs: Any) -> None:
        """Free the simulators; called by `close()`."""
        for walker in self._walkers:
            walker.close()
