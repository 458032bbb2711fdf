"""Networks of agents that learn action values: plain bodies by name."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box, Discrete, Space
from torch import nn

from .exploration import EpsilonGreedyPolicy, TanhGaussianPolicy
from .networks import make_body
from .policies import Policy
from .spaces import size_of

INIT = {"init": "default"}
"""PyTorch's own, as stable-baselines3's and TorchRL's: from LeCun's, wider by sqrt(3) and with zero biases, DQN learns
more slowly (docs/agents.md)."""


@dataclasses.dataclass(frozen=True)
class ValueNetworks:
    """A policy and the plain networks behind it and beside it.

    Attributes:
        policy: what acts; its body is one of `bodies`.
        bodies: by name, for surgery and the probe.
    """

    policy: Policy
    bodies: dict[str, nn.Module]

    def parameters(self) -> list[nn.Parameter]:
        """Every parameter that is trained."""
        return [parameter for _, parameter in self.named_parameters()]

    def named_parameters(self) -> list[tuple[str, nn.Parameter]]:
        """The same with names as in tables: `q.0.weight`, `critic_1.4.bias`."""
        return [(f"{name}.{key}", p) for name, body in self.bodies.items() for key, p in body.named_parameters()]

    def state_dict(self) -> dict[str, Any]:
        """Weights, and the generators of dropout layers."""
        return {"bodies": {name: body.state_dict() for name, body in self.bodies.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict()`, in place."""
        for name, body in self.bodies.items():
            body.load_state_dict(state["bodies"][name])


class QNetwork(ValueNetworks):
    """One body, `q`: the value of every action."""

    policy: EpsilonGreedyPolicy


class SoftActorCritic(ValueNetworks):
    """Bodies `actor`, and `critic_1` and `critic_2` from observation and action to a value."""

    policy: TanhGaussianPolicy


def make_q_network(
    observation_space: Space[Any], action_space: Space[Any], *, generator: torch.Generator, **network: Any
) -> QNetwork:
    """Action values for an environment's spaces; `network`: settings of `make_body`, `init` being "default".

    Raises:
        ValueError: actions that are no `Discrete` from 0, or observations that are no one-dimensional `Box` or picture.
    """
    if not isinstance(action_space, Discrete) or action_space.start != 0:
        raise ValueError(
            f"action space {action_space} is not Discrete from 0, as agent.kind=dqn needs it: use agent.kind=sac or ppo"
        )
    body = make_body(observation_space, int(action_space.n), generator=generator, **{**INIT, **network})
    return QNetwork(EpsilonGreedyPolicy(body), {"q": body})


def make_soft_actor_critic(
    observation_space: Space[Any], action_space: Space[Any], *, generator: torch.Generator, **network: Any
) -> SoftActorCritic:
    """Actor and twin critics for an environment's spaces; `network`: settings of `make_body`, `init` being "default".

    Raises:
        ValueError: actions that are no one-dimensional `Box` of +-1, or observations that are no such `Box`.
    """
    size, network = size_of(observation_space), {**INIT, **network}
    if not isinstance(action_space, Box) or len(action_space.shape) != 1:
        raise ValueError(
            f"action space {action_space} is not a one-dimensional Box, as agent.kind=sac needs it: use agent.kind=dqn "
            "or ppo"
        )
    if not (action_space.low == -1).all() or not (action_space.high == 1).all():
        raise ValueError(
            f"action space {action_space} does not go from -1 to 1, as agent.kind=sac needs it: give "
            "environment.rescale_actions=true, or wrap it in gymnasium.wrappers.RescaleAction"
        )
    actions = action_space.shape[0]
    both = Box(-np.inf, np.inf, (size + actions,))
    actor = make_body(observation_space, 2 * actions, generator=generator, **network)
    critics = {f"critic_{k}": make_body(both, 1, generator=generator, **network) for k in (1, 2)}
    return SoftActorCritic(TanhGaussianPolicy(actor), {"actor": actor, **critics})
