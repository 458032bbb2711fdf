"""Agents on TorchRL: networks that surgery can trace, a lean collector, PPO, DQN, SAC, the training loop."""

from continual_agents.networks import mlp as mlp

from .collector import EnvironmentCollector as EnvironmentCollector
from .dqn import DQN as DQN
from .environments import make_environment as make_environment
from .environments import rescale_actions as rescale_actions
from .errors import EnvironmentFault as EnvironmentFault
from .errors import NotFiniteError as NotFiniteError
from .evaluation import load_policy as load_policy
from .learner import Learner as Learner
from .loss import ClippedLoss as ClippedLoss
from .networks import ActorCritic as ActorCritic
from .networks import make_actor_critic as make_actor_critic
from .off_policy import OffPolicy as OffPolicy
from .on_policy import OnPolicy as OnPolicy
from .policies import Policy as Policy
from .ppo import PPO as PPO
from .recurrent_policy import make_recurrent_actor_critic as make_recurrent_actor_critic
from .recurrent_ppo import RecurrentPPO as RecurrentPPO
from .sac import SAC as SAC
from .spaces import fit_spaces as fit_spaces
from .table import AGENTS as AGENTS
from .table import Agent as Agent
from .training import train as train
from .value_networks import make_q_network as make_q_network
from .value_networks import make_soft_actor_critic as make_soft_actor_critic
