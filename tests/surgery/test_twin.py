"""Continual backpropagation against its slow twin: the same units replaced, the same weights, step by step."""

import pytest
import torch
from torch import nn

from continual_agents import surgery
from tests.reference import Twin

pytestmark = pytest.mark.usefixtures("ways")

SGD = {"kind": "sgd", "lr": 0.01, "momentum": 0.9}
ADAM = {"kind": "adam", "lr": 1e-3, "betas": (0.9, 0.99)}
ADAM_L2 = {"kind": "adam", "lr": 1e-3, "betas": (0.99, 0.99), "weight_decay": 1e-3}


def make_optimizer(net: nn.Module, settings: dict) -> torch.optim.Optimizer:
    settings = dict(settings)
    kind = {"sgd": torch.optim.SGD, "adam": surgery.Adam}[settings.pop("kind")]
    return kind(net.parameters(), **settings)


@pytest.mark.parametrize(
    ("utility", "settings", "activation", "steps"),
    [
        ("contribution", SGD, nn.ReLU, 5000),
        ("adaptable_contribution", ADAM, nn.Tanh, 5000),
        ("mean_corrected_contribution", ADAM_L2, nn.ReLU, 1000),
        ("contribution", ADAM_L2, nn.ReLU, 1000),
        ("weight", SGD, nn.Sigmoid, 600),
        ("adaptation", ADAM, nn.ReLU, 600),
        ("random", SGD, nn.ReLU, 600),
        ("gradient", ADAM, nn.Tanh, 600),
    ],
)
def test_same_units_and_same_weights_as_the_twin(utility: str, settings: dict, activation, steps: int) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 7), activation(), nn.Linear(7, 6), activation(), nn.Linear(6, 2)).double()
    linears = [net[0], net[2], net[4]]
    twin = Twin(
        [m.weight for m in linears],
        [m.bias for m in linears],
        activation(),
        settings,
        utility,
        rate=0.004,
        maturity=25,
        decay=0.95,
        generator=torch.Generator().manual_seed(3),
    )
    optimizer = make_optimizer(net, settings)
    cbp = surgery.ContinualBackprop(
        surgery.find(net),
        optimizer,
        rate=0.004,
        maturity=25,
        decay=0.95,
        utility=utility,
        generator=torch.Generator().manual_seed(3),
    )
    data = torch.Generator().manual_seed(1)
    replaced = 0
    for step in range(steps):
        if step % 500 == 0:
            hidden = torch.randn(2, 4, generator=data, dtype=torch.float64)
        x = torch.randn(5, 4, generator=data, dtype=torch.float64)
        target = torch.sin(2 * x @ hidden.T)
        optimizer.zero_grad()
        (net(x) - target).square().mean().backward()
        optimizer.step()
        ours = {["0", "2"].index(name): index.tolist() for name, index in cbp.step().items()}
        assert ours == twin.step(x, target), step
        replaced += sum(map(len, ours.values()))
        if step % 50 == 49 or ours:
            for module, w, b in zip(linears, twin.weights, twin.biases, strict=True):
                torch.testing.assert_close(module.weight, w, rtol=1e-9, atol=1e-11)
                torch.testing.assert_close(module.bias, b, rtol=1e-9, atol=1e-11)
            for layer, worth, ages in zip(cbp.layers, twin.worth, twin.age, strict=True):
                read = [w / (1 - 0.95**age) if age else 0.0 for w, age in zip(worth, ages, strict=True)]
                torch.testing.assert_close(layer.corrected()[0].tolist(), read, rtol=1e-9, atol=1e-11)
    assert replaced > steps / 40
