import math

import pytest
import torch
from torch import nn

from continual_agents.agents import mlp


def test_initialisation_is_lecun_uniform_with_zero_biases_from_the_generator_alone() -> None:
    net = mlp(27, 8, generator=torch.Generator().manual_seed(3))
    again = mlp(27, 8, generator=torch.Generator().manual_seed(3))
    for layer, twin in zip(net, again, strict=True):
        if isinstance(layer, nn.Linear):
            bound = math.sqrt(3 / layer.in_features)
            assert layer.weight.abs().max() <= bound
            # variance of a uniform distribution: bound^2 / 3 = 1 / fan_in
            assert layer.weight.var().item() == pytest.approx(1 / layer.in_features, rel=0.1)
            assert not layer.bias.any()
            assert torch.equal(layer.weight, twin.weight)


def test_layers_stand_in_the_stated_order() -> None:
    net = mlp(3, 2, hidden=[4], activation="tanh", norm="layer_norm", dropout=0.1, generator=torch.Generator())
    assert [type(layer).__name__ for layer in net] == ["Linear", "LayerNorm", "Tanh", "Dropout", "Linear"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"activation": "rellu"}, "network.activation='rellu' is unknown"),
        ({"norm": "batch"}, "network.norm='batch' is unknown"),
        ({"dropout": 1.0}, r"network.dropout=1.0: a probability in \[0, 1\)"),
        ({"hidden": [0]}, r"network.hidden=\[0\]: every layer needs"),
    ],
)
def test_wrong_settings_are_named(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mlp(3, 2, generator=torch.Generator(), **settings)
