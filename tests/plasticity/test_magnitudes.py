import math

import pytest
import torch
from torch import nn

from continual_agents import plasticity


def test_weight_magnitude_counts_every_entry_the_same():
    small, large = torch.tensor([[1.0, -3.0]]), torch.tensor([[2.0, 2.0], [-2.0, 0.0]])
    assert plasticity.weight_magnitude(small).item() == 2.0
    assert plasticity.weight_magnitude([small, large]).item() == pytest.approx(10 / 6)


def test_gradient_norm_by_hand():
    net = nn.Linear(2, 1)
    net(torch.tensor([[3.0, 4.0]])).sum().backward()  # gradient of the weight (3, 4), of the bias 1
    assert plasticity.gradient_norm(net.parameters()).item() == pytest.approx(math.sqrt(26))
    net.bias.grad = None
    assert plasticity.gradient_norm(net.parameters()).item() == pytest.approx(5.0)


def test_update_norm_by_hand():
    before = [torch.zeros(2), torch.ones(1, 1)]
    after = [torch.tensor([3.0, 0.0]), torch.tensor([[5.0]])]
    assert plasticity.update_norm(before, after).item() == pytest.approx(5.0)


def test_feature_norm_by_hand():
    assert plasticity.feature_norm(torch.tensor([[3.0, 4.0], [0.0, 0.0]])).item() == pytest.approx(2.5)


def test_runs_dims():
    stack = [torch.stack([torch.ones(2, 3), 3 * torch.ones(2, 3)]), torch.tensor([0.0, 7.0])]  # [2, ...] and [2]
    torch.testing.assert_close(plasticity.weight_magnitude(stack, runs_dims=1), torch.tensor([6 / 7, 25 / 7]))
    torch.testing.assert_close(
        plasticity.update_norm([torch.zeros(2, 4)], [torch.tensor([[1.0] * 4, [2.0] * 4])], runs_dims=1),
        torch.tensor([2.0, 4.0]),
    )
    parameter = nn.Parameter(torch.zeros(2, 2))
    parameter.grad = torch.tensor([[3.0, 4.0], [0.0, 1.0]])
    torch.testing.assert_close(plasticity.gradient_norm([parameter], runs_dims=1), torch.tensor([5.0, 1.0]))
    features = torch.stack([torch.ones(5, 4), torch.zeros(5, 4)])
    torch.testing.assert_close(plasticity.feature_norm(features), torch.tensor([2.0, 0.0]))


def test_refusals():
    with pytest.raises(ValueError, match="between backward"):
        plasticity.gradient_norm(nn.Linear(2, 2).parameters())
    with pytest.raises(ValueError, match="number or shape"):
        plasticity.update_norm([torch.zeros(2)], [torch.zeros(3)])
    with pytest.raises(ValueError, match="no tensors"):
        plasticity.weight_magnitude([])
