"""Networks of agents that learn action values: plain bodies by name."""

from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box, Discrete, Space

from .exploration import EpsilonGreedyPolicy, TanhGaussianPolicy
from .networks import Networks, make_body
from .spaces import size_of

INIT = {"init": "default"}
"""PyTorch's own, as stable-baselines3's and TorchRL's: from LeCun's, wider by sqrt(3) and with zero biases, DQN learns
more slowly (docs/agents.md)."""


class QNetwork(Networks):
    """One body, `q`: the value of every action."""

    policy: EpsilonGreedyPolicy


class SoftActorCritic(Networks):
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
