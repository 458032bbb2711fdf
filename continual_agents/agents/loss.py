"""The clipped surrogate, straight from the tensors."""

import torch
from tensordict import TensorDict
from torch import Tensor
from torchrl.objectives import ClipPPOLoss

from .networks import ActorCritic


def clipped_surrogate(ratio: Tensor, advantage: Tensor, clip: float) -> Tensor:
    """`-mean(min(r A, clip(r, 1 - epsilon, 1 + epsilon) A))` (Schulman et al. 2017, equation 7).

    Args:
        ratio: r, probability of each action over what it was when acting, `[batch]`.
        advantage: A, `[batch]`.
        clip: epsilon, half width of the trust region, in (0, 1).
    """
    return -torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage).mean()


class ClippedLoss(ClipPPOLoss):
    """TorchRL's `ClipPPOLoss` with the same inputs and numbers, computed without distribution objects.

    With the probability ratio `r = pi(a|s) / pi_old(a|s)`, advantages `A` and value targets `R` (Schulman et al. 2017,
    equations 7 and 9; published: `c_1 = 1`, `c_2 = 0`):

        loss_objective = -mean(min(r A, clip(r, 1 - epsilon, 1 + epsilon) A))
        loss_critic    = c_1 mean((V(s) - R)^2)
        loss_entropy   = -c_2 mean(H(pi(.|s)))

    The parent spends as much time on bookkeeping, distribution objects and statistics nobody logs as on its two
    networks. Here go the three losses and, detached, `entropy`, `clip_fraction`, `kl_approx` (mean log-ratio, as the
    parent's) and `kl` (`mean(r - 1 - log r)`: never negative, much less noisy).

    Args:
        networks: actor and critic; their own modules are trained, no functional copies.
        clip: epsilon.
        value_coefficient: c_1.
        entropy_coefficient: c_2.
    """

    def __init__(
        self, networks: ActorCritic, *, clip: float, value_coefficient: float, entropy_coefficient: float
    ) -> None:
        super().__init__(
            networks.actor,
            networks.critic,
            clip_epsilon=clip,
            entropy_bonus=entropy_coefficient > 0,
            entropy_coeff=entropy_coefficient,
            critic_coeff=value_coefficient,
            loss_critic_type="l2",
            functional=False,
        )
        # plain numbers and functions: module attributes and buffers cost a lookup and a kernel each
        self._constants = (clip, value_coefficient, entropy_coefficient)
        self._log_prob_and_entropy = networks.policy.log_prob_and_entropy

    def forward(self, tensordict: TensorDict) -> TensorDict:
        """Losses of a flat minibatch with `observation`, `action`, `action_log_prob`, `advantage`, `value_target`."""
        clip, value_coefficient, entropy_coefficient = self._constants
        observation, advantage = tensordict.get("observation"), tensordict.get("advantage").squeeze(-1)
        log_prob, entropy = self._log_prob_and_entropy(observation, tensordict.get("action"))
        log_ratio = log_prob - tensordict.get("action_log_prob")
        ratio = log_ratio.exp()
        objective = clipped_surrogate(ratio, advantage, clip)
        error = torch.nn.functional.mse_loss(self.critic_network.module(observation), tensordict.get("value_target"))
        entropy = entropy.mean()
        with torch.no_grad():
            mean_log_ratio = log_ratio.mean()
            terms = {
                "entropy": entropy.detach(),
                "kl_approx": -mean_log_ratio,
                "kl": ratio.mean() - 1 - mean_log_ratio,
                "clip_fraction": ((ratio - 1).abs() > clip).float().mean(),
            }
        terms |= {"loss_objective": objective, "loss_critic": value_coefficient * error}
        if entropy_coefficient > 0:
            terms["loss_entropy"] = -entropy_coefficient * entropy
        return TensorDict(terms)
