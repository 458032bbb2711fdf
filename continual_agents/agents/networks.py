"""Actor and critic: plain bodies that surgery can trace, dressed as TorchRL modules."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from gymnasium.spaces import Box, Discrete, Space
from tensordict.nn import TensorDictModule
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution
from torchrl.modules import IndependentNormal, ProbabilisticActor

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "selu": nn.SELU,
}
NORMS: dict[str, type[nn.Module]] = {"layer_norm": nn.LayerNorm}


def mlp(
    inputs: int,
    outputs: int,
    *,
    hidden: Sequence[int] = (256, 256),
    activation: str = "relu",
    norm: str | None = None,
    dropout: float = 0.0,
    generator: torch.Generator,
) -> nn.Sequential:
    """A fully connected network, LeCun-uniform with zero biases: `Linear -> norm -> activation -> dropout`, repeated.

    Args:
        inputs: size of the input.
        outputs: size of the output.
        hidden: width of each hidden layer.
        activation: a key of `ACTIVATIONS`.
        norm: None or `layer_norm`, before the activation.
        dropout: probability of dropping a unit, in [0, 1).
        generator: source of the initial weights.

    Raises:
        ValueError: an unknown activation or norm, a width below 1, a dropout outside [0, 1).
    """
    if activation not in ACTIVATIONS:
        raise ValueError(f"network.activation={activation!r} is unknown: one of {', '.join(ACTIVATIONS)}")
    if norm is not None and norm not in NORMS:
        raise ValueError(f"network.norm={norm!r} is unknown: null or one of {', '.join(NORMS)}")
    if not 0 <= dropout < 1:
        raise ValueError(f"network.dropout={dropout}: a probability in [0, 1)")
    if any(width < 1 for width in hidden):
        raise ValueError(f"network.hidden={list(hidden)}: every layer needs at least one unit")
    layers: list[nn.Module] = []
    width = inputs
    for size in hidden:
        layers.append(_linear(width, size, generator))
        if norm is not None:
            layers.append(NORMS[norm](size))
        layers.append(ACTIVATIONS[activation]())
        if dropout:
            layers.append(nn.Dropout(dropout))
        width = size
    layers.append(_linear(width, outputs, generator))
    return nn.Sequential(*layers)


def _linear(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    """LeCun-uniform: U(-b, b) with b = sqrt(3 / fan_in), the published initialisation; zero bias."""
    layer = nn.Linear(inputs, outputs)
    bound = math.sqrt(3 / inputs)
    with torch.no_grad():
        layer.weight.uniform_(-bound, bound, generator=generator)
        layer.bias.zero_()
    return layer


class Policy(Protocol):
    """What the collector needs of a policy to act with few operations per step."""

    def draw_noise(self, shape: Sequence[int], generator: torch.Generator) -> Tensor:
        """The randomness of many steps at once, `[*shape, ...]`."""

    def act(self, observation: Tensor, noise: Tensor) -> Tensor:
        """Actions `[envs, ...]` for observations `[envs, observation]`, given their noise."""


class GaussianPolicy(nn.Module):
    """Diagonal Gaussian whose mean is the body's output; the logarithm of its deviation is a free parameter from 0.

    Args:
        body: network from observation to action mean.
        actions: dimension of the action.
    """

    def __init__(self, body: nn.Module, actions: int):
        super().__init__()
        self.body = body
        self.log_std = nn.Parameter(torch.zeros(actions))

    def forward(self, observation: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation, each `[..., actions]`."""
        loc = self.body(observation)
        return loc, self.log_std.exp().expand_as(loc)

    def draw_noise(self, shape: Sequence[int], generator: torch.Generator) -> Tensor:
        """Standard normal noise `[*shape, actions]`."""
        return torch.randn(*shape, self.log_std.numel(), generator=generator)

    def act(self, observation: Tensor, noise: Tensor) -> Tensor:
        """`mean + deviation * noise`."""
        return torch.addcmul(self.body(observation), self.log_std.exp(), noise)


class CategoricalPolicy(nn.Module):
    """Categorical distribution whose logits are the body's output."""

    def __init__(self, body: nn.Module, actions: int):
        super().__init__()
        self.body = body
        self.actions = actions

    def forward(self, observation: Tensor) -> Tensor:
        """Logits `[..., actions]`."""
        logits: Tensor = self.body(observation)
        return logits

    def draw_noise(self, shape: Sequence[int], generator: torch.Generator) -> Tensor:
        """Standard Gumbel noise `[*shape, actions]`."""
        return -torch.empty(*shape, self.actions).exponential_(generator=generator).log()

    def act(self, observation: Tensor, noise: Tensor) -> Tensor:
        """The Gumbel-max trick: `argmax(logits + noise)` is a draw from the softmax of the logits."""
        return (self.body(observation) + noise).argmax(-1)


@dataclasses.dataclass(frozen=True)
class ActorCritic:
    """The networks of an agent, as TorchRL modules over the same plain bodies.

    Attributes:
        policy: what acts: `GaussianPolicy` or `CategoricalPolicy`.
        actor: `ProbabilisticActor` around `policy`.
        critic: `TensorDictModule` from `observation` to `state_value`.
        bodies: the plain networks by name (`actor`, `critic`), for surgery and the probe.
    """

    policy: Any
    actor: ProbabilisticActor
    critic: TensorDictModule
    bodies: dict[str, nn.Module]

    def parameters(self) -> list[nn.Parameter]:
        """Every parameter that is trained."""
        return [*self.policy.parameters(), *self.critic.parameters()]


def make_actor_critic(
    observation_space: Space[Any], action_space: Space[Any], *, generator: torch.Generator, **network: Any
) -> ActorCritic:
    """Separate actor and critic for an environment's spaces.

    Args:
        observation_space: a one-dimensional `Box`.
        action_space: a one-dimensional `Box` (Gaussian policy) or a `Discrete` from 0 (categorical policy).
        generator: source of the initial weights.
        network: settings of `mlp`.

    Raises:
        ValueError: spaces of another kind.
    """
    if not isinstance(observation_space, Box) or len(observation_space.shape) != 1:
        raise ValueError(
            f"observation space {observation_space} is not a one-dimensional Box: wrap the environment "
            "(gymnasium.wrappers.FlattenObservation)"
        )
    size = observation_space.shape[0]
    policy: GaussianPolicy | CategoricalPolicy
    distribution: type[Distribution]
    if isinstance(action_space, Box) and len(action_space.shape) == 1:
        actions = action_space.shape[0]
        policy = GaussianPolicy(mlp(size, actions, generator=generator, **network), actions)
        keys, distribution = ["loc", "scale"], IndependentNormal
    elif isinstance(action_space, Discrete) and action_space.start == 0:
        actions = int(action_space.n)
        policy = CategoricalPolicy(mlp(size, actions, generator=generator, **network), actions)
        keys, distribution = ["logits"], Categorical
    else:
        raise ValueError(f"action space {action_space} is neither a one-dimensional Box nor a Discrete from 0")
    actor = ProbabilisticActor(
        TensorDictModule(policy, in_keys=["observation"], out_keys=keys),
        in_keys=keys,
        distribution_class=distribution,
        return_log_prob=True,
    )
    value = mlp(size, 1, generator=generator, **network)
    critic = TensorDictModule(value, in_keys=["observation"], out_keys=["state_value"])
    return ActorCritic(policy, actor, critic, {"actor": policy.body, "critic": value})
