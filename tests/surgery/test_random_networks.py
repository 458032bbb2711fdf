"""Networks put together at random: leak, mean, identity, optimizer state, state round trip."""

import copy
import random

import pytest
import torch
from torch import nn

from continual_agents import surgery
from continual_agents.surgery import kernels
from continual_agents.surgery.finding import axes_of
from tests.surgery.checks import check
from tests.surgery.random_networks import RandomNetwork
from tests.surgery.test_replace import OPTIMIZERS, START

SEEDS = [*range(20), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(20, 600))]

AMPLIFYING = ("rprop", "adagrad", "adadelta", "adamax", "nadam", "radam", "adafactor", "adam", "adamw", "rmsprop")
"""Divide by the size of the gradients, and so make of rounding's differences what they like."""


def make(seed: int):
    torch.manual_seed(seed)
    net = RandomNetwork(seed).double()
    name = random.Random(seed + 1000).choice(list(OPTIMIZERS))
    return net, name, OPTIMIZERS[name](net.parameters())


def train(
    net: RandomNetwork, optimizer: torch.optim.Optimizer, generator: torch.Generator, steps: int, cbp=None
) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        sum(output.square().mean() for output in net(net.inputs(generator))).backward()
        optimizer.step()
        if cbp is not None:
            cbp.step()


@pytest.mark.parametrize("seed", SEEDS)
def test_a_random_network(seed: int) -> None:
    net, name, optimizer = make(seed)
    generator = torch.Generator().manual_seed(seed)
    train(net, optimizer, generator, 3)
    x = net.inputs(generator)
    found = surgery.find(net, x)
    accounted = {id(m) for units in found for m in units.incoming}
    for layer, module in net.named_modules():
        assert axes_of(module) is None or id(module) in accounted or layer in found.left_out, layer
    assert len(found) or len(net.steps) == 1, found
    net.eval()
    for units in found:
        gone = random.Random(seed).sample(range(units.width), k=2)
        weights = {n: p.detach().clone() for n, p in net.named_parameters()}
        state = copy.deepcopy({n: optimizer.state[p] for n, p in net.named_parameters()})
        check(net, units, gone, lambda: net(x), optimizer)
        for n, p in net.named_parameters():
            changed = p.detach() != weights[n]
            if p.ndim < 2 or n.endswith(("gain", "offset")):  # biases take a mean over and forget nothing
                continue
            for key, value in optimizer.state[p].items():
                if torch.is_tensor(value) and value.shape == p.shape and not key.startswith(surgery.Adam.AGE):
                    assert (value[changed] == START.get((name, key), 0.0)).all(), (n, key)
                    kept = ~changed & (weights[n] != 0)
                    assert torch.equal(value[kept], state[n][key][kept]), (n, key)


@pytest.mark.parametrize("seed", SEEDS[::4])
def test_a_random_network_continues_from_its_state(seed: int) -> None:
    def begin():
        net, name, optimizer = make(seed)
        generator = torch.Generator().manual_seed(seed)
        units = surgery.find(net, net.inputs(generator))
        if not len(units):
            pytest.skip("nothing to replace")
        return net, name, optimizer, surgery.ContinualBackprop(units, optimizer, rate=0.2, maturity=2), generator

    net, kind, optimizer, cbp, generator = begin()
    for module in net.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    train(net, optimizer, generator, 6, cbp)
    assert sum(layer.replaced for layer in cbp.layers) > 0
    again, _, optimizer2, cbp2, generator2 = begin()
    again.load_state_dict(net.state_dict())
    optimizer2.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    cbp2.load_state_dict(cbp.state_dict())
    generator2.set_state(generator.get_state())
    for module in again.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    train(net, optimizer, generator, 4, cbp)
    train(again, optimizer2, generator2, 4, cbp2)
    for name, value in net.state_dict().items():
        # torch's NAdam keeps a product in float32 that loading makes float64
        tolerance = 1e-5 if kind == "nadam" else 0.0
        torch.testing.assert_close(value, again.state_dict()[name], rtol=tolerance, atol=tolerance, msg=name)


@pytest.mark.parametrize("seed", SEEDS)
def test_c_and_torch_renew_a_random_network_alike(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def run() -> tuple[list, dict[str, torch.Tensor]]:
        net, name, optimizer = make(seed)
        if name in AMPLIFYING:
            optimizer = surgery.Adam(net.parameters(), lr=1e-3, eps=1e-3)  # torch's fused kernel has eps elsewhere
        draw, generator = random.Random(seed), torch.Generator().manual_seed(seed)
        units = surgery.find(net, net.inputs(generator))
        if not len(units):
            pytest.skip("nothing to replace")
        utility = draw.choice([name for name in surgery.UTILITIES if name != "gradient"])
        every, rate = draw.choice([1, 1, 3]), draw.choice([0.05, 0.3])
        cbp = surgery.ContinualBackprop(units, optimizer, rate=rate, maturity=3, utility=utility, every=every)
        gone = []
        for _ in range(15):
            train(net, optimizer, generator, 1)
            gone.append({layer: index.tolist() for layer, index in cbp.step().items()})
        return gone, net.state_dict()

    gone, weights = run()
    monkeypatch.setattr(kernels, "library", lambda dtype: None)
    gone_in_torch, weights_in_torch = run()
    assert gone == gone_in_torch
    torch.testing.assert_close(weights, weights_in_torch, rtol=1e-6, atol=1e-8)
