"""Proximal policy optimisation (Schulman et al. 2017) from top to bottom, with what a method does after every step.

One update on a batch of environment steps:

1. values and generalised advantages once, on the whole batch (TorchRL's `GAE`);
2. `epochs` passes over the batch, each in a new random order, in minibatches without replacement;
3. per minibatch: the clipped loss (`ClippedLoss`, a TorchRL `ClipPPOLoss`), backward, the optimizer's step, then the
   after-step operations of the method (surgery, noise), in this order: stale gradients never touch a unit that was
   just replaced.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from tensordict import TensorDict
from torch import Tensor
from torchrl.objectives.value import GAE

from continual_agents.methods import AfterStep
from continual_agents.plasticity import update_norm

from .checks import check_ppo
from .learner import Learner, batch_is_finite
from .loss import ClippedLoss
from .networks import ActorCritic

METRICS = {
    "loss/policy": "loss_objective",
    "loss/value": "loss_critic",
    "policy/kl": "kl",
    "policy/clip_fraction": "clip_fraction",
    "policy/entropy": "entropy",
}
"""Column of the table: key of the loss."""


class PPO(Learner):
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

    def update(self, batch: TensorDict) -> dict[str, float]:
        """Improve the agent on one batch.

        Args:
            batch: `[frames]` or `[envs, frames per env]`, as `EnvironmentCollector` yields it; gains TorchRL's
                `advantage`, `value_target` and `state_value`.

        Returns:
            Means over the gradient steps of losses, KL, clip fraction, entropy and gradient norm; how far the
            parameters moved in all, after-step operations included; the critic's explained variance before the update;
            the number of steps skipped.

        Raises:
            NotFiniteError: a gradient is not finite, and `on_not_finite` is "stop" or a weight is the reason.
        """
        if self.on_not_finite == "skip" and not batch_is_finite(batch):
            return self._leave_out(batch)
        self.operation_seconds = 0.0
        self.estimate(batch)
        keys = ("observation", "action", "action_log_prob", "advantage", "value_target")
        flat = batch.select(*keys).reshape(-1).to(self._parameters[0].device)
        statistics, before = [], [parameter.detach().clone() for parameter in self._parameters]
        for _ in range(self.epochs):
            # one gather per epoch; the minibatches are views of it
            order = torch.randperm(len(flat), generator=self.generator).to(flat.device)
            minibatches = flat[order].split(self.minibatch)
            for number, minibatch in enumerate(minibatches):
                following = minibatches[(number + 1) % len(minibatches)]
                statistics.append(self._gradient_step(minibatch, following))
        taken = [row for row in statistics if row is not None]
        # kept on the device until here: one wait per update
        means = torch.stack(taken).mean(0).tolist() if taken else [math.nan] * (len(METRICS) + 1)
        return {
            **dict(zip((*METRICS, "optimizer/gradient_norm"), means, strict=True)),
            "optimizer/update_norm": update_norm(before, self._parameters).item(),
            "loss/explained_variance": explained_variance(batch),
            "optimizer/skipped_steps": float(len(statistics) - len(taken)),
        }

    def _leave_out(self, batch: TensorDict) -> dict[str, float]:
        """What `update` returns for a batch that nothing is learned from."""
        self.operation_seconds = 0.0
        names = (*METRICS, "optimizer/gradient_norm", "loss/explained_variance")
        skipped = self.epochs * (batch.numel() // self.minibatch)
        counts = {"optimizer/update_norm": 0.0, "optimizer/skipped_steps": float(skipped)}
        return {**dict.fromkeys(names, math.nan), **counts}

    @torch.no_grad()
    def estimate(self, batch: TensorDict) -> None:
        """Write values, advantages and value targets into the batch."""
        following = batch.get("next")
        if self.time_limit_as_termination:
            # in a copy: the collector goes on writing into its own tensors
            following = following.copy().set("terminated", following.get("done"))
        copy = batch.select("observation").set("next", following).to(self._parameters[0].device)
        copy = self.advantage(copy)
        for key in ("advantage", "value_target", "state_value"):
            batch.set(key, copy.get(key))

    def _gradient_step(self, minibatch: TensorDict, other: TensorDict) -> Tensor | None:
        """One step; its statistics, or None if it was skipped. Penalties look at `other`, of the next step."""
        terms = self.loss(minibatch)
        total = terms.get("loss_objective") + terms.get("loss_critic") + terms.get("loss_entropy", 0.0)
        for one in self.penalties:
            total = total + one.penalty(self.networks.policy, other["observation"], terms["loss_objective"])
        self.optimizer.zero_grad()
        total.backward()
        norm = self.apply_gradients({name: value for name, value in terms.items() if name.startswith("loss_")})
        if norm is None:
            return None
        return torch.stack([*(terms.get(name).detach() for name in METRICS.values()), norm])


def explained_variance(batch: TensorDict) -> float:
    """`1 - var(target - value) / var(target)`: 1 is a perfect critic, 0 one that knows the mean only."""
    target, value = batch.get("value_target"), batch.get("state_value")
    return 1.0 - float((target - value).var() / target.var().clamp_min(1e-12))
