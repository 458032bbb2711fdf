"""Actor and critic: plain bodies that surgery can trace, dressed as TorchRL modules."""

import dataclasses
from typing import Any

import torch
from gymnasium.spaces import Box, Space
from tensordict.nn import TensorDictModule
from torch import nn
from torch.distributions import Categorical
from torchrl.modules import IndependentNormal, ProbabilisticActor

from continual_agents.networks import ConvNet, mlp
from continual_agents.settings import written

from .policies import CategoricalPolicy, GaussianPolicy, Policy
from .spaces import is_picture, outputs_of, size_of


@dataclasses.dataclass(frozen=True)
class Networks:
    """The networks of an agent: a policy and the plain networks behind it and beside it.

    Attributes:
        policy: what acts; its body is one of `bodies`.
        bodies: by name, for surgery and the probe.
    """

    policy: Policy
    bodies: dict[str, nn.Module]

    def parameters(self) -> list[nn.Parameter]:
        """Every parameter that the method's optimizer trains."""
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


@dataclasses.dataclass(frozen=True)
class ActorCritic(Networks):
    """Bodies `actor` and `critic`, under a `GaussianPolicy` or `CategoricalPolicy`; and TorchRL modules over them.

    Attributes:
        actor: `ProbabilisticActor` around `policy`.
        critic: `TensorDictModule` from `observation` to `state_value`.
    """

    actor: ProbabilisticActor
    critic: TensorDictModule

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


def make_body(space: Space[Any], outputs: int, *, generator: torch.Generator, **network: Any) -> nn.Sequential:
    """The network from an environment's observations to `outputs` numbers: `ConvNet` for pictures, else `mlp`.

    Args:
        space: of the observations.
        outputs: size of the output.
        generator: source of the initial weights.
        network: settings of `mlp`, for pictures also `conv`.

    Raises:
        ValueError: a space of another kind, or convolutions of what is no picture.
    """
    if is_picture(space):
        assert isinstance(space, Box)
        return ConvNet(space.shape, int(space.high.max()), outputs, generator=generator, **network)
    size = size_of(space)
    if (conv := network.pop("conv", None)) is not None:
        raise ValueError(f"network.conv={written(conv)}: the observations are no pictures, give null")
    return mlp(size, outputs, generator=generator, **network)


def make_actor_critic(
    observation_space: Space[Any], action_space: Space[Any], *, generator: torch.Generator, **network: Any
) -> ActorCritic:
    """Separate actor and critic for an environment's spaces.

    Args:
        observation_space: a one-dimensional `Box`, or pictures.
        action_space: a one-dimensional `Box` (Gaussian policy) or a `Discrete` from 0 (categorical policy).
        generator: source of the initial weights.
        network: settings of `make_body`.

    Raises:
        ValueError: spaces of another kind.
    """
    outputs, gaussian = outputs_of(action_space)
    body = make_body(observation_space, outputs, generator=generator, **network)
    policy = GaussianPolicy(body) if gaussian else CategoricalPolicy(body)
    keys = ["loc", "scale"] if gaussian else ["logits"]
    actor = ProbabilisticActor(
        TensorDictModule(policy, in_keys=["observation"], out_keys=keys),
        in_keys=keys,
        distribution_class=IndependentNormal if gaussian else Categorical,
        distribution_kwargs={"validate_args": False},  # checks of every argument cost as much as the network
        return_log_prob=True,
    )
    value = make_body(observation_space, 1, generator=generator, **network)
    critic = TensorDictModule(value, in_keys=["observation"], out_keys=["state_value"])
    return ActorCritic(policy, {"actor": policy.body, "critic": value}, actor, critic)
