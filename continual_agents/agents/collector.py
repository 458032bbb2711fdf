"""A TorchRL collector that spends no Python on bookkeeping: it steps the environment and fills one TensorDict."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Box
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from tensordict import TensorDict
from torchrl.collectors import BaseCollector

from continual_agents.runs import generator_state, set_generator_state

from .networks import ActorCritic

Environment = gymnasium.Env[Any, Any] | VectorEnv[Any, Any, Any]


def make_environment(source: str | Callable[[], Any] | Environment, count: int = 1) -> Environment:
    """One environment, or `count` of them in this process as a vector environment that the collector resets itself.

    Args:
        source: a gymnasium id, a callable that returns an environment, or an environment.
        count: how many; a ready-made environment is taken as it is.

    Raises:
        ValueError: `count` below 1.
    """
    if count < 1:
        raise ValueError(f"environment.count={count}: at least one environment is needed")
    if isinstance(source, gymnasium.Env | VectorEnv):
        return source
    make = (lambda: gymnasium.make(source, disable_env_checker=True)) if isinstance(source, str) else source
    if count == 1:
        environment: Environment = make()
        return environment
    return SyncVectorEnv([make] * count, autoreset_mode=AutoresetMode.DISABLED)


class EnvironmentCollector(BaseCollector):
    """Steps an environment with a policy and yields batches in TorchRL's layout.

    The tensors are made once and written in place: a batch is valid until the next one is asked for. The randomness of
    a batch is drawn at its beginning and log-probabilities are computed at its end, both in one call.

    A batch is a TensorDict of size `[frames]` for one environment, `[envs, frames / envs]` for a vector environment,
    with the keys `observation`, `action`, `action_log_prob` and `next/{observation, reward, done, terminated,
    truncated}`. The observation under `next` is the true last one of an episode, never the first of the following one.

    Args:
        environment: a gymnasium environment, or a vector environment with `AutoresetMode.DISABLED`.
        networks: the agent; its policy acts.
        frames: environment steps per batch, over all environments.
        total_frames: environment steps after which `iterator` ends; -1: never.
        seed: of the environment and of the actions.
        clip_actions: clip actions to the bounds of a Box before they reach the environment; the batch keeps the drawn
            ones. Off, the environment sees them as drawn, as the published Ant does.

    Raises:
        ValueError: `frames` not a multiple of the number of environments, a vector environment that resets itself.
    """

    def __init__(
        self,
        environment: Environment,
        networks: ActorCritic,
        *,
        frames: int,
        total_frames: int = -1,
        seed: int = 0,
        clip_actions: bool = False,
    ):
        super().__init__()
        self.environment = environment
        self.networks = networks
        self.frames_per_batch = frames
        self.total_frames = total_frames
        self.frames = 0
        self.episodes: list[dict[str, float]] = []
        self.vector = isinstance(environment, VectorEnv)
        self.envs = environment.num_envs if isinstance(environment, VectorEnv) else 1
        if frames < 1 or frames % self.envs:
            raise ValueError(f"agent.batch={frames} must be a positive multiple of the {self.envs} environments")
        mode = environment.metadata.get("autoreset_mode") if self.vector else None
        if self.vector and mode != AutoresetMode.DISABLED:
            raise ValueError(f"the vector environment resets itself ({mode}): make it with AutoresetMode.DISABLED")
        space = environment.single_action_space if isinstance(environment, VectorEnv) else environment.action_space
        self._bounds = (space.low, space.high) if clip_actions and isinstance(space, Box) else None
        self._iterator: Iterator[TensorDict] | None = None
        self.set_seed(seed)
        self._make_buffers(space)

    def _make_buffers(self, action_space: Any) -> None:
        steps, envs = self.frames_per_batch // self.envs, self.envs
        size = self._current.shape[1]
        batch = (envs, steps)
        action = torch.zeros(
            *batch, *action_space.shape, dtype=torch.float32 if isinstance(action_space, Box) else torch.int64
        )
        flags = {name: torch.zeros(*batch, 1, dtype=torch.bool) for name in ("done", "terminated", "truncated")}
        following = {"observation": torch.zeros(*batch, size), "reward": torch.zeros(*batch, 1), **flags}
        whole = TensorDict(
            {"observation": torch.zeros(*batch, size), "action": action, "next": TensorDict(following, batch)}, batch
        )
        # NumPy views of the same memory, [envs, steps, ...]: what the loop writes
        self._observation, self._action = whole["observation"].numpy(), whole["action"].numpy()
        self._next = {key: value.numpy() for key, value in following.items()}
        self._batch = whole if self.vector else whole[0]

    def set_seed(self, seed: int, static_seed: bool = False) -> int:
        """Seed actions and environment, and start a new episode in each environment."""
        self.generator = torch.Generator().manual_seed(seed)
        observation, _ = self.environment.reset(seed=seed)
        self._current = np.array(observation, dtype=np.float32).reshape(self.envs, -1)
        self._returns = np.zeros(self.envs)
        self._lengths = np.zeros(self.envs, dtype=np.int64)
        return seed

    def iterator(self) -> Iterator[TensorDict]:
        """Batches until `total_frames`."""
        while self.total_frames < 0 or self.frames < self.total_frames:
            yield self.collect()

    def collect(self) -> TensorDict:
        """One batch."""
        self.episodes = []
        policy, steps = self.networks.policy, self.frames_per_batch // self.envs
        step_environment = self._step_vector if self.vector else self._step_single
        with torch.no_grad():
            noise = policy.draw_noise((steps, self.envs), self.generator)
            for step in range(steps):
                self._observation[:, step] = self._current
                action = policy.act(torch.from_numpy(self._current), noise[step]).numpy()
                self._action[:, step] = action
                step_environment(step, action if self._bounds is None else np.clip(action, *self._bounds))
            distribution = self.networks.actor.get_dist(self._batch.select("observation"))
            self._batch["action_log_prob"] = distribution.log_prob(self._batch["action"])
        return self._batch

    def _step_single(self, step: int, action: np.ndarray) -> None:
        observation, reward, terminated, truncated, _ = self.environment.step(action[0])
        self._record(step, observation, reward, terminated, truncated)
        if terminated or truncated:
            self._end_episodes(np.array([True]))
            observation, _ = self.environment.reset()
        self._current = np.asarray(observation, dtype=np.float32)[None]

    def _step_vector(self, step: int, action: np.ndarray) -> None:
        observation, reward, terminated, truncated, _ = self.environment.step(action)
        self._record(step, observation, reward, terminated, truncated)
        ended = np.logical_or(terminated, truncated)
        if ended.any():
            self._end_episodes(ended)
            observation, _ = self.environment.reset(options={"reset_mask": ended})
        # a copy: vector environments reuse their arrays
        self._current = np.array(observation, dtype=np.float32)

    def _record(self, step: int, observation: Any, reward: Any, terminated: Any, truncated: Any) -> None:
        self._next["observation"][:, step] = observation
        self._next["reward"][:, step, 0] = reward
        self._next["terminated"][:, step, 0] = terminated
        self._next["truncated"][:, step, 0] = truncated
        self._next["done"][:, step, 0] = np.logical_or(terminated, truncated)
        self._returns += reward
        self._lengths += 1
        self.frames += self.envs

    def _end_episodes(self, ended: np.ndarray) -> None:
        friction, task = self.world("friction"), self.world("task")
        for env in np.flatnonzero(ended):
            self.episodes.append(
                {
                    "step": self.frames,
                    "return": float(self._returns[env]),
                    "length": int(self._lengths[env]),
                    "friction": float(friction[env]),
                    "task": float(task[env]),
                }
            )
        self._returns[ended] = 0.0
        self._lengths[ended] = 0

    def world(self, name: str) -> np.ndarray:
        """What the environments say of their `friction` or `task` now, `[envs]`; nan if they say nothing."""
        value = getattr(self.environment.unwrapped, name, np.nan)
        return np.broadcast_to(np.asarray(value, dtype=np.float64), (self.envs,))

    def shutdown(self, timeout: float | None = None, close_env: bool = True, raise_on_error: bool = True) -> None:
        """Close the environment."""
        if close_env:
            self.environment.close()

    def state_dict(self) -> OrderedDict[str, Any]:
        """Everything the next batch depends on, the environment included if it has a `state_dict`."""
        source = self.environment.unwrapped
        return OrderedDict(
            frames=self.frames,
            generator=generator_state(self.generator),
            current=self._current.copy(),
            returns=self._returns.copy(),
            lengths=self._lengths.copy(),
            environment=source.state_dict() if hasattr(source, "state_dict") else None,
        )

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict()`. An environment without one starts a new episode, with a warning."""
        self.frames = state["frames"]
        set_generator_state(self.generator, state["generator"])
        if state["environment"] is None:
            warnings.warn(
                f"{self.environment} has no state_dict: the run continues with a new episode, not exactly", stacklevel=2
            )
            return
        self.environment.unwrapped.load_state_dict(state["environment"])  # type: ignore[union-attr]
        self._current = np.asarray(state["current"], dtype=np.float32).copy()
        self._returns = np.asarray(state["returns"], dtype=np.float64).copy()
        self._lengths = np.asarray(state["lengths"], dtype=np.int64).copy()
