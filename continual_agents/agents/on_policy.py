"""What agents that learn from the batch at hand have in common: passes over it in a new order, and their row."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from tensordict import TensorDict
from torch import Tensor

from continual_agents.methods import AfterStep
from continual_agents.plasticity import update_norm

from .checks import check_ppo
from .learner import Learner, batch_is_finite
from .networks import Networks

METRICS = {
    "loss/policy": "loss_objective",
    "loss/value": "loss_critic",
    "policy/kl": "kl",
    "policy/clip_fraction": "clip_fraction",
    "policy/entropy": "entropy",
}
"""Column of the table: key of the loss."""


class OnPolicy(Learner):
    """Improves the agent on every batch, `epochs` times over, each in a new random order.

    The defaults are the published ones (Dohare et al. 2024, extended data).

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

    Raises:
        ValueError: a value out of range, or minibatches that do not divide the batch.
    """

    def __init__(
        self,
        networks: Networks,
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
        self.epochs, self.minibatch = epochs, minibatch
        self.steps_per_batch = epochs * (batch // minibatch)
        self.discount, self.gae_lambda, self.clip = discount, gae_lambda, clip
        self.value_coefficient, self.entropy_coefficient = value_coefficient, entropy_coefficient
        self.normalise_advantages, self.time_limit_as_termination = normalise_advantages, time_limit_as_termination

    def update(self, batch: TensorDict) -> dict[str, float]:
        """Improve the agent on one batch.

        Args:
            batch: `[frames]` or `[envs, frames per env]`, as `EnvironmentCollector` yields it.

        Returns:
            Means over the gradient steps of losses, KL, clip fraction, entropy and gradient norm; how far the
            parameters moved in all, after-step operations included; the critic's explained variance before the update;
            the number of steps skipped.

        Raises:
            NotFiniteError: a gradient is not finite, and `on_not_finite` is "stop" or a weight is the reason.
        """
        names = (*METRICS, "optimizer/gradient_norm")
        self.operation_seconds = 0.0
        if self.on_not_finite == "skip" and not batch_is_finite(batch):
            nothing = dict.fromkeys((*names, "loss/explained_variance"), math.nan)
            return {**nothing, "optimizer/update_norm": 0.0, "optimizer/skipped_steps": float(self.steps_per_batch)}
        pieces = self.estimate(batch).to(self._parameters[0].device)
        size = self.minibatch // math.prod(pieces.shape[1:])
        statistics, before = [], [parameter.detach().clone() for parameter in self._parameters]
        for _ in range(self.epochs):
            # one gather per epoch; the minibatches are views of it
            order = torch.randperm(len(pieces), generator=self.generator).to(self._parameters[0].device)
            minibatches = pieces[order].split(size)
            for number, minibatch in enumerate(minibatches):
                following = minibatches[(number + 1) % len(minibatches)]
                statistics.append(self._gradient_step(minibatch, following))
        taken = [row for row in statistics if row is not None]
        # kept on the device until here: one wait per update
        means = torch.stack(taken).mean(0).tolist() if taken else [math.nan] * len(names)
        return {
            **dict(zip(names, means, strict=True)),
            "optimizer/update_norm": update_norm(before, self._parameters).item(),
            "loss/explained_variance": explained_variance(batch),
            "optimizer/skipped_steps": float(len(statistics) - len(taken)),
        }

    def estimate(self, batch: TensorDict) -> TensorDict:
        """Write `advantage`, `value_target` and `state_value` into a batch; what is reordered, `[pieces, ...]`."""
        raise NotImplementedError

    def _gradient_step(self, minibatch: TensorDict, following: TensorDict) -> Tensor | None:
        """One step; its statistics, `METRICS` and the gradient's norm, or None if it was skipped.

        Args:
            minibatch: pieces.
            following: those of the next step.
        """
        raise NotImplementedError


def explained_variance(batch: TensorDict) -> float:
    """`1 - var(target - value) / var(target)`: 1 is a perfect critic, 0 one that knows the mean only."""
    target, value = batch.get("value_target"), batch.get("state_value")
    return 1.0 - float((target - value).var() / target.var().clamp_min(1e-12))
