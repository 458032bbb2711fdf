"""`SlipperyAnt-v0` and its kin: PyBullet's walkers on ground whose friction changes during the agent's life."""

from __future__ import annotations

import copy
import math
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.spaces import Box

from .friction import SLIPPERY, FrictionSchedule, check_friction
from .walker import Walker


class SlipperyAnt(gymnasium.Env[np.ndarray, np.ndarray]):
    """PyBullet's four-legged ant on ground whose friction keeps changing.

    The physics, observations, rewards and terminations are those of `AntBulletEnv-v0` (package
    `pybullet_envs_gymnasium`), bit for bit (rewards to 1e-6), at twice its speed; new are the friction and a state that
    can be saved and continued exactly. The other walkers of that package are served by the same class:
    `robot="half_cheetah"`, `"hopper"`, `"walker2d"`, `"humanoid"`.

    ## Action space
    `Box(-1, 1, (8,), float32)`: a torque at each joint, as a fraction of 250 N m. Beyond +-1 torques are clipped, costs
    are not.

    | index | joint   | between                     | range of the joint (rad) |
    |-------|---------|-----------------------------|--------------------------|
    | 0     | hip_1   | torso and front left leg    | -0.698 to 0.698          |
    | 1     | ankle_1 | front left leg and its foot | 0.524 to 1.745           |
    | 2     | hip_2   | torso and front right leg   | -0.698 to 0.698          |
    | 3     | ankle_2 | front right leg, its foot   | -1.745 to -0.524         |
    | 4     | hip_3   | torso and left back leg     | -0.698 to 0.698          |
    | 5     | ankle_3 | left back leg and its foot  | -1.745 to -0.524         |
    | 6     | hip_4   | torso and right back leg    | -0.698 to 0.698          |
    | 7     | ankle_4 | right back leg and its foot | 0.524 to 1.745           |

    ## Observation space
    `Box(-5, 5, (28,), float32)`; everything is clipped to +-5. Friction is not observed.

    | index     | observation                                                   | unit            |
    |-----------|---------------------------------------------------------------|-----------------|
    | 0         | height of the torso above where it was after the reset        | m               |
    | 1, 2      | sine, cosine of the angle from the heading to the target      | -               |
    | 3, 4, 5   | velocity of the torso forwards, sidewards, upwards            | 0.3 x m/s       |
    | 6, 7      | roll, pitch of the torso                                      | rad             |
    | 8, 10, .. | angle of joint (index - 8) / 2, -1 and 1 at its limits        | half its range  |
    | 9, 11, .. | speed of joint (index - 9) / 2                                | 0.1 x rad/s     |
    | 24 - 27   | front left, front right, left back, right back foot on ground | 0 or 1          |

    Contacts are those of the step before.

    ## Reward
    The sum of
    - alive: 1 while healthy, -1 when not;
    - progress: how much nearer the robot came to a target 1,000 m ahead, per second: m/s, typically 0 to 3;
    - electricity: -2 x mean |action x joint speed (0.1 rad/s)| - 0.1 x mean action^2 (humanoid: 4.25 times that);
    - joints at their limits: -0.1 for each.

    ## Episode
    Terminated when not healthy: the ant's torso is lower than 0.26 m. Truncated after `time_limit` steps. It begins at
    the start line with all joint angles drawn uniformly from +-0.1 rad around the model's zero.

    ## Friction
    "Friction" is the effective coefficient between ground and robot: the product of the two bodies' coefficients, as
    Bullet has it. It is set on the ground alone. `AntBulletEnv-v0` has 1.2 (its other walkers 0.64). A
    `FrictionSchedule` counts this environment's steps over all its episodes and says when it changes; the segment's
    index is the *task*. `info`, `friction` and `task` tell both. `reset(seed=...)` begins a new life: step 0, task 0,
    new draws; `reset()` the next episode of the same life. `reset(options={"friction": 0.1})` puts the episode, and
    those after it, on ground of that friction until the schedule's next change.

    `copy.deepcopy(env)` and `copy.copy(env)` give an environment with a simulator of its own that goes on from the same
    state; a pickle holds that state.

    Args:
        robot: Key of `envs.ROBOTS`.
        friction: A schedule, or one number in (0, 10] for ever. Default: log-uniform on [0.02, 2], a change at the
            first episode end after every 2 million steps.
        time_limit: Steps after which an episode is truncated; None: never.
        merge_fixed_links: Simulate links that are fixed to each other as one: faster, equal in distribution only.
        render_mode: "rgb_array": `render()` gives a picture drawn on the CPU, without a display; None: no pictures.
        render_size: Width and height of the picture in pixels.

    Raises:
        ValueError: the robot or render mode is unknown; friction, time limit or picture size is out of range.

    Example:
        >>> env = SlipperyAnt(friction=FrictionSchedule(change_every=1_000, values=(0.02, 2.0)))
        >>> observation, info = env.reset(seed=0)
        >>> float(info["friction"]), int(info["task"])
        (0.02, 0)
        >>> env.close()
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 61}  # type: ignore[misc]

    def __init__(
        self,
        *,
        robot: str = "ant",
        friction: float | FrictionSchedule = SLIPPERY,
        time_limit: int | None = 1000,
        merge_fixed_links: bool = False,
        render_mode: str | None = None,
        render_size: tuple[int, int] = (320, 240),
    ) -> None:
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode must be 'rgb_array' or None, got {render_mode!r}")
        if min(render_size) < 1:
            raise ValueError(f"render_size must be a width and height of at least 1 pixel, got {render_size}")
        self.render_mode = render_mode
        self._render_size = render_size
        self._walker = Walker(robot, friction, time_limit=time_limit, merge_fixed_links=merge_fixed_links)
        self._action_shape = (self._walker.action_size,)
        self.action_space = Box(-1.0, 1.0, self._action_shape, np.float32)
        self.observation_space = Box(-5.0, 5.0, (self._walker.observation_size,), np.float32)

    @property
    def friction(self) -> float:
        """Effective friction between ground and robot now; nan before the first reset."""
        return self._walker.friction

    @property
    def task(self) -> int:
        """Index of the friction segment that is in force."""
        return self._walker.task

    @property
    def steps(self) -> int:
        """Environment steps of this life, over all its episodes."""
        return self._walker.steps

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin the next episode or, with a seed, a new life.

        Args:
            seed: of the new life's poses and frictions.
            options: `"friction"`: of the ground from now on until the schedule's next change, in (0, 10].

        Raises:
            TypeError, ValueError: a friction that is no number or out of range.
        """
        if options and options.get("friction") is not None:
            check_friction(options["friction"], "options['friction']")
        super().reset(seed=seed)
        walker = self._walker
        if seed is not None or walker.generator is None:
            walker.begin(self.np_random, self.np_random_seed)
        observation = np.empty(walker.observation_size, np.float32)
        walker.reset(observation)
        if options and options.get("friction") is not None:
            walker.choose_friction(options["friction"])
        return observation, walker.info.copy()

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Apply torques for one step of 16.5 ms.

        Raises:
            gymnasium.error.ResetNeeded: the episode is over, or none was begun.
            ValueError: the action has another shape or numbers that are not finite.
        """
        walker = self._walker
        if walker.needs_reset:
            raise ResetNeeded("no episode is running: call reset before step")
        action = np.asarray(action, np.float32)
        if action.shape != self._action_shape:
            raise ValueError(f"the action must have shape {self._action_shape}, got {action.shape}")
        fractions = action.tolist()
        if not math.isfinite(sum(fractions)):
            raise ValueError(f"the action must be finite, got {action}: the policy has diverged")
        observation = np.empty(walker.observation_size, np.float32)
        walker.act(fractions)
        reward, terminated, truncated = walker.sense(fractions, observation)
        return observation, reward, terminated, truncated, walker.info.copy()

    def render(self) -> np.ndarray | None:  # type: ignore[override]
        """A picture, uint8 of shape `[height, width, 3]`, with render mode "rgb_array"; otherwise None."""
        if self.render_mode is None:
            gymnasium.logger.warn('render() gives pictures only with render_mode="rgb_array"')
            return None
        return self._walker.world.picture(*self._render_size)

    def state_dict(self) -> dict[str, Any]:
        """Everything that the future depends on: numbers, strings, lists, dicts and one uint8 array (about 60 KB).

        The arguments of the constructor and the observation last given are not part of it.
        """
        return self._walker.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue bit for bit where `state_dict` was called, in this process or another one.

        Raises:
            ValueError: the state is damaged or of another robot, link merging or version of this code.
        """
        self._walker.load_state_dict(state)
        self._np_random = self._walker.generator
        self._np_random_seed = self._walker.seed

    def __copy__(self) -> SlipperyAnt:
        # two environments on one simulator would move each other's robot
        return copy.deepcopy(self)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self._walker.generator is not None:
            self._np_random = self._walker.generator

    def close(self) -> None:
        """Free the simulator; more than once does no harm."""
        self._walker.close()
