"""Continual PPO on TorchRL: networks that surgery can trace, a lean collector, the update, the training loop."""

from continual_agents.networks import mlp as mlp

from .collector import EnvironmentCollector as EnvironmentCollector
from .environments import make_environment as make_environment
from .errors import EnvironmentFault as EnvironmentFault
from .errors import NotFiniteError as NotFiniteError
from .loss import ClippedLoss as ClippedLoss
from .networks import ActorCritic as ActorCritic
from .networks import make_actor_critic as make_actor_critic
from .policies import Policy as Policy
from .ppo import PPO as PPO
from .training import train as train
