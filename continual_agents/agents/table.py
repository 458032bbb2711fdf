"""The agents, one row each: `experiment.agent.kind` chooses."""

import dataclasses
from collections.abc import Callable
from typing import Any

from .dqn import DQN
from .learner import Learner
from .networks import make_actor_critic
from .ppo import PPO
from .recurrent_policy import make_recurrent_actor_critic
from .recurrent_ppo import RecurrentPPO
from .sac import SAC
from .value_networks import make_q_network, make_soft_actor_critic


@dataclasses.dataclass(frozen=True)
class Agent:
    """A kind of agent.

    Attributes:
        learner: its class; the keyword arguments of its constructor are the settings of `experiment.agent`.
        make_networks: (observation space, action space, *, generator, **network) -> its networks.
    """

    learner: Callable[..., Learner]
    make_networks: Callable[..., Any]


AGENTS: dict[str, Agent] = {
    "ppo": Agent(PPO, make_actor_critic),
    "recurrent_ppo": Agent(RecurrentPPO, make_recurrent_actor_critic),
    "dqn": Agent(DQN, make_q_network),
    "sac": Agent(SAC, make_soft_actor_critic),
}
