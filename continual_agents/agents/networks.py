"""Actor and critic: plain bodies that surgery can trace, dressed as TorchRL modules."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from gymnasium.spaces import Box, Discrete, Space
from tensordict.nn import TensorDictModule
from torch import nn
from torch.distributions import Categorical, Distribution
from torchrl.modules import IndependentNormal, ProbabilisticActor

from continual_agents.networks import mlp

from .policies import CategoricalPolicy, GaussianPolicy, Policy


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
            "(continual_agents.agents.fit_spaces)"
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
            "(continual_agents.agents.fit_spaces)"
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
