"""A walker's life on slippery ground: observation, reward, end of episode, friction, state. One per environment."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pybullet

from .bullet import TIME_STEP, World
from .friction import FrictionSchedule, check_friction
from .robots import Robot, find_robot

TARGET = 1000.0
"""Where the robot is to walk to: this many m along x."""
STATE_VERSION = 1


class Walker:
    """One robot in one simulator, with the observations, rewards and terminations of `pybullet_envs_gymnasium`.

    Quirks of the original are kept on purpose: link positions are one substep old, contact bits one step late, the floor counts as a
    part of the body (so progress is scaled down a little), and costs come from the unclipped action.
    """

    def __init__(self, robot: str, friction: float | FrictionSchedule, *, time_limit: int | None) -> None:
        self.robot: Robot = find_robot(robot)
        self.schedule = friction if isinstance(friction, FrictionSchedule) else FrictionSchedule.constant(friction)
        if time_limit is not None and time_limit < 1:
            raise ValueError(f"time_limit must be at least 1 step (None: no limit), got {time_limit}")
        self.time_limit = time_limit
        self.world = World(self.robot)
        self._bind_joints()
        self.steps = 0
        self.episode_steps = 0
        self.seed = 0
        self.task = 0
        self.friction = math.nan
        self.needs_reset = True
        self._next_change: float = math.inf
        self._contacts = [0.0] * len(self.robot.feet)
        self._start_height: Any = None
        self._potential = 0.0

    def _bind_joints(self) -> None:
        world, robot = self.world, self.robot
        names = world.joint_names
        order = robot.motors or tuple(names)
        self._motors = [world.joints[names.index(name)] for name in order]
        gains = np.array([robot.power * robot.strength.get(name, 100.0) for name in order])
        self._gains = gains.astype(np.float32) if robot.single_precision_torque else gains
        self._scale = [(low, high - low) for low, high in world.limits.tolist()]
        self._electricity = -2.0 * robot.cost_scale
        self._stall = -0.1 * robot.cost_scale
        self._parts = len(world.links) + 1 + (world.torso < 0)

    @property
    def action_size(self) -> int:
        """Number of motors."""
        return len(self._motors)

    @property
    def observation_size(self) -> int:
        """8 numbers of the torso, 2 per joint, 1 per foot."""
        return 8 + 2 * len(self._motors) + len(self.robot.feet)

    def begin(self, seed: int) -> None:
        """Begin a new life: step 0, task 0, with the friction draws of this seed."""
        self.steps = 0
        self.seed = seed
        self._enter(0)

    def _enter(self, task: int) -> None:
        self.task = task
        self.friction = self.schedule.friction(task, self.seed)
        self.world.set_friction(self.friction)
        every = self.schedule.change_every
        self._next_change = math.inf if every is None else (task + 1) * every

    def reset(self, generator: np.random.Generator, out: np.ndarray) -> None:
        """Begin an episode; the first observation is written into `out`, float32 of shape `[observation_size]`."""
        if self.steps >= self._next_change:
            self._enter(self.schedule.segment(self.steps))
        self.world.reset(generator.uniform(-0.1, 0.1, size=len(self._motors)).tolist())
        self._contacts = [0.0] * len(self.robot.feet)
        self._start_height = self.robot.start_height
        self.episode_steps = 0
        self.needs_reset = False
        self._observe(out)

    def step(self, action: np.ndarray, out: np.ndarray) -> tuple[float, bool, bool]:
        """One environment step.

        Args:
            action: Torques as fractions of the greatest, float32, shape `[action_size]`; beyond +-1 they are clipped.
            out: The observation is written here, float32, shape `[observation_size]`.

        Returns:
            Reward, terminated, truncated.
        """
        if self.steps >= self._next_change and not self.schedule.at_episode_end:
            self._enter(self.schedule.segment(self.steps))
        clipped = np.minimum(np.maximum(action, -1.0), 1.0)
        self.world.step(self._motors, (self._gains * clipped).tolist())
        potential = self._potential
        joints, pitch = self._observe(out)
        alive = self._alive(out[0] + self._start_height, pitch)
        terminated = bool((alive < 0 and self.robot.terminates) or math.isnan(out.dot(out)))
        self._feel()
        reward = alive + (self._potential - potential) + self._cost(action, joints)
        self.steps += 1
        self.episode_steps += 1
        truncated = self.time_limit is not None and self.episode_steps >= self.time_limit
        self.needs_reset = terminated or truncated
        return reward, terminated, truncated

    def _observe(self, out: np.ndarray) -> tuple[np.ndarray, float]:
        joints, links, position, orientation, velocity = self.world.read()
        roll, pitch, yaw = pybullet.getEulerFromQuaternion(orientation)
        x, y, z = position
        if self._start_height is None:
            self._start_height = np.float64(z)
        fixed = self.world.fixed_part
        first = position if self.world.torso < 0 else (0.0, 0.0)
        count = self._parts
        ahead = TARGET - (sum([link[0][0] for link in links]) + first[0] + fixed[0]) / count
        aside = 0.0 - (sum([link[0][1] for link in links]) + first[1] + fixed[1]) / count
        self._potential = -math.sqrt(ahead * ahead + aside * aside) / TIME_STEP
        angle = math.atan2(aside, ahead) - yaw
        sine, cosine = math.sin(-yaw), math.cos(-yaw)
        row = [
            z - self._start_height,
            math.sin(angle),
            math.cos(angle),
            0.3 * (cosine * velocity[0] - sine * velocity[1]),
            0.3 * (sine * velocity[0] + cosine * velocity[1]),
            0.3 * velocity[2],
            roll,
            pitch,
        ]
        for (low, span), state in zip(self._scale, joints, strict=True):
            row.append(2 * (state[0] - low) / span - 1.0)
            row.append(0.1 * state[1])
        row += self._contacts
        exact = np.array(row, dtype=np.float32)
        np.minimum(np.maximum(exact, -5.0), 5.0, out=out)
        return exact[8 : 8 + 2 * len(joints)], pitch

    def _alive(self, height: Any, pitch: float) -> float:
        robot = self.robot
        healthy = height > robot.least_height and abs(pitch) < robot.greatest_pitch
        if healthy and robot.forbidden_contacts:
            healthy = not any(self._contacts[foot] for foot in robot.forbidden_contacts)
        return robot.alive_bonus if healthy else -1.0

    def _feel(self) -> None:
        touching = self.world.touching()
        self._contacts = [1.0 if foot in touching else 0.0 for foot in self.world.feet]

    def _cost(self, action: np.ndarray, joints: np.ndarray) -> float:
        size = len(action)
        electricity = self._electricity * float(np.add.reduce(np.abs(action * joints[1::2])) / size)
        stall = self._stall * float(np.add.reduce(np.square(action)) / size)
        return electricity + stall - 0.1 * int(np.count_nonzero(np.abs(joints[0::2]) > 0.99))

    def state_dict(self) -> dict[str, Any]:
        """Everything that the future of this walker depends on, as numbers, strings, lists and one uint8 array."""
        return {
            "version": STATE_VERSION,
            "robot": self.robot.name,
            "simulator": np.frombuffer(self.world.save(), dtype=np.uint8),
            "friction": self.friction,
            "task": self.task,
            "seed": self.seed,
            "steps": self.steps,
            "episode_steps": self.episode_steps,
            "needs_reset": self.needs_reset,
            "contacts": list(self._contacts),
            "start_height": None if self._start_height is None else float(self._start_height),
            "potential": self._potential,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue bit for bit where `state_dict` was called, in this process or another one.

        Raises:
            ValueError: the state is of another version or robot.
        """
        if state.get("version") != STATE_VERSION:
            raise ValueError(
                f"the environment's state has version {state.get('version')!r}, this code reads {STATE_VERSION}: "
                "continue with the version of the project that wrote it"
            )
        if state["robot"] != self.robot.name:
            raise ValueError(
                f"the state is of robot {state['robot']!r}, this environment has {self.robot.name!r}: make it with "
                f"robot={state['robot']!r}"
            )
        self.world.load(np.asarray(state["simulator"], dtype=np.uint8).tobytes())
        self.steps, self.episode_steps = int(state["steps"]), int(state["episode_steps"])
        self.seed, self.task = int(state["seed"]), int(state["task"])
        every = self.schedule.change_every
        self._next_change = math.inf if every is None else (self.task + 1) * every
        self.friction = float(state["friction"])
        self.world.set_friction(check_friction(self.friction))
        self.needs_reset = bool(state["needs_reset"])
        self._contacts = [float(bit) for bit in state["contacts"]]
        height = state["start_height"]
        fixed = self.robot.start_height is not None
        self._start_height = height if fixed or height is None else np.float64(height)
        self._potential = float(state["potential"])

    def close(self) -> None:
        """Free the simulator."""
        self.world.close()
