"""Proximal policy optimisation with a memory: a GRU in the actor and one in the critic, trained on sequences.

As `PPO`, but for what follows from a memory. Values come from one pass of the critic over the batch, with the memory
carried over from the batch before and forgotten at every end of an episode; that of the last observation of an episode
cut short comes from the memory there. A gradient step sees whole sequences; each begins with the memory that the batch
noted there (stale after the first epoch, as usual) and gradients go back to its beginning.
"""

from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor
from torchrl.objectives.value.functional import vec_generalized_advantage_estimate

from continual_agents.networks import RecurrentBody

from .loss import clipped_surrogate
from .on_policy import OnPolicy
from .recurrent_policy import RecurrentActorCritic


class RecurrentPPO(OnPolicy):
    """Updates a recurrent agent on batches; arguments as of `OnPolicy`, and one of its own.

    Args:
        networks, given, settings: as of `OnPolicy`; `minibatch` is whole sequences.
        sequence: environment steps of a sequence; must divide `minibatch` and each environment's steps in a batch.

    Raises:
        ValueError: a value out of range, or lengths that do not divide each other.
    """

    networks: RecurrentActorCritic

    def __init__(self, networks: RecurrentActorCritic, *given: Any, sequence: int = 16, **settings: Any):
        super().__init__(networks, *given, **settings)
        if sequence < 1 or self.minibatch % sequence:
            raise ValueError(
                f"agent.minibatch={self.minibatch} is not divisible into sequences of agent.sequence={sequence}"
            )
        self.sequence = sequence
        self.critic_memory: Tensor | None = None  # after the last batch, [envs, width]

    @torch.no_grad()
    def estimate(self, batch: TensorDict) -> TensorDict:
        """As `OnPolicy`'s; a piece is a sequence.

        Raises:
            ValueError: the steps of an environment are no whole number of sequences.
        """
        grid = batch if batch.ndim == 2 else batch[None]
        if grid.shape[1] % self.sequence:
            raise ValueError(
                f"agent.batch={batch.numel()} of {len(grid)} environments gives each {grid.shape[1]} steps, which are "
                f"no sequences of agent.sequence={self.sequence}"
            )
        critic = self._critic
        following, first = grid["next"], grid["is_init"][..., 0]
        if self.critic_memory is None or len(self.critic_memory) != len(grid):
            self.critic_memory = torch.zeros(len(grid), critic.width)
        features = critic.unroll(grid["observation"], self.critic_memory, first)
        before = torch.where(first[..., None], 0.0, torch.cat((self.critic_memory[:, None], features[:, :-1]), 1))
        value = critic.head(features)
        after = critic.head(critic.step(following["observation"], features))
        ended = following["done"] if self.time_limit_as_termination else following["terminated"]
        advantage, target = vec_generalized_advantage_estimate(
            self.discount, self.gae_lambda, value, after, following["reward"], following["done"], ended
        )
        if self.normalise_advantages:
            # the same bound as TorchRL's GAE, which PPO uses
            advantage = (advantage - advantage.mean()) / advantage.std().clamp_min(1e-4)
        self.critic_memory = features[:, -1].clone()
        more = {"advantage": advantage, "value_target": target, "state_value": value, "critic_state": before}
        for name, values in more.items():
            batch.set(name, values.reshape(*batch.shape, *values.shape[2:]))
        keys = ("observation", "action", "action_log_prob", "recurrent_state", "is_init", *more)
        return batch.select(*keys).reshape(-1, self.sequence)

    @property
    def _critic(self) -> RecurrentBody:
        critic = self.networks.bodies["critic"]
        assert isinstance(critic, RecurrentBody)
        return critic

    def _gradient_step(self, minibatch: TensorDict, following: TensorDict) -> Tensor | None:
        """As `OnPolicy`'s, on sequences `[sequences, time]`."""
        policy, critic = self.networks.policy, self._critic
        observation, first = minibatch["observation"], minibatch["is_init"][..., 0]
        features = policy.body.unroll(observation, minibatch["recurrent_state"][:, 0], first)
        log_prob, entropy = policy.distribution.log_prob_and_entropy(features, minibatch["action"])
        log_ratio = log_prob - minibatch["action_log_prob"]
        ratio = log_ratio.exp()
        objective = clipped_surrogate(ratio, minibatch["advantage"][..., 0], self.clip)
        value = critic.head(critic.unroll(observation, minibatch["critic_state"][:, 0], first))
        error = self.value_coefficient * (value - minibatch["value_target"]).square().mean()
        self.optimizer.zero_grad()
        (objective + error - self.entropy_coefficient * entropy.mean()).backward()
        norm = self.apply_gradients({"loss_objective": objective.detach(), "loss_critic": error.detach()})
        if norm is None:
            return None
        with torch.no_grad():
            kl = ratio.mean() - 1 - log_ratio.mean()
            clipped = ((ratio - 1).abs() > self.clip).float().mean()
            return torch.stack([objective, error, kl, clipped, entropy.mean(), norm])

    def probe_inputs(self, batch: TensorDict, count: int) -> Any:
        """The batch's observations, in sequences that begin without a memory."""
        seen = super().probe_inputs(batch, count)
        return seen[: len(seen) // self.sequence * self.sequence].view(-1, self.sequence, seen.shape[-1])

    def state_dict(self) -> dict[str, Any]:
        """As `Learner`'s, and the critic's memory."""
        return {**super().state_dict(), "critic_memory": self.critic_memory}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict()`."""
        super().load_state_dict(state)
        self.critic_memory = state["critic_memory"]
