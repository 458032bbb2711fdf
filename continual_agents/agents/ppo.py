"""Proximal policy optimisation (Schulman et al. 2017) from top to bottom, with what a method does after every step.

One update on a batch of environment steps:

1. values and generalised advantages once, on the whole batch (TorchRL's `GAE`);
2. `epochs` passes over the batch, each in a new random order, in minibatches without replacement;
3. per minibatch: the clipped loss (`ClippedLoss`, a TorchRL `ClipPPOLoss`), backward, the optimizer's step, then the
   after-step operations of the method (surgery, noise), in this order: stale gradients never touch a unit that was
   just replaced.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from tensordict import TensorDict
from torch import Tensor
from torchrl.objectives.value import GAE

from continual_agents.methods import AfterStep

from .checks import check_ppo
from .loss import ClippedLoss
from .networks import ActorCritic
from .on_policy import METRICS, OnPolicy


class PPO(OnPolicy):
    """Updates an agent on batches; the defaults are the published ones (Dohare et al. 2024, extended data).

    Args:
        networks: actor and critic.
        optimizer: trains all of `networks.parameters()`.
        operations: run after every optimizer step, in order.
        batch: environment steps per update.
        epochs: passes over the batch.
        minibatch: environment steps per gradient step; must divide `batch`.
        discount: gamma, in [0, 1].
        gae_lambda: lambda of the advantage estimate, in [0, 1].
        clip: half width of the trust region of the probability ratio, in (0, 1).
        value_coefficient: weight of the critic's squared error, >= 0.
        entropy_coefficient: weight of the entropy bonus, >= 0.
        max_gradient_norm: gradients are scaled down to this norm; None: never.
        normalise_advantages: to mean 0 and deviation 1 over the batch (not the minibatch), as published.
        time_limit_as_termination: treat a time limit as a death, as the published code does. By default the value of
            the last observation is bootstrapped.
        on_not_finite: "stop" when a gradient is not finite, or "skip": leave out the step (or the whole batch, where
            the environment gave such numbers) and count it.
        generator: order of the minibatches.

    Attributes:
        gradient_steps: optimizer steps so far.
        operation_seconds: wall-clock time that the operations took in the last update.

    Raises:
        ValueError: a value out of range, or minibatches that do not divide the batch.
    """

    networks: ActorCritic
    penalises = True

    def __init__(
        self,
        networks: ActorCritic,
        optimizer: torch.optim.Optimizer,
        operations: Sequence[AfterStep] = (),
        *,
        batch: int = 2048,
        epochs: int = 10,
        minibatch: int = 128,
        discount: float = 0.99,
        gae_lambda: float = 0.95,
        clip: float = 0.2,
        value_coefficient: float = 1.0,
        entropy_coefficient: float = 0.0,
        max_gradient_norm: float | None = None,
        normalise_advantages: bool = True,
        time_limit_as_termination: bool = False,
        on_not_finite: Literal["stop", "skip"] = "stop",
        generator: torch.Generator,
    ):
        check_ppo(locals())
        super().__init__(
            networks,
            optimizer,
            operations,
            max_gradient_norm=max_gradient_norm,
            on_not_finite=on_not_finite,
            generator=generator,
        )
        self.frames_per_batch = self.frames_per_row = batch
        self.epochs = epochs
        self.minibatch = minibatch
        self.steps_per_batch = epochs * (batch // minibatch)
        self.time_limit_as_termination = time_limit_as_termination
        self.advantage = GAE(
            gamma=discount,
            lmbda=gae_lambda,
            value_network=networks.critic,
            average_gae=normalise_advantages,
            vectorized=True,
        )
        self.loss = ClippedLoss(
            networks, clip=clip, value_coefficient=value_coefficient, entropy_coefficient=entropy_coefficient
        )

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
