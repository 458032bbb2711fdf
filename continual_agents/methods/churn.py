"""C-CHAIN's penalty: a step on one batch should not change what the policy does in states of another one."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call


class ChurnPenalty:
    """C-CHAIN (Tang et al. 2025, after Tang and Berseth 2024): a term of a policy's loss, for PPO.

        L + lambda KL(pi_before(.|s), pi(.|s)),    lambda = scale mean|L| / mean KL

    with the policy before the last gradient step, on states s of a reference batch that neither step learns from. The
    running means make the term `scale` times the loss in size, whatever the units of either.

    Args:
        scale: of the term, as a share of the policy's loss; .05 as published.
        decay: of the running means, in [0, 1).

    Raises:
        ValueError: a value out of range.
    """

    def __init__(self, *, scale: float = 0.05, decay: float = 0.99):
        if not scale >= 0:
            raise ValueError(f"churn.scale={scale}: the term's share of the policy's loss is at least 0")
        if not 0 <= decay < 1:
            raise ValueError(f"churn.decay={decay}: lies in [0, 1)")
        self.scale, self.decay = scale, decay
        self.before: dict[str, Tensor] = {}
        self.loss_mean, self.churn_mean = torch.zeros(()), torch.zeros(())
        self._now: dict[str, Tensor] = {}

    def penalty(self, policy: Any, observation: Tensor, loss: Tensor) -> Tensor | float:
        """The term, to be added to a policy's loss before its gradient step; 0 before there was one.

        Args:
            policy: with `forward` to the distribution's parameters and `kl(of, from)` between two such.
            observation: of the reference batch, `[batch, observation]`.
            loss: of the policy, a number; only its size counts.
        """
        self._now = {name: parameter.detach().clone() for name, parameter in policy.named_parameters()}
        if not self.before:
            return 0.0
        with torch.no_grad():
            before = functional_call(policy, self.before, (observation,))
        churn = policy.kl(before, policy(observation)).mean()
        # both means began at 0 at the same step, so their ratio needs no correction for it
        self.loss_mean = self.decay * self.loss_mean + (1 - self.decay) * loss.detach().abs()
        self.churn_mean = self.decay * self.churn_mean + (1 - self.decay) * churn.detach()
        # a step that changed nothing leaves nothing to weigh
        return self.scale * self.loss_mean / self.churn_mean.clamp_min(1e-12) * churn

    def step(self) -> None:
        """The policy has changed: what `penalty` last saw is the one before."""
        if self._now:
            self.before, self._now = self._now, {}

    def report(self) -> dict[str, float]:
        """Running mean of the KL divergence per gradient step, in nats."""
        return {"churn": float(self.churn_mean)}

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to continue exactly."""
        return {"before": dict(self.before), "loss_mean": self.loss_mean, "churn_mean": self.churn_mean}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict()`."""
        self.before = dict(state["before"])
        self.loss_mean, self.churn_mean = state["loss_mean"], state["churn_mean"]
