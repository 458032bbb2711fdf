"""A TorchRL collector that spends no Python on bookkeeping: it steps the environment and fills one TensorDict."""

import time
import traceback
import warnings
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import torch
from gymnasium.spaces import Box
from gymnasium.vector import AutoresetMode, VectorEnv
from tensordict import TensorDict
from torchrl.collectors import BaseCollector

from continual_agents.runs import generator_state, set_generator_state

from .draws import Draw, generator_of
from .environment_state import check_states, environment_state, set_environment_state
from .environments import Environment, begin, first_observation, name_of, tell, unfit_step
from .errors import EnvironmentFault, NotFiniteError
from .networks import Networks
from .policies import Act


class EnvironmentCollector(BaseCollector):
    """Steps an environment with a policy and yields batches in TorchRL's layout.

    The tensors are made once and written in place: a batch is valid until the next one is asked for. The randomness of
    a batch is drawn at its beginning and log-probabilities are computed at its end, both in one call. A batch is never
    left half done, so between two batches the whole state is small and plain.

    A batch is a TensorDict of size `[frames]` for one environment, `[envs, frames / envs]` for a vector environment,
    with the keys `observation`, `action`, `action_log_prob` (where the policy has one) and
    `next/{observation, reward, done, terminated, truncated}`. Observations are rows of float32, pictures uint8 in the
    environment's own shape. The observation under `next` is the true last one of an
    episode, never the first of the following one.

    Args:
        environment: a gymnasium environment, or a vector environment with `AutoresetMode.DISABLED`.
        networks: the agent; its policy acts.
        frames: environment steps per batch, over all environments.
        total_frames: environment steps after which `iterator` ends; -1: never.
        seed: of the environment and of the actions.
        clip_actions: clip actions to the bounds of a Box before they reach the environment; the batch keeps the drawn
            ones. Off, the environment sees them as drawn, as the published Ant does. They are never scaled: for bounds
            far from +-1 wrap the environment in `gymnasium.wrappers.RescaleAction`.
        on_not_finite: "stop" when the environment gives an observation or reward that is not finite, or "skip": end
            the episode there and hand the batch on as it is, for the learner to leave out.

    Attributes:
        frames: environment steps so far.
        episodes: one record (`step`, `return`, `length`, `friction`, `task`) per episode that ended in the last batch.
        environment_seconds: wall-clock time that the environment took in the last batch.

    Raises:
        ValueError: `frames` not a multiple of the number of environments, a vector environment that resets itself.
    """

    def __init__(
        self,
        environment: Environment,
        networks: Networks,
        *,
        frames: int,
        total_frames: int = -1,
        seed: int = 0,
        clip_actions: bool = False,
        on_not_finite: Literal["stop", "skip"] = "stop",
    ):
        super().__init__()
        self.environment: Any = environment
        self.networks = networks
        self.on_not_finite = on_not_finite
        self.frames_per_batch = self.requested_frames_per_batch = frames
        self.total_frames = total_frames
        self.init_random_frames = 0  # read by TorchRL's Trainer
        self.frames = 0
        self.episodes: list[dict[str, float]] = []
        self.environment_seconds = 0.0
        self.vector = isinstance(environment, VectorEnv)
        self.envs = environment.num_envs if isinstance(environment, VectorEnv) else 1
        if frames < 1 or frames % self.envs:
            raise ValueError(f"agent.batch={frames} must be a positive multiple of the {self.envs} environments")
        mode = environment.metadata.get("autoreset_mode") if self.vector else None
        if self.vector and mode != AutoresetMode.DISABLED:
            raise ValueError(f"the vector environment resets itself ({mode}): make it with AutoresetMode.DISABLED")
        space = environment.single_action_space if isinstance(environment, VectorEnv) else environment.action_space
        self._bounds = (space.low, space.high) if clip_actions and isinstance(space, Box) else None
        check_states(environment)
        self.set_seed(seed)
        self._make_buffers(space)

    def _make_buffers(self, space: Any) -> None:
        batch = (self.envs, self.frames_per_batch // self.envs)
        flags = {name: torch.zeros(*batch, 1, dtype=torch.bool) for name in ("done", "terminated", "truncated")}
        seen = torch.from_numpy(self._current)
        observations = torch.zeros(*batch, *seen.shape[1:], dtype=seen.dtype)
        following = {"observation": observations.clone(), "reward": torch.zeros(*batch, 1), **flags}
        own = {
            "observation": observations,
            "action": torch.zeros(*batch, *space.shape, dtype=None if isinstance(space, Box) else torch.int64),
        }
        if self.networks.policy.logs_probability:
            own["action_log_prob"] = torch.zeros(batch)
        whole = TensorDict({**own, "next": TensorDict(following, batch)}, batch)
        self._batch = whole if self.vector else whole[0]
        # NumPy views of the same memory, steps first: what the loop writes
        self._own = {name: value.numpy().swapaxes(0, 1) for name, value in own.items()}
        self._next = {name: value.numpy().swapaxes(0, 1) for name, value in following.items()}

    def set_seed(self, seed: int, static_seed: bool = False) -> int:
        """Seed actions and environment, and start a new episode in each environment."""
        self.seed = seed
        self.generator = generator_of(seed, Draw.ACTIONS)
        self._begin(seed)
        return seed

    def _begin(self, seed: int) -> None:
        self._current = begin(self.environment, seed)
        self._returns = np.zeros(self.envs)
        self._lengths = np.zeros(self.envs, dtype=np.int64)
        self.networks.policy.restart(np.ones(self.envs, dtype=bool))

    def iterator(self) -> Iterator[TensorDict]:
        """Batches until `total_frames`."""
        while self.total_frames < 0 or self.frames < self.total_frames:
            yield self.collect()

    @torch.no_grad()
    def collect(self) -> TensorDict:
        """One batch.

        Raises:
            NotFiniteError: the environment gave an observation or reward that is NaN or infinite, or the policy an
                action.
            EnvironmentFault: the environment raised an error.
        """
        self.episodes, self.environment_seconds = [], 0.0
        policy, batch = self.networks.policy, self._batch
        policy.explore(self.frames)
        noise = policy.draw_noise((self.frames_per_batch // self.envs, self.envs), self.generator).numpy()
        fill = self._fill_from_many if self.vector else self._fill_from_one
        self._before = self.frames
        try:
            fill(noise, policy.actor(self.envs))
        except Exception as error:
            raise self._fault(error) from error
        if self.on_not_finite == "stop":
            self._check_finite()
        if policy.logs_probability:
            policy.annotate(batch)
        return batch

    def _fill_from_one(self, noise: np.ndarray, act: Act) -> None:
        """The loop over a single environment; every operation in it is paid once per step."""
        step_environment, clock, bounds = self.environment.step, time.perf_counter, self._bounds
        observations, actions = self._own["observation"][:, 0], self._own["action"][:, 0]
        nexts, rewards = self._next["observation"][:, 0], self._next["reward"][:, 0, 0]
        terminations, truncations = self._next["terminated"][:, 0, 0], self._next["truncated"][:, 0, 0]
        current, seconds, skip = self._current, 0.0, self.on_not_finite == "skip"
        for step in range(len(noise)):
            observations[step] = current[0]
            action = act(current, noise[step])[0]
            actions[step] = action
            if bounds is not None:
                action = np.clip(action, *bounds)
            start = clock()
            observation, reward, terminated, truncated, _ = step_environment(action)
            seconds += clock() - start
            if type(reward) is not float:
                reward = np.asarray(reward, dtype=np.float64).item()
            if skip and not (np.isfinite(reward) and np.isfinite(observation).all()):
                truncated = True
            nexts[step] = observation
            # a view of the batch: the observation is written once, and acted on where it lies
            current = nexts[step : step + 1]
            rewards[step] = reward
            terminations[step] = terminated
            truncations[step] = truncated
            # what is skipped must not make the return of the whole episode nan
            self._returns[0] += reward if np.isfinite(reward) else 0.0
            self._lengths[0] += 1
            self.frames += 1
            if terminated or truncated:
                self._end_episodes(np.array([True]))
                start = clock()
                current = first_observation(self.environment, 1)
                seconds += clock() - start
        self._finish(current, seconds)

    def _fill_from_many(self, noise: np.ndarray, act: Act) -> None:
        """The loop over a vector environment."""
        own, following, clock = self._own, self._next, time.perf_counter
        current, seconds = self._current, 0.0
        for step in range(len(noise)):
            own["observation"][step] = current
            action = act(current, noise[step])
            own["action"][step] = action
            if self._bounds is not None:
                action = np.clip(action, *self._bounds)
            start = clock()
            observation, reward, terminated, truncated, _ = self.environment.step(action)
            seconds += clock() - start
            if self.on_not_finite == "skip":
                good = np.isfinite(observation).reshape(self.envs, -1).all(axis=1) & np.isfinite(reward)
                truncated = np.logical_or(truncated, ~good)
            following["observation"][step] = observation
            current = following["observation"][step]
            following["reward"][step, :, 0] = reward
            following["terminated"][step, :, 0] = terminated
            following["truncated"][step, :, 0] = truncated
            self._returns += np.where(np.isfinite(reward), reward, 0.0)
            self._lengths += 1
            self.frames += self.envs
            ended = np.logical_or(terminated, truncated)
            if ended.any():
                self._end_episodes(ended)
                start = clock()
                observation = first_observation(self.environment, self.envs, options={"reset_mask": ended})
                seconds += clock() - start
                # only theirs: what a vector environment shows for the others may be older than what they were seen in
                current = np.where(ended.reshape(-1, *[1] * (current.ndim - 1)), observation, current)
        self._finish(current, seconds)

    def _finish(self, current: np.ndarray, seconds: float) -> None:
        np.logical_or(self._next["terminated"], self._next["truncated"], out=self._next["done"])
        self._current = np.array(current)  # a copy: it may be a view of the batch
        self.environment_seconds = seconds

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
        self.networks.policy.restart(ended)

    def _fault(self, error: Exception) -> Exception:
        """What to raise instead of an error that came while collecting."""
        step = self.frames + self.envs
        try:
            self._check_finite()  # what the environment refuses may be what came of its own numbers
        except NotFiniteError as first:
            return first
        if not np.isfinite(self._own["action"]).all():
            return NotFiniteError(
                f"the policy gave an action that is not finite at environment step {step}: its weights have diverged, "
                "lower the step size"
            )
        if _raised_here(error):  # by what step() gave, not in it
            error = unfit_step(self.environment, error)
        said = " ".join(str(error).split())
        if isinstance(error, EnvironmentFault):
            return EnvironmentFault(f"{said} (environment step {step})")
        return EnvironmentFault(
            f"the environment {name_of(self.environment)} failed at environment step {step}: "
            f"{type(error).__name__}{said and f': {said}'}"
        )

    def _check_finite(self) -> None:
        for name in ("observation", "reward"):
            numbers = self._next[name]
            if numbers.dtype == np.uint8:
                continue
            good = np.isfinite(numbers).all(axis=(1, 2))
            if not good.all():
                step = self._before + self.envs * (1 + int(np.argmin(good)))
                raise NotFiniteError(
                    f"the environment gave a {name} that is not finite at environment step {step}: mend the "
                    "environment, or give agent.on_not_finite=skip to end the episode there and leave the batch out"
                )

    def world(self, name: str) -> np.ndarray:
        """What the environments say of their `friction` or `task` now, `[envs]`; nan if they say nothing."""
        return tell(self.environment, name)

    def shutdown(self, timeout: float | None = None, close_env: bool = True, raise_on_error: bool = True) -> None:
        """Close the environment."""
        if close_env:
            self.environment.close()

    def state_dict(self) -> OrderedDict[str, Any]:
        """Everything the next batch depends on, the environment included if it has a `state_dict`.

        There is no unfinished batch in it: it is taken between two batches.
        """
        return OrderedDict(
            frames=self.frames,
            generator=generator_state(self.generator),
            current=self._current.copy(),
            returns=self._returns.copy(),
            lengths=self._lengths.copy(),
            environment=environment_state(self.environment),
            policy=self.networks.policy.carried(),
        )

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict()`. An environment without one starts new episodes, with a warning."""
        self.frames = state["frames"]
        set_generator_state(self.generator, state["generator"])
        if state["environment"] is None:
            # another seed: the same one would show the episodes of the beginning again
            self._begin(int(np.random.SeedSequence([self.seed, self.frames]).generate_state(1)[0]))
            warnings.warn(
                f"{self.environment} has no state_dict: the run continues with a new episode, not exactly", stacklevel=2
            )
            return
        set_environment_state(self.environment, state["environment"])
        if inexact := state["environment"]["inexact"]:
            warnings.warn(
                f"{', '.join(inexact)} could not be saved: the run continues, but not exactly (give the wrapper "
                "state_dict and load_state_dict)",
                stacklevel=2,
            )
        self.networks.policy.carry(state.get("policy", {}))
        self._current = np.asarray(state["current"], dtype=self._current.dtype).copy()
        self._returns = np.asarray(state["returns"], dtype=np.float64).copy()
        self._lengths = np.asarray(state["lengths"], dtype=np.int64).copy()


def _raised_here(error: BaseException) -> bool:
    """Whether an error comes from this file itself, not from what it called."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return frame.f_code.co_filename == __file__
