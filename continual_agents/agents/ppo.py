"""Proximal policy optimisation (Schulman et al. 2017) from top to bottom, with what a method does after every step.

One update on a batch of environment steps:

1. values and generalised advantages once, on the whole batch (TorchRL's `GAE`);
2. `epochs` passes over the batch, each in a new random order, in minibatches without replacement;
3. per minibatch: the clipped loss (`ClippedLoss`, a TorchRL `ClipPPOLoss`), backward, the optimizer's step, then the
   after-step operations of the method (surgery, noise), in this order: stale gradients never touch a unit that was
   just replaced.
"""

import functools

import torch
from tensordict import TensorDict
from torch import Tensor
from torchrl.objectives.value import GAE

from .loss import ClippedLoss
from .networks import ActorCritic
from .on_policy import METRICS, OnPolicy


class PPO(OnPolicy):
    """Updates an agent on batches; arguments as of `OnPolicy`, networks of `ActorCritic`."""

    networks: ActorCritic
    penalises = True

    @functools.cached_property
    def advantage(self) -> GAE:
        """Generalised advantages and value targets of a batch."""
        return GAE(
            gamma=self.discount,
            lmbda=self.gae_lambda,
            value_network=self.networks.critic,
            average_gae=self.normalise_advantages,
            vectorized=True,
        )

    @functools.cached_property
    def loss(self) -> ClippedLoss:
        """The loss of a minibatch."""
        weights = {"value_coefficient": self.value_coefficient, "entropy_coefficient": self.entropy_coefficient}
        return ClippedLoss(self.networks, clip=self.clip, **weights)

    @torch.no_grad()
    def estimate(self, batch: TensorDict) -> TensorDict:
        """As `OnPolicy`'s; a piece is an environment step."""
        following = batch.get("next")
        if self.time_limit_as_termination:
            # in a copy: the collector goes on writing into its own tensors
            following = following.copy().set("terminated", following.get("done"))
        copy = batch.select("observation").set("next", following).to(self._parameters[0].device)
        copy = self.advantage(copy)
        for key in ("advantage", "value_target", "state_value"):
            batch.set(key, copy.get(key))
        return batch.select("observation", "action", "action_log_prob", "advantage", "value_target").reshape(-1)

    def _gradient_step(self, minibatch: TensorDict, following: TensorDict) -> Tensor | None:
        """As `OnPolicy`'s; penalties look at `following`."""
        terms = self.loss(minibatch)
        total = terms.get("loss_objective") + terms.get("loss_critic") + terms.get("loss_entropy", 0.0)
        for one in self.penalties:
            total = total + one.penalty(self.networks.policy, following["observation"], terms["loss_objective"])
        self.optimizer.zero_grad()
        total.backward()
        norm = self.apply_gradients({name: value for name, value in terms.items() if name.startswith("loss_")})
        if norm is None:
            return None
        return torch.stack([*(terms.get(name).detach() for name in METRICS.values()), norm])
