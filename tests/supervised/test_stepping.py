"""Compiled steps agree with ordinary ones to float rounding, surgery included."""

import pytest
import torch

from supervised.learner import StackedLearner
from supervised.networks import Mlp
from supervised.stacked import runs_last
from tests.supervised.helpers import CBP, examples, method


def test_a_fused_stack_agrees_before_it_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("supervised.stepping.torch.compile", lambda piece, **kind: piece)
    assert_agrees("sgd")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")  # inductor's own
@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_compiled_steps_agree(kind: str) -> None:
    assert_agrees(kind)


def assert_agrees(kind: str) -> None:
    network = Mlp(inputs=21, outputs=1, hidden=(5,))
    methods = [
        method(kind=kind, step_size=size, operations={"continual_backprop": CBP}) for size in (0.001, 0.002, 0.003)
    ]
    x, y = examples(85, 3, 1, network, loss="squared_error")
    slow, fast = (
        StackedLearner(network, methods, [0, 1, 2], loss="squared_error", dtype=torch.float64, fast=fast)
        for fast in (False, True)
    )
    assert fast.stack.fused
    x, y = x.double(), y.double()
    torch.testing.assert_close(fast.learn(x, y), slow.learn(x, y), rtol=1e-9, atol=1e-12)
    for a, b in zip(fast.stack.tensors, slow.stack.tensors, strict=True):
        torch.testing.assert_close(a, b)
    assert (fast.report()["replaced"] == slow.report()["replaced"]).all()
    assert fast.report()["replaced"].min() > 0
    again = StackedLearner(network, methods, [0, 1, 2], loss="squared_error", dtype=torch.float64, fast=False)
    again.load_state_dict(fast.state_dict())
    for a, b in zip(fast.stack.tensors, again.stack.tensors, strict=True):
        assert torch.equal(a, b)


def test_runs_are_neighbours_in_memory() -> None:
    assert runs_last(7, 3, 2).stride() == (1, 14, 7)


@pytest.mark.parametrize(
    ("network", "operations"),
    [
        (Mlp(inputs=4, outputs=2, hidden=(3,), dropout=0.1), {}),
        (Mlp(inputs=4, outputs=2, hidden=(3,)), {"perturb": {"noise": 0.1}}),
        (Mlp(inputs=4, outputs=2, hidden=(3,)), {"continual_backprop": {"utility": "random"}}),
    ],
)
def test_what_draws_at_every_step_is_refused(network: Mlp, operations: dict) -> None:
    with pytest.raises(ValueError, match="experiment.fast=true does not go with"):
        StackedLearner(network, [method(operations=operations)], [0], loss="cross_entropy", fast=True)
