"""Resets of modules at a change of the task."""

import copy
import math

import pytest
import torch
from torch import nn

from continual_agents import surgery
from continual_agents.methods import Method
from tests.helpers import descend


def trained(layers: str, **settings: object) -> tuple[nn.Sequential, nn.Parameter, torch.optim.Optimizer, object, list]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 50), nn.LayerNorm(50), nn.ReLU(), nn.Linear(50, 40), nn.ReLU(), nn.Linear(40, 3))
    log_std = nn.Parameter(torch.zeros(3))
    method = Method(name="x", operations={"reset": {"layers": layers, **settings}})
    optimizer = method.make_optimizer([*net.parameters(), log_std])
    (reset,) = method.make_operations(net, optimizer, torch.Generator().manual_seed(1))
    for _ in range(3):
        descend((net(torch.randn(16, 6)) * log_std.exp()).square().sum(), optimizer, reset)
    return net, log_std, optimizer, reset, [p.detach().clone() for p in net.parameters()]


def test_head_becomes_zero_and_nothing_else_changes() -> None:
    net, log_std, optimizer, reset, before = trained("head")
    reset.start_task()
    assert not net[5].weight.any()
    assert not net[5].bias.any()
    for now, then in zip(list(net.parameters())[:-2], before[:-2], strict=True):
        assert torch.equal(now, then)
    assert log_std.any()
    assert net[5].weight not in optimizer.state
    assert net[3].weight in optimizer.state


def test_pytorchs_own_birth_draws_biases_too() -> None:
    net, _, _, reset, _ = trained("all", birth="default")
    reset.start_task()
    for layer in (net[0], net[3], net[5]):
        bound = layer.in_features**-0.5
        assert 0 < layer.bias.abs().max() <= bound
        assert 0.8 * bound < layer.weight.abs().max() <= bound


def test_a_fresh_network_is_drawn_from_the_named_distribution_and_optimizer_and_other_parameters_begin_again() -> None:
    net, log_std, optimizer, reset, _ = trained("all", birth="lecun_uniform")
    kept = [id(p) for p in net.parameters()]
    reset.start_task()
    assert [id(p) for p in net.parameters()] == kept
    for layer in (net[0], net[3], net[5]):
        bound = math.sqrt(3 / layer.in_features)
        assert 0.8 * bound < layer.weight.abs().max() <= bound
        # variance of the uniform distribution: bound^2 / 3 = 1 / fan_in
        assert layer.weight.detach().var().item() == pytest.approx(1 / layer.in_features, rel=0.3)
        assert not layer.bias.any()
    assert torch.equal(net[1].weight, torch.ones(50))
    assert not log_std.any()
    assert not optimizer.state
    assert reset.report() == {"resets": 1.0}


def test_a_fresh_network_takes_the_steps_of_a_new_one() -> None:
    """A new optimizer over a copy of the redrawn weights goes the same way."""
    net, log_std, optimizer, reset, _ = trained("all")
    reset.start_task()
    twin, twin_std = copy.deepcopy(net), nn.Parameter(log_std.detach().clone())
    new = surgery.Adam([*twin.parameters(), twin_std], lr=1e-3, fused=True)
    x = torch.randn(16, 6)
    for network, std, optim in ((net, log_std, optimizer), (twin, twin_std, new)):
        for _ in range(5):
            descend((network(x) * std.exp()).square().sum(), optim)
    for one, other in zip([*net.parameters(), log_std], [*twin.parameters(), twin_std], strict=True):
        assert torch.equal(one, other)


def test_last_draws_two_layers_and_the_state_round_trips() -> None:
    net, _, _, reset, before = trained("last", keep_momentum=True)
    state = reset.state_dict()
    reset.start_task()
    first = net[5].weight.detach().clone()
    reset.load_state_dict(state)
    reset.start_task()
    assert torch.equal(net[5].weight, first)
    assert torch.equal(net[0].weight, before[0])
    assert not torch.equal(net[3].weight, before[4])


def test_unknown_layers_are_named() -> None:
    net = nn.Linear(2, 2)
    method = Method(name="x", operations={"reset": {"layers": "body"}})
    with pytest.raises(ValueError, match=r"reset\.layers='body': head, last or all"):
        method.make_operations(net, method.make_optimizer(net.parameters()), torch.Generator())
