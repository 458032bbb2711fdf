"""A policy with a memory, and the networks of an agent that has one."""

from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Space
from tensordict import TensorDict
from torch import Tensor, nn

from continual_agents.networks import RecurrentBody

from .networks import Networks
from .policies import Act, CategoricalPolicy, GaussianPolicy, Policy
from .spaces import outputs_of, size_of


class RecurrentPolicy(Policy):
    """A Gaussian or categorical policy over a GRU's outputs, which it carries from step to step and batch to batch.

    Args:
        body: from observations to what parameterises the distribution.
        gaussian: or categorical.

    Attributes:
        memory: of each environment that is collected from, `[envs, width]`.
        first: whether the next step there is the first of an episode, bool `[envs]`.
    """

    body: RecurrentBody
    memory: Tensor
    first: Tensor

    def __init__(self, body: RecurrentBody, *, gaussian: bool):
        super().__init__(body)
        kind = GaussianPolicy if gaussian else CategoricalPolicy
        self._distribution: list[Policy] = [kind(nn.Sequential(body.head))]  # in a list: its head is the body's
        if gaussian:
            self.log_std: nn.Parameter = self.distribution.log_std  # type: ignore[assignment]
        self.restart(np.ones(1, dtype=bool))
        self.explore(0)
        self.begin()

    @property
    def distribution(self) -> Policy:
        """The policy over features `[..., width]`."""
        return self._distribution[0]

    def restart(self, ended: np.ndarray) -> None:
        """Forget where an episode has ended, bool `[envs]`."""
        gone = torch.from_numpy(np.asarray(ended, dtype=bool))
        # how many environments are collected from is known only here
        if not hasattr(self, "memory") or len(self.memory) != len(gone):
            self.memory, self.first = torch.zeros(len(gone), self.body.width), torch.ones(len(gone), dtype=torch.bool)
        self.memory = torch.where(gone[:, None], 0.0, self.memory)
        self.first = self.first | gone

    def explore(self, frames: int) -> None:
        """Note what is known before a batch."""
        self._begun = self.memory.clone(), self.first.clone()

    def draw_noise(self, *given: Any) -> Tensor:
        """As the distribution's."""
        return self.distribution.draw_noise(*given)

    def actor(self, count: int) -> Act:
        """Acts and remembers."""

        @torch.no_grad()
        def act(observation: np.ndarray, noise: np.ndarray) -> np.ndarray:
            self.memory = self.body.step(torch.from_numpy(observation), self.memory)
            self.first = torch.zeros_like(self.first)
            return self.distribution.act(self.memory, torch.from_numpy(noise)).numpy()

        return act

    def begin(self) -> None:
        """Forget what was seen in `act`: a new episode begins."""
        self._played: Tensor | None = None

    def act(self, observation: Tensor, noise: Tensor) -> Tensor:
        """Actions for the next observations of episodes that are watched; their memory is not the collection's."""
        shape = (*observation.shape[:-1], self.body.width)
        if self._played is None or self._played.shape != shape:
            self._played = torch.zeros(shape)
        rows = observation[None] if observation.ndim == 1 else observation
        self._played = self.body.step(rows, self._played.view(*rows.shape[:-1], -1)).view(shape)
        return self.distribution.act(self._played, noise)

    def annotate(self, batch: TensorDict) -> None:
        """As `Policy`'s; also `is_init` `[..., 1]`, and the memory before a step, `recurrent_state` `[..., width]`."""
        grid = batch if batch.ndim == 2 else batch[None]
        state, first = self._begun
        first = torch.cat((first[:, None], grid["next", "done"][:, :-1, 0]), 1)
        features = self.body.unroll(grid["observation"], state, first)
        log_prob, _ = self.distribution.log_prob_and_entropy(features, grid["action"])
        before = torch.cat((state[:, None], features[:, :-1]), 1)
        batch["action_log_prob"].copy_(log_prob.view(batch.shape))
        batch["recurrent_state"] = torch.where(first[..., None], 0.0, before).view(*batch.shape, -1)
        batch["is_init"] = first.reshape(*batch.shape, 1)

    def carried(self) -> dict[str, Tensor]:
        """What the next batch depends on besides the weights."""
        return {"memory": self.memory.clone(), "first": self.first.clone()}

    def carry(self, state: dict[str, Tensor]) -> None:
        """Continue from `carried()`."""
        self.memory, self.first = state["memory"].clone(), state["first"].clone()


class RecurrentActorCritic(Networks):
    """Bodies `actor` and `critic`, each with a GRU of its own."""

    policy: RecurrentPolicy

    def named_parameters(self) -> list[tuple[str, nn.Parameter]]:
        """Those of the bodies, and a Gaussian's `actor.log_std`."""
        own = [(f"actor.{name}", p) for name, p in self.policy.named_parameters(recurse=False)]
        return super().named_parameters() + own

    def state_dict(self) -> dict[str, Any]:
        """Weights, and a Gaussian's log-deviation."""
        own = {name: p.detach().clone() for name, p in self.policy.named_parameters(recurse=False)}
        return {**super().state_dict(), "own": own}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict()`, in place."""
        super().load_state_dict(state)
        for name, parameter in self.policy.named_parameters(recurse=False):
            parameter.copy_(state["own"][name])


def make_recurrent_actor_critic(
    observation_space: Space[Any],
    action_space: Space[Any],
    *,
    generator: torch.Generator,
    norm: str | None = None,
    dropout: float = 0.0,
    conv: Any = None,
    **network: Any,
) -> RecurrentActorCritic:
    """Separate recurrent actor and critic for an environment's spaces; `network`: settings of `RecurrentBody`.

    Raises:
        ValueError: spaces that do not fit, or a norm, dropout or convolutions, which a recurrent network has not.
    """
    for name, value in (("norm", norm), ("dropout", dropout), ("conv", conv)):
        if value:
            raise ValueError(
                f"network.{name}={value}: agent.kind=recurrent_ppo has none, choose another method or agent"
            )
    size, (outputs, gaussian) = size_of(observation_space), outputs_of(action_space)
    actor = RecurrentBody(size, outputs, generator=generator, **network)
    critic = RecurrentBody(size, 1, generator=generator, **network)
    return RecurrentActorCritic(RecurrentPolicy(actor, gaussian=gaussian), {"actor": actor, "critic": critic})
