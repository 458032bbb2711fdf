"""Continual PPO on TorchRL: networks that surgery can trace, a lean collector, the update, the training loop."""

from .collector import EnvironmentCollector as EnvironmentCollector
from .collector import make_environment as make_environment
from .networks import ActorCritic as ActorCritic
from .networks import make_actor_critic as make_actor_critic
from .networks import mlp as mlp
from .ppo import PPO as PPO
from .ppo import NotFiniteError as NotFiniteError
from .training import train as train
