"""A walker's life on slippery ground: observation, reward, end of episode, friction, state. One per environment."""

import math
from typing import Any

import numpy as np
from gymnasium.error import ResetNeeded

from .bullet import TIME_STEP, World
from .friction import FrictionSchedule, check_friction
from .quiet import pybullet
from .robots import Robot, find_robot

TARGET = 1000.0
"""Where the robot is to walk to: this many m along x."""
_STUCK = np.float32(0.99)
AT_LIMIT = (float(_STUCK) + float(np.nextafter(_STUCK, np.float32(1)))) / 2
"""A joint farther out than this (1: its limit) costs; the original compares in float32 with 0.99."""
STATE_VERSION = 1
_STATE_KEYS = (
    *("robot", "merge_fixed_links", "simulator", "generator", "seed", "steps", "episode_steps"),
    *("task", "friction", "needs_reset", "contacts", "start_height", "potential"),
)
_LOWEST, _HIGHEST = np.full(1, -5.0, np.float32), np.full(1, 5.0, np.float32)


class Walker:
    """One robot in one simulator, with the observations, rewards and terminations of `pybullet_envs_gymnasium`.

    Quirks of the original are kept on purpose: link positions are one substep old, contact bits one step late, the
    floor counts as a part of the body (so progress is scaled down a little), and costs come from the unclipped action.

    Args:
        robot: Key of `envs.ROBOTS`.
        friction: Effective friction between floor and robot: a schedule, or one number for ever.
        time_limit: Steps after which an episode is truncated; None: never.
        merge_fixed_links: Simulate links that are fixed to each other as one: faster, equal in distribution only.

    Raises:
        ValueError: the robot is unknown, the friction or the limit out of range.
    """

    def __init__(
        self, robot: str, friction: float | FrictionSchedule, *, time_limit: int | None, merge_fixed_links: bool
    ) -> None:
        self._arguments = (robot, friction, time_limit, merge_fixed_links)
        self.robot: Robot = find_robot(robot)
        self.schedule = friction if isinstance(friction, FrictionSchedule) else FrictionSchedule.constant(friction)
        if time_limit is not None and time_limit < 1:
            raise ValueError(f"time_limit must be at least 1 step (None: no limit), got {time_limit}")
        self._limit = math.inf if time_limit is None else time_limit
        self.world = World(self.robot, merge_fixed_links=merge_fixed_links)
        self.generator: np.random.Generator | None = None
        self.seed = 0
        self.steps = 0
        self.episode_steps = 0
        self.task = 0
        self.friction = math.nan
        self.info: dict[str, Any] = {}
        self.needs_reset = True
        self._next_change: float = math.inf
        self._contacts = [0.0] * len(self.robot.feet)
        self._start_height: Any = None
        self._potential = 0.0
        self._bind_joints()

    def _bind_joints(self) -> None:
        world, robot = self.world, self.robot
        names = world.joint_names
        order = robot.motors or tuple(names)
        self._motors = [world.joints[names.index(name)] for name in order]
        gains = np.array([robot.power * robot.strength.get(name, 100.0) for name in order])
        self._gains = (gains.astype(np.float32) if robot.single_precision_torque else gains).tolist()
        self._scale = [(low, high - low) for low, high in world.limits]
        self._electricity = -2.0 * robot.cost_scale / len(order)
        self._stall = -0.1 * robot.cost_scale / len(order)

    @property
    def action_size(self) -> int:
        """Number of motors."""
        return len(self._motors)

    @property
    def observation_size(self) -> int:
        """8 numbers of the torso, 2 per joint, 1 per foot."""
        return 8 + 2 * len(self._motors) + len(self.robot.feet)

    def begin(self, generator: np.random.Generator, seed: int) -> None:
        """Begin a new life at step 0 and task 0: `generator` draws the first poses, `seed` the frictions."""
        self.generator = generator
        self.seed = seed
        self.steps = 0
        self._enter(0)

    def _enter(self, task: int) -> None:
        self._set_friction(task, self.schedule.friction(task, self.seed))

    def _set_friction(self, task: int, friction: float) -> None:
        self.world.set_friction(friction)
        self.task, self.friction = task, friction
        # NumPy scalars: TorchRL asks an info for its dtype. Made here, where they change, not at every step
        self.info = {"friction": np.float64(friction), "task": np.int64(task)}
        every = self.schedule.change_every
        self._next_change = math.inf if every is None else (task + 1) * every

    def reset(self, out: np.ndarray) -> None:
        """Begin an episode; the first observation is written into `out`, float32 of shape `[observation_size]`.

        Raises:
            gymnasium.error.ResetNeeded: no life was begun.
        """
        if self.generator is None:
            raise ResetNeeded("this walker has no life yet: call begin first")
        if self.steps >= self._next_change:
            self._enter(self.schedule.segment(self.steps))
        motors = len(self._motors)
        self.world.reset(self.generator.uniform(-0.1, 0.1, size=motors).tolist())
        self._contacts = [0.0] * len(self.robot.feet)
        self._start_height = self.robot.start_height
        self.episode_steps = 0
        self.needs_reset = False
        self._observe([0.0] * motors, out)

    def choose_friction(self, friction: Any) -> None:
        """Ground of this friction, in (0, 10], until the schedule's next change."""
        self._set_friction(self.task, check_friction(friction, "options['friction']"))

    def act(self, action: list[float]) -> None:
        """The first half of a step: change the friction if it is time, apply torques, simulate 16.5 ms.

        Args:
            action: Torques as fractions of the greatest, finite, `action_size` of them; clipped to +-1.
        """
        if self.steps >= self._next_change and not self.schedule.at_episode_end:
            self._enter(self.schedule.segment(self.steps))
        self.world.step(self._motors, self._torques(action))

    def sense(self, action: list[float], out: np.ndarray) -> tuple[float, bool, bool]:
        """The second half of a step: what came of it.

        Args:
            action: The one given to `act`.
            out: The observation is written here, float32, shape `[observation_size]`.

        Returns:
            Reward, terminated, truncated.
        """
        before = self._potential
        cost, pitch, broken = self._observe(action, out)
        alive = self._alive(out[0] + self._start_height, pitch)
        touching = self.world.touching()
        self._contacts = [1.0 if foot in touching else 0.0 for foot in self.world.feet]
        self.steps += 1
        self.episode_steps += 1
        terminated = broken or (alive < 0 and self.robot.terminates)
        truncated = self.episode_steps >= self._limit
        self.needs_reset = terminated or truncated
        return alive + (self._potential - before) + cost, terminated, truncated

    def _torques(self, action: list[float]) -> list[float]:
        torques = [
            gain * (a if -1.0 <= a <= 1.0 else math.copysign(1.0, a))
            for gain, a in zip(self._gains, action)  # noqa: B905  (a hot loop)
        ]
        if self.robot.single_precision_torque:
            return np.array(torques, np.float32).tolist()
        return torques

    def _observe(self, action: list[float], out: np.ndarray) -> tuple[float, float, bool]:
        """Write the observation; returns the action's cost (<= 0), the torso's pitch in rad, and if there is a nan."""
        world = self.world
        joints, links, position, orientation, velocity = world.read()
        z = position[2]
        if self._start_height is None:
            self._start_height = np.float64(z)
        x, y = world.middle(links, position)
        ahead, aside = TARGET - x, -y
        self._potential = -math.sqrt(ahead * ahead + aside * aside) / TIME_STEP
        roll, pitch, yaw = pybullet.getEulerFromQuaternion(orientation)
        angle = math.atan2(aside, ahead) - yaw
        sine, cosine = math.sin(-yaw), math.cos(-yaw)
        vx, vy, vz = velocity
        row = [
            z - self._start_height,
            math.sin(angle),
            math.cos(angle),
            0.3 * (cosine * vx - sine * vy),
            0.3 * (sine * vx + cosine * vy),
            0.3 * vz,
            roll,
            pitch,
        ]
        power = heat = 0.0
        stuck = 0
        for state, (low, span), torque in zip(joints, self._scale, action):  # noqa: B905  (a hot loop)
            angle = 2 * (state[0] - low) / span - 1.0
            speed = 0.1 * state[1]
            row.append(angle)
            row.append(speed)
            power += abs(torque * speed)
            heat += torque * torque
            if not -AT_LIMIT <= angle <= AT_LIMIT:
                stuck += 1
        row += self._contacts
        out[:] = row
        square = out.dot(out)
        if not square <= 25.0:  # otherwise no number is beyond 5
            np.minimum(np.maximum(out, _LOWEST), _HIGHEST, out=out)
        return self._electricity * power + self._stall * heat - 0.1 * stuck, pitch, math.isnan(square)

    def _alive(self, height: Any, pitch: float) -> float:
        robot = self.robot
        healthy = height > robot.least_height and abs(pitch) < robot.greatest_pitch
        if healthy and robot.forbidden_contacts:
            healthy = not any(self._contacts[foot] for foot in robot.forbidden_contacts)
        return robot.alive_bonus if healthy else -1.0

    def state_dict(self) -> dict[str, Any]:
        """Everything that the walker's future depends on: numbers, strings, lists, dicts and one uint8 array."""
        return {
            "version": STATE_VERSION,
            "robot": self.robot.name,
            "merge_fixed_links": self.world.merged,
            "simulator": np.frombuffer(self.world.save(), dtype=np.uint8).copy(),
            "generator": None if self.generator is None else self.generator.bit_generator.state,
            "seed": self.seed,
            "steps": self.steps,
            "episode_steps": self.episode_steps,
            "task": self.task,
            "friction": self.friction,
            "needs_reset": self.needs_reset,
            "contacts": list(self._contacts),
            "start_height": None if self._start_height is None else float(self._start_height),
            "potential": self._potential,
        }

    def check_state(self, state: dict[str, Any]) -> None:
        """Whether `load_state_dict` can continue from this state.

        Raises:
            ValueError: the state is of another version, robot or link merging, or has a friction out of range.
        """
        if state.get("version") != STATE_VERSION:
            raise ValueError(
                f"the environment's state has version {state.get('version')!r}, this code reads {STATE_VERSION}: "
                "continue with the version of the project that wrote it"
            )
        missing = [key for key in _STATE_KEYS if key not in state]
        if missing:
            raise ValueError(f"the environment's state lacks {missing[0]!r}: it is damaged; go back to an earlier one")
        for key, mine in (("robot", self.robot.name), ("merge_fixed_links", self.world.merged)):
            if state[key] != mine:
                raise ValueError(
                    f"the environment's state has {key}={state[key]!r}, this environment {key}={mine!r}: "
                    f"make it with {key}={state[key]!r}"
                )
        if state["generator"] is not None:
            check_friction(state["friction"])

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue bit for bit where `state_dict` was called, in this process or another one.

        Raises:
            ValueError: the state does not fit (see `check_state`) or is damaged.
        """
        self.check_state(state)
        self.world.load(np.asarray(state["simulator"], dtype=np.uint8).tobytes())
        self.seed, self.steps, self.episode_steps = int(state["seed"]), int(state["steps"]), int(state["episode_steps"])
        self.needs_reset = bool(state["needs_reset"])
        self._contacts = [float(bit) for bit in state["contacts"]]
        self._potential = float(state["potential"])
        height = state["start_height"]
        # float64 or not decides, as in the original, whether the height is added in double precision.
        self._start_height = np.float64(height) if height is not None and self.robot.start_height is None else height
        self.generator = None
        if state["generator"] is not None:
            self.generator = np.random.Generator(np.random.PCG64(0))
            self.generator.bit_generator.state = state["generator"]
            self._set_friction(int(state["task"]), float(state["friction"]))

    def __reduce__(self) -> tuple[Any, ...]:
        # a copy, or what is unpickled elsewhere, has a simulator of its own: the number of a client means nothing there
        return _rebuild, (self._arguments, self.state_dict())

    def close(self) -> None:
        """Free the simulator."""
        self.world.close()


def _rebuild(arguments: tuple[Any, ...], state: dict[str, Any]) -> Walker:
    """A walker in a simulator of its own that continues from `state`."""
    robot, friction, time_limit, merge_fixed_links = arguments
    walker = Walker(robot, friction, time_limit=time_limit, merge_fixed_links=merge_fixed_links)
    walker.load_state_dict(state)
    return walker
