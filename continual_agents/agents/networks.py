"""Actor and critic: plain bodies that surgery can trace, dressed as TorchRL modules."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import torch
from gymnasium.spaces import Box, Discrete, Space
from tensordict.nn import TensorDictModule
from torch import nn
from torch.distributions import Categorical, Distribution
from torchrl.modules import IndependentNormal, ProbabilisticActor

from continual_agents.settings import nearest

from .layers import CReLU, Dropout
from .policies import CategoricalPolicy, GaussianPolicy, Policy

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "selu": nn.SELU,
    "crelu": CReLU,
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
        activation: a key of `ACTIVATIONS`; `crelu` doubles what the next layer reads.
        norm: None or `layer_norm`, before the activation.
        dropout: probability of dropping a unit in a training pass, in [0, 1).
        generator: source of the initial weights and of the seeds of the dropout layers.

    Raises:
        ValueError: an unknown activation or norm, a width below 1, a dropout outside [0, 1).
    """
    if activation not in ACTIVATIONS:
        raise ValueError(f"network.activation={activation} is unknown{nearest(activation, ACTIVATIONS)}")
    if norm is not None and norm not in NORMS:
        raise ValueError(f"network.norm={norm} is unknown{nearest(norm, [*NORMS, 'null'])}")
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
            seed = int(torch.randint(2**31, (), generator=generator))
            layers.append(Dropout(dropout, torch.Generator().manual_seed(seed)))
        width = 2 * size if activation == "crelu" else size
    layers.append(_linear(width, outputs, generator))
    return nn.Sequential(*layers)


def _linear(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    """LeCun-uniform: U(-b, b) with b = sqrt(3 / fan_in), the published initialisation; zero bias."""
    # skip_init: nn.Linear's own initialisation would draw from the global generator
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, inputs, outputs)
    bound = math.sqrt(3 / inputs)
    with torch.no_grad():
        layer.weight.uniform_(-bound, bound, generator=generator)
        layer.bias.zero_()
    return layer


@dataclasses.dataclass(frozen=True)
class ActorCritic:
    """The networks of an agent, as TorchRL modules over the same plain bodies.

    Attributes:
        policy: what acts: `GaussianPolicy` or `CategoricalPolicy`.
        actor: `ProbabilisticActor` around `policy`.
        critic: `TensorDictModule` from `observation` to `state_value`.
        bodies: the plain networks by name (`actor`, `critic`), for surgery and the probe.
    """

    policy: Policy
    actor: ProbabilisticActor
    critic: TensorDictModule
    bodies: dict[str, nn.Module]

    def parameters(self) -> list[nn.Parameter]:
        """Every parameter that is trained."""
        return [*self.policy.parameters(), *self.critic.parameters()]

    def named_parameters(self) -> list[tuple[str, nn.Parameter]]:
        """The same with names as in tables: `actor.0.weight`, `critic.4.bias`, `actor.log_std`."""
        named = [(f"actor.{name}", p) for name, p in self.bodies["actor"].named_parameters()]
        named += [(f"actor.{name}", p) for name, p in self.policy.named_parameters(recurse=False)]
        return named + [(f"critic.{name}", p) for name, p in self.bodies["critic"].named_parameters()]

    def state_dict(self) -> dict[str, Any]:
        """Weights, and the generators of dropout layers."""
        return {"actor": self.policy.state_dict(), "critic": self.bodies["critic"].state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict()`, in place."""
        self.policy.load_state_dict(state["actor"])
        self.bodies["critic"].load_state_dict(state["critic"])


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
    policy: Policy
    distribution: type[Distribution]
    if isinstance(action_space, Box) and len(action_space.shape) == 1:
        policy = GaussianPolicy(mlp(size, action_space.shape[0], generator=generator, **network))
        keys, distribution = ["loc", "scale"], IndependentNormal
    elif isinstance(action_space, Discrete) and action_space.start == 0:
        policy = CategoricalPolicy(mlp(size, int(action_space.n), generator=generator, **network))
        keys, distribution = ["logits"], Categorical
    else:
        raise ValueError(
            f"action space {action_space} is neither a one-dimensional Box nor a Discrete from 0: wrap the environment "
            "(gymnasium.wrappers.TransformAction)"
        )
    actor = ProbabilisticActor(
        TensorDictModule(policy, in_keys=["observation"], out_keys=keys),
        in_keys=keys,
        distribution_class=distribution,
        distribution_kwargs={"validate_args": False},  # checks of every argument cost as much as the network
        return_log_prob=True,
    )
    value = mlp(size, 1, generator=generator, **network)
    critic = TensorDictModule(value, in_keys=["observation"], out_keys=["state_value"])
    return ActorCritic(policy, actor, critic, {"actor": policy.body, "critic": value})
