"""A stack gives what ordinary modules, torch's optimizers and the surgery companions give, to float rounding."""

import dataclasses

import pytest
import torch
from torch.nn import functional

from continual_agents.networks import ACTIVATIONS
from continual_agents.surgery import UTILITIES, Birth
from supervised.draws import Draw, torch_draws
from supervised.networks import Mlp
from tests.helpers import descend
from tests.supervised.helpers import CBP, examples, learner, method

LOSSES = {"cross_entropy": functional.cross_entropy, "squared_error": functional.mse_loss}


class Births:
    """The stack's draws of newborn weights, for a companion on one run's module."""

    def __init__(self, network: Mlp, seed: int):
        self.network, self.seed = network, seed
        self.born = [0] * len(network.hidden)

    def __call__(self, birth: Birth) -> torch.Tensor:
        layer = next(
            k for k, (inputs, outputs) in enumerate(self.network.shapes) if birth.weight.shape == (outputs, inputs)
        )
        generator = torch_draws(self.seed, Draw.NEWBORN, layer, self.born[layer])
        self.born[layer] += birth.shape[0]
        bound = self.network.bounds[layer]
        return torch.empty(birth.shape, dtype=birth.weight.dtype).uniform_(-bound, bound, generator=generator)


def ordinary(network: Mlp, one, seed: int, x, y, loss: str):
    """Train the module of one run the usual way; measures and final weights."""
    module = network.module(seed).double()
    operations = {name: dict(settings) for name, settings in one.operations.items()}
    for name in {"continual_backprop", "redo", "regrama"} & set(operations):
        operations[name]["birth"] = Births(network, seed)
    one = dataclasses.replace(one, operations=operations)
    optimizer = one.make_optimizer(module.parameters())
    for group in optimizer.param_groups:
        if "fused" in group:
            group["fused"] = (
                False  # the fused kernel adds eps to reborn entries in another place; compare the exact path
            )
    after = one.make_operations(module, optimizer, torch.Generator().manual_seed(0))
    measures, replaced = [], 0
    for inputs, targets in zip(x, y, strict=True):
        output = module(inputs)
        value = LOSSES[loss](output, targets)
        descend(value, optimizer)
        for operation in after:
            done = operation.step()
            replaced += sum(len(index) for index in done.values()) if isinstance(done, dict) else 0
        exact = (output.argmax(-1) == targets).double().mean() if loss == "cross_entropy" else value.detach()
        measures.append(exact)
    return (
        torch.stack(measures),
        [module.state_dict()[k] for k in module.state_dict() if k.endswith("weight")],
        replaced,
    )


CASES = {
    "sgd": {},
    "momentum, l2": {"step_size": 5e-3, "momentum": 0.9, "weight_decay": 1e-2},
    "adam": {"kind": "adam", "step_size": 1e-2, "betas": (0.9, 0.99)},
    "adam, l2": {"kind": "adam", "step_size": 1e-2, "weight_decay": 1e-2},
    "redo": {"operations": {"redo": {"threshold": 0.85, "period": 15}}},
    "redo, adam": {"kind": "adam", "step_size": 1e-2, "operations": {"redo": {"threshold": 0.85, "period": 15}}},
    "regrama": {"operations": {"regrama": {"threshold": 0.7, "period": 15}}},
    "projection": {"operations": {"projection": {}}},
    "parseval": {"operations": {"parseval": {"strength": 1e-3}}},
    "spectral": {"operations": {"spectral": {"strength": 1e-3}}},
    "weight clipping": {"operations": {"weight_clipping": {"bound": 0.5, "period": 7}}},
    "hare and tortoise": {"momentum": 0.9, "step_size": 5e-3, "operations": {"hare_and_tortoise": {"period": 9}}},
    "l2 init": {"operations": {"l2_init": {"strength": 0.01}}},
    **{
        f"continual backprop, {utility}": {"operations": {"continual_backprop": {**CBP, "utility": utility}}}
        for utility in UTILITIES
        if utility != "random"
    },
    "continual backprop, adam": {
        "kind": "adam", "step_size": 1e-2, "betas": (0.9, 0.99), "operations": {"continual_backprop": CBP},
    },
    "continual backprop, momentum": {"step_size": 5e-3, "momentum": 0.9, "operations": {"continual_backprop": CBP}},
    "continual backprop, quirks": {
        "operations": {"continual_backprop": {**CBP, "transfer": False, "count_all": True}}
    },
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    ("network", "loss", "batch"),
    [
        (Mlp(inputs=21, outputs=1, hidden=(5,)), "squared_error", 1),
        (Mlp(inputs=20, outputs=4, hidden=(16, 11)), "cross_entropy", 1),
        (Mlp(inputs=20, outputs=4, hidden=(16, 11), activation="tanh"), "cross_entropy", 6),
    ],
)
def test_every_run_is_what_modules_and_companions_give(network: Mlp, loss: str, batch: int, case: str) -> None:
    seeds = [1, 5]
    methods = [method(**CASES[case])] * 2
    x, y = examples(300, 2, batch, network, loss=loss)
    x, y = x.double(), y.double() if loss == "squared_error" else y
    stack = learner(network, methods, seeds, loss=loss, batch=batch, dtype=torch.float64)
    measures = stack.learn(x, y)
    for run, seed in enumerate(seeds):
        expected, weights, replaced = ordinary(network, methods[run], seed, x[:, run], y[:, run], loss)
        # the module has a Parameter of its own per tensor, so sums are taken in another order; surgery makes no jumps
        torch.testing.assert_close(measures[:, run].double(), expected, rtol=1e-7, atol=1e-7)
        for layer, weight in zip(stack.stack.layers, weights, strict=True):
            torch.testing.assert_close(layer.weight[run].T, weight, rtol=1e-7, atol=1e-9)
        if {"continual_backprop", "redo", "regrama"} & set(methods[run].operations):
            assert replaced == stack.report()["replaced"][run]
            assert replaced > (15 if "continual_backprop" in methods[run].operations else 0)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("norm", [None, "layer_norm", "online_norm"])
def test_every_activation_and_norm_has_the_right_derivative(activation: str, norm: str | None) -> None:
    network = Mlp(inputs=9, outputs=3, hidden=(8, 6), activation=activation, norm=norm)
    x, y = examples(60, 1, 4, network, loss="cross_entropy")
    stack = learner(network, [method()], [2], loss="cross_entropy", batch=4, dtype=torch.float64)
    measures = stack.learn(x.double(), y)
    expected, weights, _ = ordinary(network, method(), 2, x[:, 0].double(), y[:, 0], "cross_entropy")
    torch.testing.assert_close(measures[:, 0].double(), expected)
    linear = [weight for weight in weights if weight.dim() == 2]
    for layer, weight in zip(stack.stack.layers, linear, strict=True):
        torch.testing.assert_close(layer.weight[0].T, weight, rtol=1e-7, atol=1e-9)


def test_float32_agrees_with_modules_as_far_as_float32_goes() -> None:
    network = Mlp(inputs=64, outputs=10, hidden=(32, 32))
    x, y = examples(200, 1, 1, network, loss="cross_entropy")
    stack = learner(network, [method()], [2], loss="cross_entropy")
    stack.learn(x, y)
    module = network.module(2)
    optimizer = torch.optim.SGD(module.parameters(), 0.02)
    for inputs, targets in zip(x[:, 0], y[:, 0], strict=True):
        descend(functional.cross_entropy(module(inputs), targets), optimizer)
    for layer, linear in zip(stack.stack.layers, [module[0], module[2], module[4]], strict=True):
        torch.testing.assert_close(layer.weight[0].T, linear.weight.detach(), rtol=1e-4, atol=1e-5)


def test_broken_correction_would_be_seen() -> None:
    """The comparison fails when a newborn's Adam correction is not restarted."""
    network = Mlp(inputs=20, outputs=4, hidden=(16, 11))
    one = method(**CASES["continual backprop, adam"])
    x, y = examples(400, 1, 1, network, loss="cross_entropy")
    stack = learner(network, [one], [1], loss="cross_entropy", dtype=torch.float64)
    stack.optimizer.per_unit = False
    stack.learn(x.double(), y)
    _, weights, _ = ordinary(network, one, 1, x[:, 0].double(), y[:, 0], "cross_entropy")
    assert not torch.allclose(stack.stack.layers[0].weight[0].T, weights[0], rtol=1e-5)
