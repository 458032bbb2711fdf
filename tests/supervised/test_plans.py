"""Which runs an experiment makes, and which of them train together."""

import pytest

from supervised.plans import make_plans, stacks
from tests.supervised.helpers import method

CBP = {"continual_backprop": {"rate": 1e-4, "maturity": 100, "decay": 0.99, "utility": "contribution"}}
METHODS = {"backprop": method("backprop"), "continual": method("continual", operations=CBP)}
EXPERIMENT = {"stream": {"kind": "regression"}, "network": {"hidden": [5], "activation": "relu"}, "seeds": 3}


def test_seeds_times_methods_times_swept_values() -> None:
    sweep = {"optimizer.step_size": [0.01, 0.003], "network.activation": ["relu", "tanh"]}
    plans = make_plans({**EXPERIMENT, "sweep": sweep}, METHODS, seed=10)
    assert len(plans) == 3 * 2 * 2 * 2
    assert {plan.seed for plan in plans} == {10, 11, 12}
    assert {plan.method.optimizer["step_size"] for plan in plans} == {0.01, 0.003}
    # step sizes share a stack; activations and operations do not
    assert [len(numbers) for numbers in stacks(plans)] == [6] * 4
    assert sorted(k for numbers in stacks(plans) for k in numbers) == list(range(24))
    assert plans[0].label == "backprop, step_size 0.01, activation relu"
    assert METHODS["backprop"].optimizer["step_size"] == 0.02


def test_a_method_without_the_swept_operation_runs_once() -> None:
    sweep = {"operations.continual_backprop.rate": [1e-5, 1e-4, 1e-3]}
    plans = make_plans({**EXPERIMENT, "sweep": sweep}, METHODS)
    assert [plan.method.name for plan in plans] == ["backprop"] * 3 + ["continual"] * 9
    assert [len(numbers) for numbers in stacks(plans)] == [3, 9]
    assert plans[-1].method.operations["continual_backprop"]["rate"] == 1e-3


def test_what_a_method_fixes_is_not_swept() -> None:
    linear = {"linear": method("linear")}
    object.__setattr__(linear["linear"], "network", {"hidden": []})
    plans = make_plans({**EXPERIMENT, "sweep": {"network.hidden": [[5], [7]]}}, linear | METHODS)
    assert [tuple(plan.network["hidden"]) for plan in plans[::3]] == [(), (5,), (7,), (5,), (7,)]
    sweep = {"network.activation": ["relu", "tanh"], "optimizer.step_size": [0.01, 0.02]}
    plans = make_plans({**EXPERIMENT, "sweep": sweep}, linear)
    assert [plan.settings for plan in plans[::3]] == [{"optimizer.step_size": 0.01}, {"optimizer.step_size": 0.02}]


def test_streams_of_other_settings_make_other_stacks() -> None:
    plans = make_plans({**EXPERIMENT, "sweep": {"stream.change_every": [10, 20]}}, {"a": METHODS["backprop"]})
    assert [plan.stream["change_every"] for plan in plans] == [10] * 3 + [20] * 3
    assert [len(numbers) for numbers in stacks(plans)] == [3, 3]


def test_bad_experiments_are_told_in_one_line() -> None:
    with pytest.raises(ValueError, match="did you mean 'continual_backprop'"):
        make_plans({**EXPERIMENT, "sweep": {"operations.continual_backprob.rate": [1]}}, METHODS)
