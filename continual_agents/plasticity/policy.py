"""How random a policy still is, and how far an update moved it."""

import math

import torch
from torch import Tensor


def gaussian_entropy(log_std: Tensor) -> Tensor:
    """Differential entropy of a diagonal Gaussian in nats, `sum_i (1/2 + log(2 pi)/2 + log std_i)`.

    Args:
        log_std: `[..., actions]`, natural logarithm of the standard deviations.

    Returns:
        `[...]`; negative for narrow policies.
    """
    return (log_std + 0.5 * math.log(2 * math.pi * math.e)).sum(-1)


def categorical_entropy(logits: Tensor) -> Tensor:
    """Entropy of a categorical policy in nats, `-sum_a p_a log p_a`; at most the logarithm of the number of actions.

    Args:
        logits: `[..., actions]`, unnormalised; `-inf` masks an action.

    Returns:
        `[...]`.
    """
    return torch.special.entr(logits.softmax(-1)).sum(-1)


def approximate_kl(old_log_prob: Tensor, new_log_prob: Tensor) -> Tensor:
    """KL(old || new) estimated from actions drawn from the old policy: `mean(r - 1 - log r)`, `r = p_new / p_old`.

    Unbiased and never negative ("k3" in Schulman, Approximating KL divergence, 2020).

    Args:
        old_log_prob: log-probabilities of the actions under the policy that drew them, `[..., batch]`.
        new_log_prob: the same actions under the policy now.

    Returns:
        `[...]`, in nats.
    """
    log_ratio = new_log_prob - old_log_prob
    return (torch.expm1(log_ratio) - log_ratio).mean(-1)
