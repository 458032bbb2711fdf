"""Policies of agents with a replay buffer: they explore by themselves, and no probability is asked of them."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from .policies import Act, Policy

LOG_STD_RANGE = (-20.0, 2.0)
"""Haarnoja et al. 2018, their code."""


class EpsilonGreedyPolicy(Policy):
    """The action of the largest value, or with probability epsilon any action (Mnih et al. 2015).

    Args:
        body: action values `[..., actions]` of an observation.

    Attributes:
        epsilon: now; `explore` sets it.
    """

    logs_probability = False

    def __init__(self, body: nn.Sequential):
        super().__init__(body)
        self.schedule(0, 1.0, 0.0, 1)
        self.epsilon = 0.0

    def schedule(self, init_random_frames: int, start: float, end: float, frames: int) -> None:
        """Epsilon 1 for `init_random_frames` environment steps; from step 0 linearly from `start` to `end`."""
        self._random, self._start, self._end, self._frames = init_random_frames, start, end, frames

    def explore(self, frames: int) -> None:
        """Set epsilon as it is after so many environment steps."""
        passed = min(frames / self._frames, 1.0)
        self.epsilon = 1.0 if frames < self._random else self._start + passed * (self._end - self._start)

    def draw_noise(self, shape: Sequence[int], generator: torch.Generator) -> Tensor:
        """Uniform on [0, 1): a score for each action, and last whether to follow the scores."""
        return torch.rand(*shape, self.outputs + 1, generator=generator)

    def act(self, observation: Tensor, noise: Tensor) -> Tensor:
        """The best action, or the one that the noise prefers; noise 0 is always the best action."""
        # not `noise < epsilon`: noise 0 has to be the best action even at epsilon 1
        anything = noise[..., -1] > 1.0 - self.epsilon
        return torch.where(anything, noise[..., :-1].argmax(-1), self.body(observation).argmax(-1))

    def _act_with(self, body: Callable[[np.ndarray], np.ndarray]) -> Act:
        def act(observation: np.ndarray, noise: np.ndarray) -> np.ndarray:
            anything = noise[0, -1] > 1.0 - self.epsilon
            return (noise[:, :-1] if anything else body(observation)).argmax(-1)

        return act


class TanhGaussianPolicy(Policy):
    """A Gaussian squashed into (-1, 1) by tanh; the body gives mean and log-deviation (Haarnoja et al. 2018).

    Args:
        body: mean and log-deviation `[..., 2 * actions]` of an observation.

    Attributes:
        random: actions are uniform on (-1, 1); `explore` sets it.
    """

    logs_probability = False

    def __init__(self, body: nn.Sequential):
        super().__init__(body)
        self.actions = self.outputs // 2
        self.init_random_frames = 0
        self.random = False

    def explore(self, frames: int) -> None:
        """Act uniformly at random for the first `init_random_frames` environment steps."""
        self.random = frames < self.init_random_frames

    def draw_noise(self, shape: Sequence[int], generator: torch.Generator) -> Tensor:
        """Standard normal noise `[*shape, actions]`."""
        return torch.randn(*shape, self.actions, generator=generator)

    def mean_and_log_std(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        """Of the Gaussian before squashing, each `[..., actions]`."""
        mean, log_std = self.body(observation).chunk(2, -1)
        return mean, log_std.clamp(*LOG_STD_RANGE)

    def act(self, observation: Tensor, noise: Tensor) -> Tensor:
        """`tanh(mean + deviation * noise)`; noise 0 is the mean action."""
        if self.random:
            return torch.erf(noise / math.sqrt(2.0))  # the normal distribution function, from -1 to 1
        mean, log_std = self.mean_and_log_std(observation)
        return torch.tanh(mean + log_std.exp() * noise)

    def sample(self, observation: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Actions as `act`, and their log-probabilities `[...]`; differentiable in both.

        `log pi(a) = log N(z; mean, std) - sum log(1 - tanh(z)^2)` with `z = mean + std * noise`, the last term as
        `2 (log 2 - z - softplus(-2 z))`, which does not overflow.
        """
        mean, log_std = self.mean_and_log_std(observation)
        z = mean + log_std.exp() * noise
        normal = -0.5 * noise.square() - log_std - 0.5 * math.log(2.0 * math.pi)
        squashing = 2.0 * (math.log(2.0) - z - nn.functional.softplus(-2.0 * z))
        return torch.tanh(z), (normal - squashing).sum(-1)

    def _act_with(self, body: Callable[[np.ndarray], np.ndarray]) -> Act:
        def act(observation: np.ndarray, noise: np.ndarray) -> np.ndarray:
            if self.random:
                return torch.erf(torch.from_numpy(noise) / math.sqrt(2.0)).numpy()
            mean, log_std = np.split(body(observation), 2, axis=-1)
            return np.tanh(mean + np.exp(np.clip(log_std, *LOG_STD_RANGE)) * noise)

        return act
