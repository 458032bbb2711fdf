"""Proximal policy optimisation (Schulman et al. 2017) from top to bottom, with what a method does after every step.

One update on a batch of environment steps:

1. values and generalised advantages once, on the whole batch (TorchRL's `GAE`);
2. `epochs` passes over the batch in a new random order, in minibatches without replacement;
3. per minibatch: TorchRL's `ClipPPOLoss`, backward, the optimizer's step, then the after-step operations of the
   method (surgery, noise), in this order: stale gradients never touch a unit that was just replaced.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor
from torchrl.objectives import ClipPPOLoss
from torchrl.objectives.value import GAE

from continual_agents.methods import AfterStep
from continual_agents.runs import generator_state, set_generator_state

from .networks import ActorCritic


class NotFiniteError(FloatingPointError):
    """A loss or gradient became NaN or infinite."""


class PPO:
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
        clip: half width of the trust region of the probability ratio, > 0.
        value_coefficient: weight of the critic's squared error, >= 0.
        entropy_coefficient: weight of the entropy bonus, >= 0.
        max_gradient_norm: gradients are scaled down to this norm; None: never.
        time_limit_as_termination: treat a time limit as a death, as the published code does. By default the value of
            the last observation is bootstrapped.
        skip_not_finite: leave out a gradient step whose gradient is not finite instead of stopping.
        generator: order of the minibatches.

    Raises:
        ValueError: a value out of range, or minibatches that do not divide the batch.
    """

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
        time_limit_as_termination: bool = False,
        skip_not_finite: bool = False,
        generator: torch.Generator,
    ):
        _check_settings(locals())
        self.networks = networks
        self.optimizer = optimizer
        self.operations = list(operations)
        self.epochs = epochs
        self.minibatch = minibatch
        self.max_gradient_norm = max_gradient_norm
        self.time_limit_as_termination = time_limit_as_termination
        self.skip_not_finite = skip_not_finite
        self.generator = generator
        self.gradient_steps = 0
        self.advantage = GAE(gamma=discount, lmbda=gae_lambda, value_network=networks.critic, average_gae=True)
        self.loss = ClipPPOLoss(
            networks.actor,
            networks.critic,
            clip_epsilon=clip,
            entropy_bonus=entropy_coefficient > 0,
            entropy_coeff=entropy_coefficient if entropy_coefficient > 0 else None,
            critic_coeff=value_coefficient,
            loss_critic_type="l2",
            functional=False,  # the loss trains the modules themselves, which surgery watches
        )
        self._parameters = networks.parameters()

    def update(self, batch: TensorDict) -> dict[str, float]:
        """Improve the agent on one batch.

        Args:
            batch: `[frames]` or `[envs, frames per env]`, as `EnvironmentCollector` yields it.

        Returns:
            Means over the minibatches (losses, KL, clip fraction, gradient norm), and entropy, explained variance.

        Raises:
            NotFiniteError: a gradient is not finite and `skip_not_finite` is off.
        """
        if self.time_limit_as_termination:
            batch["next", "terminated"] = batch["next", "done"]
        with torch.no_grad():
            batch = self.advantage(batch)
        metrics = self._batch_metrics(batch)
        keys = ("observation", "action", "action_log_prob", "advantage", "value_target")
        flat = batch.select(*keys).reshape(-1)
        totals: dict[str, Tensor] = {}
        for _ in range(self.epochs):
            # one gather per epoch; the minibatches are views of it
            shuffled = flat[torch.randperm(flat.shape[0], generator=self.generator)]
            for minibatch in shuffled.split(self.minibatch):
                for name, value in self._gradient_step(minibatch).items():
                    totals[name] = totals[name] + value if name in totals else value
        steps = self.epochs * flat.shape[0] // self.minibatch
        return metrics | {name: float(total) / steps for name, total in totals.items()}

    def _gradient_step(self, minibatch: TensorDict) -> dict[str, Tensor]:
        losses = self.loss(minibatch)
        total = losses["loss_objective"] + losses["loss_critic"]
        if self.loss.entropy_bonus:
            total = total + losses["loss_entropy"]
        self.optimizer.zero_grad()
        total.backward()
        norm = self._gradient_norm()
        if not torch.isfinite(norm):
            self._not_finite(losses, norm)
            return {}
        self.optimizer.step()
        for operation in self.operations:
            operation.step()
        self.gradient_steps += 1
        return {
            "loss/policy": losses["loss_objective"].detach(),
            "loss/value": losses["loss_critic"].detach(),
            "policy/kl": losses["kl_approx"],
            "policy/clip_fraction": losses["clip_fraction"],
            "optimizer/gradient_norm": norm,
        }

    def _gradient_norm(self) -> Tensor:
        if self.max_gradient_norm is not None:
            return torch.nn.utils.clip_grad_norm_(self._parameters, self.max_gradient_norm)
        return torch.nn.utils.get_total_norm([p.grad for p in self._parameters if p.grad is not None])

    def _not_finite(self, losses: TensorDict, norm: Tensor) -> None:
        if self.skip_not_finite:
            return
        values = ", ".join(f"{name}={float(losses[name]):g}" for name in ("loss_objective", "loss_critic"))
        named = [
            (f"{part}.{name}", p) for part, body in self.networks.bodies.items() for name, p in body.named_parameters()
        ]
        bad = [name for name, p in named if p.grad is not None and not torch.isfinite(p.grad).all()]
        raise NotFiniteError(
            f"gradient norm {float(norm):g} at gradient step {self.gradient_steps} ({values}; "
            f"first parameter: {bad[0] if bad else 'none, the norm itself overflows'}): "
            "lower the step size or set agent.max_gradient_norm"
        )

    @torch.no_grad()
    def _batch_metrics(self, batch: TensorDict) -> dict[str, float]:
        distribution = self.networks.actor.get_dist(batch.select("observation"))
        target, value = batch["value_target"], batch["state_value"]
        return {
            "policy/entropy": float(distribution.entropy().mean()),
            "loss/explained_variance": 1.0 - float((target - value).var() / target.var().clamp_min(1e-12)),
        }

    def state_dict(self) -> dict[str, Any]:
        """Networks, optimizer, operations and minibatch order: what the next update depends on."""
        return {
            "actor": self.networks.policy.state_dict(),
            "critic": self.networks.critic.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "operations": [operation.state_dict() for operation in self.operations],
            "generator": generator_state(self.generator),
            "gradient_steps": self.gradient_steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict()`."""
        self.networks.policy.load_state_dict(state["actor"])
        self.networks.critic.load_state_dict(state["critic"])
        self.optimizer.load_state_dict(state["optimizer"])
        for operation, stored in zip(self.operations, state["operations"], strict=True):
            operation.load_state_dict(stored)
        set_generator_state(self.generator, state["generator"])
        self.gradient_steps = state["gradient_steps"]


def _check_settings(settings: dict[str, Any]) -> None:
    batch, minibatch = settings["batch"], settings["minibatch"]
    if not 0 < minibatch <= batch or batch % minibatch:
        raise ValueError(f"agent.batch={batch} is not divisible into minibatches of agent.minibatch={minibatch}")
    if settings["epochs"] < 1:
        raise ValueError(f"agent.epochs={settings['epochs']}: at least one pass over the batch")
    for name in ("discount", "gae_lambda"):
        if not 0 <= settings[name] <= 1:
            raise ValueError(f"agent.{name}={settings[name]} lies outside [0, 1]")
    for name in ("clip", "max_gradient_norm"):
        if settings[name] is not None and not settings[name] > 0:
            raise ValueError(f"agent.{name}={settings[name]} must be positive")
    for name in ("value_coefficient", "entropy_coefficient"):
        if not settings[name] >= 0:
            raise ValueError(f"agent.{name}={settings[name]} must not be negative")
