import math

import pytest
import torch
from torch.distributions import Categorical, Independent, Normal, kl_divergence

from continual_agents import plasticity


def test_gaussian_entropy_by_hand_and_against_torch():
    assert plasticity.gaussian_entropy(torch.zeros(1)).item() == pytest.approx(1.4189385)  # log(2 pi e) / 2
    log_std = torch.tensor([[0.3, -1.0, 0.0], [2.0, 0.1, -0.2]])
    expected = Independent(Normal(torch.zeros(2, 3), log_std.exp()), 1).entropy()
    torch.testing.assert_close(plasticity.gaussian_entropy(log_std), expected)


def test_categorical_entropy_by_hand_and_against_torch():
    assert plasticity.categorical_entropy(torch.zeros(4)).item() == pytest.approx(math.log(4))
    assert plasticity.categorical_entropy(torch.tensor([0.0, -math.inf])).item() == 0
    logits = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(plasticity.categorical_entropy(logits), Categorical(logits=logits).entropy())


def test_approximate_kl_by_hand():
    # ratios 2 and 1/2: (2 - 1 - log 2 + 1/2 - 1 + log 2) / 2 = .25
    old = torch.log(torch.tensor([0.25, 0.5]))
    new = torch.log(torch.tensor([0.5, 0.25]))
    assert plasticity.approximate_kl(old, new).item() == pytest.approx(0.25)
    assert plasticity.approximate_kl(old, old).item() == 0


def test_approximate_kl_converges_to_the_kl():
    old, new = Normal(0.0, 1.0), Normal(0.2, 1.1)
    actions = torch.randn(200_000, generator=torch.Generator().manual_seed(0))
    estimate = plasticity.approximate_kl(old.log_prob(actions), new.log_prob(actions))
    assert estimate.item() == pytest.approx(kl_divergence(old, new).item(), rel=0.03)
