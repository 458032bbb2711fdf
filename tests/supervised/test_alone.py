"""Each run of a stack is bit for bit the run alone (eager, CPU, float32)."""

import pytest
import torch

from continual_agents.networks import ACTIVATIONS
from supervised.networks import Mlp
from tests.supervised.helpers import CBP, examples, learner, method, tensors_of

NETWORKS = {
    "regression": (Mlp(inputs=21, outputs=1, hidden=(5,)), "squared_error", 1),
    "digits": (Mlp(inputs=64, outputs=10, hidden=(32, 32)), "cross_entropy", 1),
    "odd": (Mlp(inputs=37, outputs=7, hidden=(53, 19, 11)), "cross_entropy", 1),
    "mnist": (Mlp(inputs=784, outputs=10, hidden=(100, 77)), "cross_entropy", 1),
    "batch": (Mlp(inputs=13, outputs=3, hidden=(31, 9)), "cross_entropy", 7),
    "linear": (Mlp(inputs=300, outputs=9), "cross_entropy", 1),
}
METHODS = {
    "backprop": {},
    "l2 momentum": {"step_size": 2e-3, "weight_decay": [1e-3, 1e-2], "momentum": [0.9, 0.5]},
    "adam": {"kind": "adam", "step_size": [1e-3, 1e-2], "weight_decay": [0.0, 1e-3]},
    "continual backprop": {"operations": {"continual_backprop": CBP}},
    "adam, continual backprop": {"kind": "adam", "step_size": 1e-2, "operations": {"continual_backprop": CBP}},
    "random units": {"operations": {"continual_backprop": {**CBP, "utility": "random"}}},
    "gradient utility": {"operations": {"continual_backprop": {**CBP, "utility": "gradient"}}},
    "births": {
        "operations": [
            {"continual_backprop": {**CBP, "birth": birth}}
            for birth in ("orthogonal_direction", "moment_matched", "data_scaled", None, "default", "kaiming_normal")
        ]
    },
    "redo": {"operations": {"redo": {"threshold": 0.2, "period": 10}}},
    "perturb": {"operations": {"perturb": {"noise": 1e-3}}},
    "upgd": {"kind": "upgd", "step_size": 1e-2, "weight_decay": [0.0, 1e-3]},
    "projection and clipping": {"operations": {"projection": {}, "weight_clipping": {"bound": 0.9}}},
    "spectral": {"operations": {"spectral": {"strength": 1e-3}}},
    "hare and tortoise": {"momentum": 0.5, "step_size": 2e-3, "operations": {"hare_and_tortoise": {"period": 20}}},
    "soft reset": {"operations": {"soft_reset": {"period": 25}}},
    "reset": {"momentum": 0.5, "step_size": 2e-3, "operations": {"reset": {"layers": "last", "period": 30}}},
    "plasticity injection": {"operations": {"plasticity_injection": {"period": 40, "most": 2}}},
    "l2 init": {"operations": {"l2_init": {"strength": 1e-2}}},
}


def methods_of(settings: dict, runs: int) -> list:
    """One method per run; where a list is given, runs take its values in turn."""
    chosen = [{k: v[r % len(v)] if isinstance(v, list) else v for k, v in settings.items()} for r in range(runs)]
    return [method(**one) for one in chosen]


def assert_alone(network: Mlp, loss: str, batch: int, settings: dict, *, runs: int = 6, steps: int = 90) -> None:
    seeds = [3 + 7 * run for run in range(runs)]
    methods = methods_of(settings, runs)
    x, y = examples(steps, runs, batch, network, loss=loss)
    together = learner(network, methods, seeds, loss=loss, batch=batch)
    measures = together.learn(x, y)
    for run in (0, 1, runs - 1):
        alone = learner(network, methods[run : run + 1], seeds[run : run + 1], loss=loss, batch=batch)
        one = alone.learn(x[:, run : run + 1].clone(), y[:, run : run + 1].clone())
        assert torch.equal(one[:, 0], measures[:, run])
        for whole, single in zip(together.stack.tensors, alone.stack.tensors, strict=True):
            assert torch.equal(whole[run], single[0])
        if together.operations:
            for key, value in together.report().items():
                assert alone.report()[key][0] == value[run]
    assert all(torch.isfinite(tensor).all() for tensor in together.stack.tensors)


@pytest.mark.parametrize("network", NETWORKS)
def test_any_network_is_the_same_alone(network: str) -> None:
    assert_alone(*NETWORKS[network], {})


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("network", ["regression", "odd"])
def test_any_method_is_the_same_alone(network: str, name: str) -> None:
    assert_alone(*NETWORKS[network], METHODS[name])


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_any_activation_is_the_same_alone(activation: str) -> None:
    assert_alone(Mlp(inputs=10, outputs=3, hidden=(13, 7), activation=activation), "cross_entropy", 1, {})


@pytest.mark.parametrize("ingredients", [{"norm": "layer_norm"}, {"norm": "online_norm"}, {"dropout": 0.3}])
def test_any_ingredient_is_the_same_alone(ingredients: dict) -> None:
    assert_alone(Mlp(inputs=10, outputs=3, hidden=(13, 7), **ingredients), "cross_entropy", 3, {})


def test_the_size_of_chunks_does_not_matter() -> None:
    network, loss, batch = NETWORKS["odd"]
    x, y = examples(60, 3, batch, network, loss=loss)
    methods = methods_of(METHODS["continual backprop"], 3)
    whole, pieces = (learner(network, methods, [0, 1, 2], loss=loss) for _ in range(2))
    first = whole.learn(x, y)
    second = torch.cat([pieces.learn(x[a:b], y[a:b]) for a, b in ((0, 1), (1, 23), (23, 60))])
    assert torch.equal(first, second)
    assert all(torch.equal(a, b) for a, b in zip(whole.stack.tensors, pieces.stack.tensors, strict=True))


@pytest.mark.parametrize("name", METHODS)
def test_a_stopped_stack_continues_exactly(name: str) -> None:
    network, loss, batch = NETWORKS["digits"]
    x, y = examples(70, 3, batch, network, loss=loss)
    methods = methods_of(METHODS[name], 3)
    whole = learner(network, methods, [0, 1, 2], loss=loss)
    whole.learn(x[:33], y[:33])
    continued = learner(network, methods, [0, 1, 2], loss=loss)
    continued.load_state_dict(whole.state_dict())
    assert torch.equal(whole.learn(x[33:], y[33:]), continued.learn(x[33:], y[33:]))
    pairs = zip(tensors_of(whole.state_dict()), tensors_of(continued.state_dict()), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
