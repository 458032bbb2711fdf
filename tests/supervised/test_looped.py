"""Learners that loop over ordinary modules give what stacks give."""

import numpy as np
import pytest
import torch

from supervised.looped import LoopedLearner
from supervised.networks import MaxPoolNet, Mlp, make_network
from tests.supervised.helpers import examples, learner, method

NETWORK = Mlp(inputs=12, outputs=4, hidden=(10, 8))


@pytest.mark.parametrize("layers", ["head", "last", "all"])
def test_stack_and_loop_learn_and_reset_alike(layers: str) -> None:
    methods = [method(momentum=0.9, step_size=0.005, operations={"reset": {"layers": layers}})] * 2
    x, y = examples(60, 2, 3, NETWORK, loss="cross_entropy")
    stack = learner(NETWORK, methods, [0, 1], loss="cross_entropy", batch=3)
    loop = LoopedLearner(NETWORK, methods, [0, 1], loss="cross_entropy")
    for task in range(2):
        part = slice(30 * task, 30 * task + 30)
        for one in (stack, loop):
            one.start_task(task)
        torch.testing.assert_close(stack.learn(x[part], y[part]), loop.learn(x[part], y[part]))
    for a, b in zip(stack.weights().values(), loop.weights().values(), strict=True):
        torch.testing.assert_close(a.mT, b, rtol=1e-3, atol=1e-5)
    outputs, hidden = stack.evaluate(x[0])
    expected, others = loop.evaluate(x[0])
    torch.testing.assert_close(outputs, expected, rtol=1e-3, atol=1e-4)
    assert [h.shape for h in hidden.values()] == [h.shape for h in others.values()]


def test_the_published_network_has_the_published_shapes() -> None:
    network = MaxPoolNet()
    module = network.module(0)
    assert [tuple(p.shape) for p in module.parameters() if p.dim() > 1] == [
        (32, 3, 5, 5), (64, 32, 3, 3), (128, 64, 3, 3), (128, 512), (128, 128), (2, 128),
    ]  # fmt: skip
    bound = np.sqrt(6 / 75)
    assert module[0].weight.abs().max() <= bound
    assert module[0].weight.std().item() == pytest.approx(bound / np.sqrt(3), rel=0.05)
    assert not any(p.any() for p in module.parameters() if p.dim() == 1)


def test_conv_learners_replace_units_and_continue_exactly() -> None:
    surgery = {"rate": 0.05, "maturity": 3, "decay": 0.9, "utility": "adaptable_contribution"}
    network = make_network(
        {"kind": "conv", "channels": [4, 5, 6], "kernels": [3, 2, 2], "hidden": [7, 7]}, (3, 16, 16), 2
    )
    methods = [method(momentum=0.9, step_size=0.01, operations={"continual_backprop": surgery})] * 2
    generator = torch.Generator().manual_seed(0)
    x, y = torch.rand(30, 2, 4, 3, 16, 16, generator=generator), torch.randint(0, 2, (30, 2, 4), generator=generator)
    whole = LoopedLearner(network, methods, [0, 1], loss="cross_entropy")
    whole.learn(x[:17], y[:17])
    again = LoopedLearner(network, methods, [0, 1], loss="cross_entropy")
    again.load_state_dict(whole.state_dict())
    assert torch.equal(whole.learn(x[17:], y[17:]), again.learn(x[17:], y[17:]))
    assert whole.report()["replaced"].min() > 10
    assert np.array_equal(whole.report()["replaced"], again.report()["replaced"])
    alone = LoopedLearner(network, methods[:1], [1], loss="cross_entropy")
    alone.learn(x[:, 1:], y[:, 1:])
    for name, weight in alone.weights().items():
        assert torch.equal(weight[0], whole.weights()[name][1])
    _, hidden = whole.evaluate(torch.rand(2, 3, 3, 16, 16))
    assert {name: h.shape[-1] for name, h in hidden.items()} == {
        "conv_2": 4, "conv_5": 5, "conv_8": 6, "hidden_11": 7, "hidden_13": 7,
    }  # fmt: skip
    assert set(hidden) <= set(whole.kinds())


LAID_OUT = [
    {"continual_backprop": {"rate": 0.05, "maturity": 3, "decay": 0.9, "utility": "contribution"}},
    {"redo": {"threshold": 0.5, "period": 5}},
    {"reset": {"layers": "last", "period": 4}},
    {"l2_init": {"strength": 0.1}, "weight_clipping": {"bound": 0.5}},
    {"parseval": {"strength": 0.01}, "spectral": {"strength": 0.01}},
    {"perturb": {"noise": 1e-3}, "projection": {}},
]


@pytest.mark.parametrize("operations", LAID_OUT, ids=lambda one: " ".join(one))
@pytest.mark.parametrize("kind", ["conv", "resnet"])
def test_how_kernels_lie_in_memory_changes_nothing_but_rounding(kind: str, operations: dict) -> None:
    sizes = {"conv": {"channels": [4, 5, 6], "kernels": [3, 2, 2], "hidden": [7, 7]}, "resnet": {"channels": [4, 6]}}
    network = make_network({"kind": kind, **sizes[kind]}, (3, 16, 16), 2)
    generator = torch.Generator().manual_seed(0)
    x, y = torch.rand(12, 1, 4, 3, 16, 16, generator=generator), torch.randint(0, 2, (12, 1, 4), generator=generator)
    last, first = (
        LoopedLearner(network, [method(step_size=1e-3, operations=operations)], [0], loss="cross_entropy")
        for _ in range(2)
    )
    for module in first.modules:
        module.to(memory_format=torch.contiguous_format)
    kernels = [[p for p in one.modules[0].parameters() if p.dim() == 4][-1] for one in (last, first)]
    assert [kernel.is_contiguous() for kernel in kernels] == [False, True]
    for one in (last, first):
        one.learn(x, y)
    assert not kernels[0].is_contiguous()
    assert np.array_equal(last.report()["replaced"], first.report()["replaced"])
    for (name, weight), other in zip(last.trained().items(), first.trained().values(), strict=True):
        torch.testing.assert_close(weight, other, rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.parametrize(
    ("settings", "shape", "message"),
    [
        ({"kind": "conv"}, (64,), "conv needs images"),
        ({"kind": "conv"}, (3, 8, 8), "too large for images of 8 x 8 pixels"),
        ({"hidden": [3], "widht": 2}, (4,), "network.widht is unknown to kind=mlp"),
    ],
)
def test_bad_networks_are_told_in_one_line(settings: dict, shape: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_network(settings, shape, 2)
