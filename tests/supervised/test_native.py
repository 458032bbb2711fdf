"""Native steps agree with the ordinary ones to float rounding, and a run's numbers do not depend on its neighbours."""

import dataclasses

import pytest
import torch

from continual_agents.surgery import compiler
from supervised.divergence import broken
from supervised.networks import Mlp
from supervised.stacked import native
from supervised.stacked.learner import StackedLearner
from tests.supervised.helpers import CBP, examples, learner, method

NETWORKS = {
    "side by side": (Mlp(inputs=21, outputs=1, hidden=(5,)), "squared_error"),
    "in rows": (Mlp(inputs=20, outputs=10, hidden=(32, 19)), "cross_entropy"),
}
METHODS = {
    "sgd": {},
    "momentum, l2": {"step_size": 5e-3, "momentum": 0.9, "weight_decay": 1e-2},
    "adam, l2": {"kind": "adam", "step_size": 1e-2, "weight_decay": 1e-2},
    "redo": {"operations": {"redo": {"threshold": 0.2, "period": 10}}},
    "continual backprop, l2": {"weight_decay": 1e-2, "operations": {"continual_backprop": CBP}},
    "continual backprop, momentum": {"step_size": 5e-3, "momentum": 0.9, "operations": {"continual_backprop": CBP}},
    "continual backprop, adam": {"kind": "adam", "step_size": 1e-2, "operations": {"continual_backprop": CBP}},
    **{
        f"continual backprop, {utility}": {"operations": {"continual_backprop": {**CBP, "utility": utility}}}
        for utility in native.SCORES
    },
}


def pair(network: Mlp, loss: str, one: dict, *, runs: int = 19, dtype: torch.dtype = torch.float64, steps: int = 120):
    """An ordinary and a native stack, trained on the same examples, a third of whose inputs are 0."""
    x, y = examples(steps, runs, 1, network, loss=loss)
    x = (x * (torch.rand(x.shape, generator=torch.Generator().manual_seed(1)) > 0.3)).to(dtype)
    y = y.to(dtype) if loss == "squared_error" else y
    stacks = [
        StackedLearner(network, [method(**one)] * runs, range(runs), loss=loss, dtype=dtype, fast=fast)
        for fast in (False, True)
    ]
    assert [stack.code for stack in stacks] == ["torch", "native"]
    return stacks, [stack.learn(x, y) for stack in stacks], (x, y)


def assert_same_weights(ordinary: StackedLearner, fast: StackedLearner, **tolerance: float) -> None:
    for a, b in zip(ordinary.stack.layers, fast.stack.layers, strict=True):
        torch.testing.assert_close(b.weight, a.weight, **tolerance)
        torch.testing.assert_close(b.bias, a.bias, **tolerance)
        assert not b.full[..., b.outputs :].any()  # the padding stays 0


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("network", NETWORKS)
def test_every_method_agrees(network: str, name: str) -> None:
    (ordinary, fast), measures, _ = pair(*NETWORKS[network], METHODS[name])
    torch.testing.assert_close(*measures, rtol=1e-9, atol=1e-12)
    assert_same_weights(ordinary, fast, rtol=1e-9, atol=1e-12)
    for key, value in ordinary.report().items():
        assert (fast.report()[key] == value).all()
    if METHODS[name].get("operations"):
        assert ordinary.report()["replaced"].sum() > 0


@pytest.mark.parametrize("activation", native.ACTIVATIONS)
@pytest.mark.parametrize("network", NETWORKS)
def test_every_activation_agrees(network: str, activation: str) -> None:
    shape, loss = NETWORKS[network]
    shape = dataclasses.replace(shape, activation=activation)
    (ordinary, fast), _, _ = pair(shape, loss, METHODS["continual backprop, gradient"])
    assert_same_weights(ordinary, fast, rtol=1e-9, atol=1e-12)
    (ordinary, fast), _, _ = pair(shape, loss, {}, dtype=torch.float32, steps=40)
    assert_same_weights(ordinary, fast, rtol=1e-4, atol=2e-6)


def test_classes_of_narrow_networks_and_no_hidden_layer_agree() -> None:
    for network in (Mlp(inputs=9, outputs=3, hidden=(4, 6)), Mlp(inputs=9, outputs=3), Mlp(inputs=9, outputs=20)):
        (ordinary, fast), measures, _ = pair(network, "cross_entropy", {}, runs=3)
        assert torch.equal(*measures)
        assert_same_weights(ordinary, fast, rtol=1e-9, atol=1e-12)


def test_narrow_layers_that_torch_pads_agree() -> None:
    """A hundred inputs: torch's rows are 8 long for 5 units, and so are Adam's corrections, which surgery restarts."""
    (ordinary, fast), measures, _ = pair(
        Mlp(inputs=100, outputs=1, hidden=(5,)), "squared_error", METHODS["continual backprop, adam"]
    )
    assert fast.stack.layers[0].extra == 3
    assert fast.report()["replaced"].sum() > 0
    torch.testing.assert_close(*measures, rtol=1e-9, atol=1e-12)
    assert_same_weights(ordinary, fast, rtol=1e-9, atol=1e-12)


def test_weights_that_are_nan_stay_so_through_relu() -> None:
    shape, loss = NETWORKS["in rows"]
    one = learner(shape, [method()], [0], loss=loss, fast=True)
    one.stack.layers[0].weight[0, :, 3] = torch.nan
    one.learn(*examples(2, 1, 1, shape, loss=loss))
    assert not any(layer.weight.isfinite().all() for layer in one.stack.layers)


def test_a_dead_network_whose_bias_diverges_is_found() -> None:
    """No unit is awake, so no weight meets what becomes of the last bias."""
    network = Mlp(inputs=20, outputs=1, hidden=(32,))
    one = learner(network, [method(step_size=1.5)], [0], loss="squared_error", fast=True)
    one.stack.layers[0].bias.fill_(-1e6)
    one.learn(*examples(400, 1, 1, network, loss="squared_error"))
    assert broken(one) == {0: "layer_1"}


@pytest.mark.parametrize("name", ["continual backprop, adaptable_contribution", "continual backprop, adam", "redo"])
@pytest.mark.parametrize("network", NETWORKS)
def test_a_run_gives_what_it_gives_alone_bit_for_bit(network: str, name: str) -> None:
    shape, loss = NETWORKS[network]
    (_, together), (_, measures), (x, y) = pair(shape, loss, METHODS[name], dtype=torch.float32)
    for run in (0, 17):
        alone = learner(shape, [method(**METHODS[name])], [run], loss=loss, fast=True)
        assert torch.equal(alone.learn(x[:, run : run + 1], y[:, run : run + 1])[:, 0], measures[:, run])
        for one, all_ in zip(alone.stack.tensors, together.stack.tensors, strict=True):
            assert torch.equal(one[0], all_[run])


@pytest.mark.parametrize("network", NETWORKS)
def test_settings_per_run_are_each_runs_own(network: str) -> None:
    shape, loss = NETWORKS[network]
    methods = [method(step_size=size, weight_decay=decay) for size, decay in ((0.01, 0.0), (0.02, 0.1), (0.0, 0.0))]
    x, y = examples(30, 3, 1, shape, loss=loss)
    slow, fast = (learner(shape, methods, [0, 0, 0], loss=loss, fast=one) for one in (False, True))
    slow.learn(x, y), fast.learn(x, y)
    assert_same_weights(slow, fast, rtol=1e-4, atol=1e-6)
    assert not torch.equal(fast.stack.layers[0].weight[0], fast.stack.layers[0].weight[1])


@pytest.mark.parametrize("name", ["continual backprop, adam", "continual backprop, contribution"])
@pytest.mark.parametrize("network", NETWORKS)
def test_a_stopped_stack_continues_exactly_and_in_either_code(network: str, name: str) -> None:
    shape, loss = NETWORKS[network]
    methods = [method(**METHODS[name])] * 3
    x, y = examples(70, 3, 1, shape, loss=loss)
    whole, continued = (learner(shape, methods, [0, 1, 2], loss=loss, fast=True) for _ in range(2))
    whole.learn(x[:33], y[:33])
    continued.load_state_dict(whole.state_dict())
    assert torch.equal(whole.learn(x[33:], y[33:]), continued.learn(x[33:], y[33:]))
    assert all(torch.equal(a, b) for a, b in zip(whole.stack.tensors, continued.stack.tensors, strict=True))


def test_threads_share_the_runs_and_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    shape, loss = NETWORKS["side by side"]
    (_, one), _, (x, y) = pair(shape, loss, METHODS["sgd"], runs=50, dtype=torch.float32)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    three = learner(shape, [method()] * 50, list(range(50)), loss=loss, fast=True)
    three.learn(x, y)
    assert all(torch.equal(a, b) for a, b in zip(one.stack.tensors, three.stack.tensors, strict=True))


@pytest.mark.parametrize("size", [16, 32, 64])
@pytest.mark.parametrize("network", NETWORKS)
def test_vectors_of_any_machine_agree(monkeypatch: pytest.MonkeyPatch, network: str, size: int) -> None:
    monkeypatch.setattr(native, "vector_bytes", lambda: size)
    for name in ("continual backprop, adaptable_contribution", "adam, l2"):
        (ordinary, fast), measures, _ = pair(*NETWORKS[network], METHODS[name], steps=60)
        torch.testing.assert_close(*measures, rtol=1e-9, atol=1e-12)
        assert_same_weights(ordinary, fast, rtol=1e-9, atol=1e-12)


def test_a_unit_whose_score_breaks_goes_first() -> None:
    """An unread unit with no in-weights scores 0/0 under adaptable contribution: counted as 0 in both codes."""
    shape, loss = NETWORKS["in rows"]
    one = METHODS["continual backprop, adaptable_contribution"]
    x, y = examples(25, 1, 1, shape, loss=loss)
    stacks = [learner(shape, [method(**one)], [0], loss=loss, fast=fast) for fast in (False, True)]
    for stack in stacks:
        stack.stack.layers[0].full[:, :, 7] = 0.0
        stack.stack.layers[1].full[:, 7] = 0.0
        stack.learn(x, y)
        worth = stack.operations["continual_backprop"].worth[0]
        assert torch.isfinite(worth).all()
    assert torch.equal(*(stack.operations["continual_backprop"].births[0] for stack in stacks))


@pytest.mark.parametrize(
    ("network", "operations", "batch", "why"),
    [
        (Mlp(inputs=4, outputs=2, hidden=(3,), dropout=0.1), {}, 1, "dropout"),
        (Mlp(inputs=4, outputs=2, hidden=(3,), norm="online_norm"), {}, 1, "norm=online_norm"),
        (Mlp(inputs=4, outputs=2, hidden=(3,), activation="crelu"), {}, 1, "activation=crelu"),
        (Mlp(inputs=4, outputs=2, hidden=(3,)), {}, 2, "batches of 2"),
        (Mlp(inputs=4, outputs=2, hidden=(3,)), {"perturb": {"noise": 0.1}}, 1, "perturb"),
        (Mlp(inputs=4, outputs=2, hidden=(3,)), {"continual_backprop": {"utility": "random"}}, 1, "a utility that"),
    ],
)
def test_what_has_no_native_code_runs_in_torch(network: Mlp, operations: dict, batch: int, why: str) -> None:
    one = learner(network, [method(operations=operations)], [0], loss="cross_entropy", batch=batch, fast=True)
    assert one.code == "torch"
    assert (native.obstacle(network, batch, one.operations, one.optimizer) or "").startswith(why)
    one.learn(*examples(3, 1, batch, network, loss="cross_entropy"))


def test_a_library_that_cannot_be_loaded_is_no_native_code(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str) -> None:
        raise OSError(f"{path}: failed to map segment from shared object")

    monkeypatch.setattr(compiler.ctypes, "CDLL", refuse)
    compiler.compiled.cache_clear()
    with pytest.warns(UserWarning, match="failed to map segment.*TMPDIR"):
        one = learner(*NETWORKS["in rows"][:1], [method()], [0], loss="cross_entropy", fast=True)
    assert one.code == "torch"


@pytest.mark.parametrize(("found", "message"), [(None, "no C compiler"), ("/bin/false", "does not compile")])
def test_without_a_compiler_steps_run_in_torch_and_say_so(
    monkeypatch: pytest.MonkeyPatch, found: str | None, message: str
) -> None:
    monkeypatch.setattr(compiler.shutil, "which", lambda name: found)
    compiler.compiled.cache_clear()
    native.vector_bytes.cache_clear()
    with pytest.warns(UserWarning, match=message):
        one = learner(*NETWORKS["in rows"][:1], [method()], [0], loss="cross_entropy", fast=True)
    assert one.code == "torch"
