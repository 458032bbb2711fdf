"""The comparison of utilities and births: births in a stack are surgery's own, and the table says what was measured."""

import csv

import numpy as np
import pytest
import torch

from continual_agents import surgery
from continual_agents.methods import Method
from supervised.networks import Mlp
from supervised.stacked.learner import StackedLearner
from supervised.streams.table import make_stream
from tools import compare_surgery


def learned(birth: str | None, steps: int = 90) -> StackedLearner:
    """A small stack with many replacements; birth None: the stack's own surgeon."""
    operations = {"continual_backprop": {"rate": 0.02, "maturity": 5, "utility": "contribution"}}
    method = Method(name="a", optimizer={"kind": "sgd", "step_size": 0.02}, operations=operations)
    stream = make_stream({"kind": "permuted", "data": "digits"}, [0, 1])
    learner = StackedLearner(Mlp(inputs=64, outputs=10, hidden=(8, 6)), [method] * 2, [0, 1], loss=stream.loss)
    midwife = None
    if birth:
        midwife = learner.operations["continual_backprop"].surgeon = compare_surgery.Midwife(
            learner, [birth, "default"]
        )
    for _ in range(3):
        x, y = stream.next(steps // 3)
        if midwife:
            midwife.show(x)
        learner.learn(x, y)
    assert learner.operations["continual_backprop"].replaced.min() > 5
    return learner


def test_the_default_birth_is_the_stacks_own_to_the_last_bit() -> None:
    for mine, own in zip(learned("default").stack.tensors, learned(None).stack.tensors, strict=True):
        assert torch.equal(mine, own)


@pytest.mark.parametrize("birth", [name for name in surgery.BIRTHS if name != "default"])
def test_every_birth_gives_finite_weights_of_its_own(birth: str) -> None:
    learner, usual = learned(birth), learned("default")
    assert all(tensor.isfinite().all() for tensor in learner.stack.tensors)
    pairs = list(zip(learner.stack.tensors, usual.stack.tensors, strict=True))
    assert all(torch.equal(a[1], b[1]) for a, b in pairs), "the other run of the stack is born as it was told"
    same = all(torch.equal(a[0], b[0]) for a, b in pairs)
    assert same == (birth == "kaiming_uniform"), "which is how this network began"


def test_births_read_the_latest_inputs_of_their_own_run() -> None:
    learner = learned("default")
    midwife = learner.operations["continual_backprop"].surgeon
    x = torch.randn(40, 2, 1, 64)
    midwife.show(x)
    learner.steps += 10
    first = midwife._inputs(1, 0)
    assert len(first) == compare_surgery.RECENT
    assert torch.equal(first[-10:], x[:10, 1, 0])
    made = learner.stack.layers[0]
    expected = torch.relu(first @ made.weight[1] + made.bias[1])
    torch.testing.assert_close(midwife._inputs(1, 1), expected)


def test_table_and_file(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(compare_surgery, "settings", lambda grid: {"none": ["none"], "contribution": ["default"]})
    path = tmp_path / "folder" / "runs.csv"
    compare_surgery.main(["--seeds", "2", "--tasks", "2", "--step-sizes", "0.02", "--csv", str(path)])
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert len(rows) == 2 * 2 * 2
    late = [float(r["online_accuracy"]) for r in rows if r["utility"] == "contribution" and r["task"] == "1"]
    assert "| contribution | default | " in (printed := capsys.readouterr().out)
    assert f"{np.mean(late):.3f} [" in printed
    with pytest.raises(SystemExit):
        compare_surgery.main(["--seeds", "1"])


def test_settings_of_the_cross_and_the_full_grid() -> None:
    cross, full = compare_surgery.settings("cross"), compare_surgery.settings("full")
    assert list(cross) == list(full)
    assert set(cross) == {"none", *surgery.UTILITIES}
    assert all(births[0] == "default" for name, births in cross.items() if name != "none")
    assert [len(births) for births in cross.values()] == [1, len(surgery.BIRTHS), *[1] * (len(surgery.UTILITIES) - 1)]
    assert all(set(births) == set(surgery.BIRTHS) for name, births in full.items() if name != "none")
