"""Policies over a plain body: how actions are drawn, and how probable they are."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from tensordict import TensorDict
from torch import Tensor, nn

from continual_agents.networks import ConvNet

Act = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Observations `[count, observation]` and their noise `[count, ...]` to actions `[count, ...]`."""


class Policy(nn.Module):
    """What collector and update need of a policy.

    Args:
        body: network from observation `[..., observation]` to what parameterises the distribution; ends in a `Linear`.

    Attributes:
        logs_probability: whether a batch holds the log-probabilities of its actions.
        observed: dims of one observation: 1, of a picture 3.
    """

    logs_probability = True

    def __init__(self, body: nn.Sequential):
        super().__init__()
        last = body[-1]
        if not isinstance(last, nn.Linear):
            raise TypeError(f"a policy's body ends in a Linear layer, not in {type(last).__name__}")
        self.body = body
        self.outputs = last.out_features
        self.observed = 3 if isinstance(body, ConvNet) else 1

    def explore(self, frames: int) -> None:
        """Called before every batch with the environment steps so far, for policies that explore by a schedule."""

    def restart(self, ended: np.ndarray) -> None:
        """Called where an episode has ended, bool `[envs]`, for policies that remember."""

    def begin(self) -> None:
        """Called before an episode of `act`, for policies that remember."""

    def carried(self) -> dict[str, Tensor]:
        """What the next batch depends on besides the weights."""
        return {}

    def carry(self, state: dict[str, Tensor]) -> None:
        """Continue from `carried()`."""

    def annotate(self, batch: TensorDict) -> None:
        """Write what the update needs of the actions into a batch: `action_log_prob`."""
        observation = batch["observation"].to(next(self.parameters()).device)
        log_prob, _ = self.log_prob_and_entropy(observation, batch["action"].to(observation.device))
        batch["action_log_prob"].copy_(log_prob)

    def draw_noise(self, shape: Sequence[int], generator: torch.Generator) -> Tensor:
        """The randomness of many actions at once, `[*shape, outputs]`."""
        raise NotImplementedError

    def act(self, observation: Tensor, noise: Tensor) -> Tensor:
        """Actions `[..., *action]` for observations `[..., observation]`, given their noise `[..., outputs]`."""
        raise NotImplementedError

    def log_prob_and_entropy(self, observation: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probability `[batch]` of each action and entropy, a number or `[batch]`, both in nats."""
        raise NotImplementedError

    def kl(self, of: Any, to: Any) -> Tensor:
        """`KL(of, to)` in nats, `[batch]`, between two results of `forward`."""
        raise NotImplementedError

    def actor(self, count: int) -> Act:
        """`act` on arrays, without gradients, valid while the weights stay put: what steps an environment.

        For a single observation and plain ReLU layers on the CPU it multiplies in NumPy, on the weights' own memory:
        torch's overhead per call is four times the arithmetic there. The two differ by rounding.
        """
        # what a hook adds (a frozen network beside it) the plain product would leave out
        body = _single_forward(self.body) if count == 1 and not self.body._forward_hooks else None
        if body is not None:
            return self._act_with(body)
        device = next(self.parameters()).device

        @torch.no_grad()
        def act(observation: np.ndarray, noise: np.ndarray) -> np.ndarray:
            return self.act(torch.from_numpy(observation).to(device), torch.from_numpy(noise).to(device)).cpu().numpy()

        return act

    def _act_with(self, body: Callable[[np.ndarray], np.ndarray]) -> Act:
        """`act` in NumPy, over a body that does for one observation `[1, observation]` what `self.body` does."""
        raise NotImplementedError


class GaussianPolicy(Policy):
    """Diagonal Gaussian whose mean is the body's output; the logarithm of its deviation is a free parameter from 0."""

    def __init__(self, body: nn.Sequential):
        super().__init__(body)
        self.log_std = nn.Parameter(torch.zeros(self.outputs))

    def forward(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation, each `[..., actions]`."""
        loc = self.body(observation)
        return loc, self.log_std.exp().expand_as(loc)

    def draw_noise(self, shape: Sequence[int], generator: torch.Generator) -> Tensor:
        """Standard normal noise `[*shape, actions]`."""
        return torch.randn(*shape, self.outputs, generator=generator)

    def act(self, observation: Tensor, noise: Tensor) -> Tensor:
        """`mean + deviation * noise`."""
        return torch.addcmul(self.body(observation), self.log_std.exp(), noise)

    def _act_with(self, body: Callable[[np.ndarray], np.ndarray]) -> Act:
        deviation = self.log_std.detach().exp().numpy()
        return lambda observation, noise: body(observation) + deviation * noise

    def log_prob_and_entropy(self, observation: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """`sum_i -(z_i^2 / 2 + log std_i + log(2 pi) / 2)` with `z = (action - mean) / std`."""
        z = (action - self.body(observation)) * (-self.log_std).exp()
        size = self.log_std.sum() + 0.5 * math.log(2 * math.pi) * self.outputs
        return -0.5 * z.square().sum(-1) - size, size + 0.5 * self.outputs

    def kl(self, of: tuple[Tensor, Tensor], to: tuple[Tensor, Tensor]) -> Tensor:
        """`sum_i log(s1 / s0) + (s0^2 + (m0 - m1)^2) / (2 s1^2) - 1/2`."""
        (m0, s0), (m1, s1) = of, to
        return (s1.log() - s0.log() + (s0.square() + (m0 - m1).square()) / (2 * s1.square()) - 0.5).sum(-1)


class CategoricalPolicy(Policy):
    """Categorical distribution whose logits are the body's output."""

    def forward(self, observation: Tensor) -> Tensor:
        """Logits `[..., actions]`."""
        return self.body(observation)

    def draw_noise(self, shape: Sequence[int], generator: torch.Generator) -> Tensor:
        """Standard Gumbel noise `[*shape, actions]`."""
        return -torch.empty(*shape, self.outputs).exponential_(generator=generator).log()

    def act(self, observation: Tensor, noise: Tensor) -> Tensor:
        """The Gumbel-max trick: `argmax(logits + noise)` is a draw from the softmax of the logits."""
        return (self.body(observation) + noise).argmax(-1)

    def _act_with(self, body: Callable[[np.ndarray], np.ndarray]) -> Act:
        return lambda observation, noise: (body(observation) + noise).argmax(-1)

    def log_prob_and_entropy(self, observation: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """`log softmax(logits)[action]` and `-sum_a p_a log p_a`."""
        logs = self.body(observation).log_softmax(-1)
        return logs.gather(-1, action.unsqueeze(-1)).squeeze(-1), -(logs.exp() * logs).sum(-1)

    def kl(self, of: Tensor, to: Tensor) -> Tensor:
        """`sum_a p0(a) (log p0(a) - log p1(a))`."""
        p0, p1 = of.log_softmax(-1), to.log_softmax(-1)
        return (p0.exp() * (p0 - p1)).sum(-1)


def _single_forward(body: nn.Sequential) -> Callable[[np.ndarray], np.ndarray] | None:
    """The body on one observation `[1, inputs]` in NumPy; None if it is not `Linear, ReLU, ..., Linear` on the CPU."""
    layers: list[tuple[np.ndarray, np.ndarray]] = []
    for index, layer in enumerate(body):
        if type(layer) is not (nn.ReLU if index % 2 else nn.Linear):
            return None
        if isinstance(layer, nn.Linear):
            if layer.weight.device.type != "cpu" or layer.weight.dtype != torch.float32:
                return None
            # views: no hook sees these calls, but those of surgery and diagnostics leave acting alone anyway
            layers.append((layer.weight.detach().numpy(), layer.bias.detach().numpy()))
    *hidden, (last_weight, last_bias) = layers

    def forward(observation: np.ndarray) -> np.ndarray:
        value = observation[0]
        for weight, bias in hidden:
            value = weight.dot(value)
            value += bias
            np.maximum(value, 0.0, out=value)
        value = last_weight.dot(value)
        value += last_bias
        return value[None]

    return forward
