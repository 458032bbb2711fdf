"""What methods do after a step and at the start of a task."""

import math

import pytest
import torch

from continual_agents.surgery import Birth
from supervised.networks import Mlp
from supervised.stacked.learner import StackedLearner
from tests.supervised.helpers import CBP, examples, learner, method

NETWORK = Mlp(inputs=12, outputs=4, hidden=(10, 8))


def trained(operations: dict, *, steps: int = 50, network: Mlp = NETWORK, runs: int = 2, **optimizer) -> StackedLearner:
    methods = [method(operations=operations, **optimizer)] * runs
    stack = learner(network, methods, list(range(runs)), loss="cross_entropy")
    stack.learn(*examples(steps, runs, 1, network, loss="cross_entropy"))
    return stack


def test_noise_has_the_asked_size_and_differs_between_runs_and_steps() -> None:
    stack = trained({"perturb": {"noise": 0.01}}, steps=100, step_size=0.0)
    start = trained({}, steps=1, step_size=0.0)
    moved = [a.full - b.full for a, b in zip(stack.stack.layers, start.stack.layers, strict=True)]
    values = torch.cat([m[:, :-1].flatten(1) for m in moved], 1)
    # a hundred draws of .01 add up to .1
    assert values.std() == pytest.approx(0.1, rel=0.1)
    assert abs(torch.corrcoef(values)[0, 1]) < 0.2


def test_dropout_drops_the_asked_share_and_keeps_the_mean() -> None:
    network = Mlp(inputs=12, outputs=4, hidden=(64,), dropout=0.25)
    stack = trained({}, network=network)
    masks = torch.stack([stack._dropout(step)[0] for step in range(300)])
    assert (masks == 0).double().mean() == pytest.approx(0.25, abs=0.01)
    assert masks.unique().tolist() == pytest.approx([0.0, 1 / 0.75])
    assert not torch.equal(masks[:, 0], masks[:, 1])
    outputs = stack.evaluate(torch.ones(2, 3, 12))[0]
    assert torch.equal(outputs, stack.evaluate(torch.ones(2, 3, 12))[0])


@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_a_full_reset_gives_a_fresh_network_and_a_fresh_optimizer(kind: str) -> None:
    stack = trained({"reset": {"layers": "all"}}, kind=kind, momentum=0.9)
    before = [tensor.clone() for tensor in stack.stack.tensors]
    stack.start_task(0)
    assert all(torch.equal(a, b) for a, b in zip(before, stack.stack.tensors, strict=True))
    stack.start_task(1)
    fresh = NETWORK.initial(1, start=1)
    for layer, weight in zip(stack.stack.layers, fresh, strict=True):
        assert torch.equal(layer.weight[1].T, weight)
        assert not layer.bias.any()
    assert not any(moment.any() for number in range(3) for moment in stack.optimizer.moments(number))


def test_a_head_reset_zeroes_the_output_layer_only() -> None:
    stack = trained({"reset": {"layers": "head"}}, momentum=0.9)
    first = stack.stack.layers[0].full.clone()
    moment = stack.optimizer.moments(0)[0].clone()
    stack.start_task(3)
    assert not stack.stack.layers[-1].full.any()
    assert torch.equal(stack.stack.layers[0].full, first)
    assert not stack.optimizer.moments(2)[0].any()
    assert torch.equal(stack.optimizer.moments(0)[0], moment)
    quirk = trained({"reset": {"layers": "head", "keep_momentum": True}}, momentum=0.9)
    quirk.start_task(3)
    assert quirk.optimizer.moments(2)[0].any()


def test_the_published_number_of_units_is_replaced() -> None:
    """rho 0.01 of 10 and 8 eligible units after 20 steps of maturity: (steps - 20) * rho * width, less the young."""
    stack = trained({"continual_backprop": {**CBP, "rate": 0.01, "maturity": 20}}, steps=220)
    first, second = (stack.report()[f"replaced/hidden_{k}"] for k in (0, 1))
    # each replaced unit is out for 20 steps: the eligible are about width / (1 + rho * maturity)
    assert first[0] == pytest.approx(200 * 0.01 * 10 / 1.2, abs=1.5)
    assert second[0] == pytest.approx(200 * 0.01 * 8 / 1.2, abs=1.5)


def test_a_replacement_leaves_the_output_unchanged_on_average_and_the_newborn_unread() -> None:
    stack = trained({"continual_backprop": {**CBP, "rate": 0.0, "decay": 0.5}}, steps=60)
    surgery = stack.operations["continual_backprop"]
    x = torch.randn(2, 1, 12)
    for number in range(60):  # the same input over and over, so that the running mean is the activation itself
        stack.stack.forward(x)
        stack.stack.backward(torch.zeros(2, 1, 4))
        surgery.follow_step(number)
    before = stack.evaluate(x)[0]
    units = torch.tensor([[1, 4], [2, 0]])
    rows = torch.arange(2)[:, None]
    mean = (surgery.means[1] / surgery.weights[1])[rows, units]
    surgery.surgeon.replace([(1, [0, 1], units, mean)])
    torch.testing.assert_close(stack.evaluate(x)[0], before, rtol=1e-4, atol=1e-5)
    assert not stack.stack.layers[2].weight[rows, units].any()
    bound = NETWORK.bounds[1]
    drawn = stack.stack.layers[1].weight[rows, :, units]
    assert drawn.abs().max() <= bound
    assert drawn.std() == pytest.approx(bound / math.sqrt(3), rel=0.3)
    assert not stack.stack.layers[1].bias[rows, units].any()


def test_runs_of_one_stack_replace_at_their_own_rates() -> None:
    methods = [method(operations={"continual_backprop": {**CBP, "rate": rate}}) for rate in (0.0, 0.01, 0.03)]
    stack = learner(NETWORK, methods, [0, 1, 2], loss="cross_entropy")
    stack.learn(*examples(200, 3, 1, NETWORK, loss="cross_entropy"))
    replaced = stack.report()["replaced"]
    assert replaced[0] == 0 < replaced[1] < replaced[2]


def test_redo_renews_silent_units() -> None:
    redo = method(step_size=0.0, operations={"redo": {"threshold": 0.0, "period": 30}})
    stack = learner(NETWORK, [redo], [0], loss="cross_entropy")
    stack.stack.layers[0].bias[0, [2, 5]] = -100.0
    x, y = examples(30, 1, 1, NETWORK, loss="cross_entropy")
    stack.learn(x[:29], y[:29])
    assert stack.report()["replaced/hidden_0"][0] == 0
    stack.learn(x[29:], y[29:])
    assert stack.report()["replaced/hidden_0"][0] == 2
    assert not stack.stack.layers[0].bias[0, [2, 5]].any()


@pytest.mark.parametrize(
    ("operations", "message"),
    [
        ({"continual_backprop": {"maturty": 3}}, "did you mean 'maturity'"),
        ({"redo": {"threshold": 2}}, "redo.period"),
    ],
)
def test_bad_settings_are_told_in_one_line(operations: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        trained(operations)


def test_surgery_needs_units() -> None:
    with pytest.raises(ValueError, match="hidden layer"):
        trained({"continual_backprop": CBP}, network=Mlp(inputs=12, outputs=4))
    with pytest.raises(ValueError, match="crelu"):
        trained({"redo": {}}, network=Mlp(inputs=12, outputs=4, hidden=(5,), activation="crelu"))


def test_kept_optimizer_state_is_a_quirk_on_demand() -> None:
    kept, forgotten = (
        trained({"continual_backprop": {**CBP, "keep_optimizer_state": keep}}, momentum=0.9, step_size=0.002, steps=21)
        for keep in (True, False)
    )
    for stack in (kept, forgotten):
        stack.stack.forward(torch.randn(2, 1, 12))
        units = torch.tensor([[0], [0]])
        stack.operations["continual_backprop"].surgeon.replace([(0, [0, 1], units, None)])
    assert kept.optimizer.moments(0)[0][:, :, 0].any()
    assert not forgotten.optimizer.moments(0)[0][:, :, 0].any()


def test_births_see_what_their_layer_reads_of_the_latest_examples_of_their_own_run() -> None:
    asked = []

    def birth(given: Birth) -> torch.Tensor:
        asked.append((given, [layer.full.clone() for layer in stack.stack.layers]))
        return given.uniform(given.bound)

    birth.needs_inputs = True  # type: ignore[attr-defined]
    methods = [method(operations={"continual_backprop": {**CBP, "birth": one}}) for one in (None, birth)]
    stack = learner(NETWORK, methods, [0, 1], loss="cross_entropy")
    x, y = examples(150, 2, 1, NETWORK, loss="cross_entropy")
    for part in (slice(0, 47), slice(47, 150)):
        stack.learn(x[part], y[part])
    (given, (first, *_)) = next(one for one in reversed(asked) if one[0].weight.shape == (8, 10))
    assert len(given.inputs) == 64
    seen = [x[k : k + 64, 1, 0] for k in range(150 - 63)]
    (latest,) = [one for one in seen if torch.allclose(given.inputs, torch.relu(one @ first[1, :-1] + first[1, -1]))]
    (first_given, _) = next(one for one in reversed(asked) if one[0].weight.shape == (10, 12))
    assert any(torch.equal(first_given.inputs, one) for one in seen)
    assert latest.shape == (64, 12)
