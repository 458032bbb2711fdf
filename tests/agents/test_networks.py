import math

import pytest
import torch
from torch import nn

from continual_agents import surgery
from continual_agents.agents import mlp
from continual_agents.networks import CReLU, Dropout


@pytest.mark.parametrize(("settings", "square"), [({}, 3), ({"init": "lecun_uniform"}, 3), ({"init": "default"}, 1)])
def test_initialisation_is_uniform_and_from_the_generator_alone(settings: dict, square: int) -> None:
    net = mlp(27, 8, generator=torch.Generator().manual_seed(3), **settings)
    again = mlp(27, 8, generator=torch.Generator().manual_seed(3), **settings)
    for layer, twin in zip(net, again, strict=True):
        if isinstance(layer, nn.Linear):
            bound = math.sqrt(square / layer.in_features)
            assert layer.weight.abs().max() <= bound
            # variance of a uniform distribution: bound^2 / 3, for LeCun's 1 / fan_in
            assert layer.weight.var().item() == pytest.approx(square / 3 / layer.in_features, rel=0.1)
            assert bool(layer.bias.any()) == (square == 1), "PyTorch's own has biases, on the same interval"
            assert layer.bias.abs().max() <= bound
            assert torch.equal(layer.weight, twin.weight)
            assert torch.equal(layer.bias, twin.bias)


def test_layers_stand_in_the_stated_order() -> None:
    net = mlp(3, 2, hidden=[4], activation="tanh", norm="layer_norm", dropout=0.1, generator=torch.Generator())
    assert [type(layer).__name__ for layer in net] == ["Linear", "LayerNorm", "Tanh", "Dropout", "Linear"]


def test_wrong_settings_are_named() -> None:
    with pytest.raises(ValueError, match="network.init='kaiming': lecun_uniform or default"):
        mlp(3, 2, generator=torch.Generator(), init="kaiming")


def test_making_a_network_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    mlp(3, 2, dropout=0.5, generator=torch.Generator())
    assert torch.equal(torch.get_rng_state(), before)


def test_concatenated_relu_doubles_what_the_next_layer_reads() -> None:
    net = mlp(3, 2, hidden=[4, 5], activation="crelu", generator=torch.Generator())
    assert [(layer.in_features, layer.out_features) for layer in net[::2]] == [(3, 4), (8, 5), (10, 2)]
    assert CReLU()(torch.tensor([1.0, -2.0])).tolist() == [1, 0, 0, 2]


def test_dropout_acts_in_gradient_passes_and_continues_from_its_state() -> None:
    layer = Dropout(0.25, torch.Generator().manual_seed(0))
    ones = torch.ones(40_000)
    dropped = layer(ones)
    assert sorted(dropped.unique().tolist()) == pytest.approx([0, 4 / 3])
    assert dropped.mean().item() == pytest.approx(1, abs=0.01)
    state = layer.state_dict()
    following = layer(ones)
    other = Dropout(0.25, torch.Generator())
    other.load_state_dict(state)
    assert torch.equal(other(ones), following)
    with torch.no_grad():
        assert layer(ones) is ones
    assert layer.eval()(ones) is ones


@pytest.mark.parametrize("activation", ["tanh", "leaky_relu"])
@pytest.mark.parametrize("settings", [{}, {"norm": "layer_norm"}, {"norm": "online_norm"}, {"dropout": 0.1}])
def test_surgery_finds_the_hidden_units_of_every_kind_of_body(activation: str, settings: dict) -> None:
    net = mlp(3, 2, hidden=[4, 5], activation=activation, generator=torch.Generator(), **settings)
    assert [units.width for units in surgery.find(net, torch.zeros(1, 3))] == [4, 5]


@pytest.mark.parametrize("init", ["lecun_uniform", "default"])
def test_a_unit_born_as_the_network_was_has_its_distribution(init: str) -> None:
    net = mlp(50, 400, hidden=[400], init=init, generator=torch.Generator().manual_seed(0))
    first = net[0].weight.detach().clone()
    surgery.replace_(surgery.find(net)[0], torch.arange(400), birth=init)
    assert not torch.equal(net[0].weight, first)
    assert net[0].weight.abs().max().item() == pytest.approx(first.abs().max().item(), rel=1e-3)
