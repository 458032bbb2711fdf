"""Runs that diverge: marked, while the others give what they give without them; or everything stops."""

import re
from pathlib import Path

import pandas as pd
import pytest
import torch

from continual_agents.runs import Checkpoints, Run
from supervised import make_plans, train
from tests.supervised.helpers import CBP, method, tensors_of
from tests.supervised.test_train import PERMUTED, REGRESSION, TEXTURES

SURGERY = {"continual_backprop": CBP}
GOOD = {
    "plain": method("plain"),
    "continual": method("continual", operations=SURGERY),
    "adam": method("adam", kind="adam", step_size=1e-3, operations=SURGERY),
}
BAD = {
    "wild": method("wild", step_size=1e30),
    "wild_continual": method("wild_continual", step_size=1e30, operations=SURGERY),
    "wild_adam": method("wild_adam", kind="adam", step_size=1e30, operations=SURGERY),
}


def start(folder: Path, experiment: dict, methods: dict, **kind) -> pd.DataFrame:
    plans = make_plans(experiment, methods)
    with Run.open(folder, {}, bar_position=None) as run:
        assert train(plans, run, tasks=2, examples=20, **kind)
    return pd.read_csv(folder / "metrics.csv")


@pytest.mark.parametrize("experiment", [PERMUTED, REGRESSION, TEXTURES], ids=["permuted", "regression", "textures"])
def test_a_run_that_diverges_is_marked_and_takes_no_other_down(tmp_path: Path, experiment: dict) -> None:
    experiment = {**experiment, "seeds": 1}
    alone = start(tmp_path / "alone", experiment, GOOD)
    with pytest.warns(
        UserWarning, match=r"not finite by step \d+: run 3 \(wild, seed 0\): .*; run 4 .*rows are nan"
    ) as told:
        beside = start(tmp_path / "beside", experiment, {**GOOD, **BAD})  # each with a wild one in its stack
    assert len(told) == 1
    good, bad = (beside[beside["run"].isin(chosen)].reset_index(drop=True) for chosen in ((0, 1, 2), (3, 4, 5)))
    pd.testing.assert_frame_equal(good, alone)
    assert bad["optimizer/diverged"].tolist() == [1.0] * 6
    assert good["optimizer/diverged"].tolist() == [0.0] * 6
    assert bad["task/index"].tolist() == [0, 0, 0, 1, 1, 1]
    assert bad.drop(columns=["step", "run", "task/index", "optimizer/diverged"]).isna().all(axis=None)


def test_stopping_names_run_and_layer_keeps_the_last_good_checkpoint_and_marking_goes_on_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("supervised.streams.stream.MOST_BYTES", 1)
    plans = make_plans({**PERMUTED, "seeds": 1}, {"plain": GOOD["plain"], "wild": method("wild", step_size=3e15)})
    with (
        pytest.raises(FloatingPointError) as caught,
        Run.open(tmp_path, {}, save_seconds=0, bar_position=None) as run,
    ):
        train(plans, run, tasks=2, examples=20, on_not_finite="stop")
    found = re.fullmatch(
        r"not finite by step (\d+): run 1 \(wild, seed 0\): layer_\d. Lower the step size, or give "
        r"experiment.on_not_finite=mark to go on with the other runs. The last good checkpoint of (.*): step (\d+)",
        str(caught.value),
    )
    assert found is not None, str(caught.value)
    assert 0 < int(found[3]) < int(found[1]) < 120  # within the first row
    content = Checkpoints(tmp_path / "checkpoints").load()
    assert content is not None
    assert content["step"] == int(found[3])
    assert all(torch.isfinite(one).all() for one in tensors_of(content["state"]["run"]) if one.is_floating_point())
    with pytest.warns(UserWarning, match="run 1"), Run.open(tmp_path, {}, bar_position=None) as run:
        assert train(plans, run, tasks=2, examples=20, on_not_finite="mark")
    metrics = pd.read_csv(tmp_path / "metrics.csv")
    assert metrics["accuracy"].isna().tolist() == [False, True, False, True]


def test_a_run_that_is_drawn_anew_is_well_again(tmp_path: Path) -> None:
    """A full reset at the start of a task mends a run; only the rows in between are nan."""
    fresh = method("fresh", step_size=0.01, operations={"reset": {"layers": "all"}})
    plans = make_plans({**PERMUTED, "seeds": 1}, {"fresh": fresh})
    with Run.open(tmp_path, {}, bar_position=None) as run:
        train(plans, run, tasks=1, examples=20)
    with Run.open(tmp_path, {}, bar_position=None) as run:
        state = run.state
        assert state is not None
        for tensor in tensors_of(state["groups"][0]["learner"]["stack"]):
            tensor.fill_(torch.nan)
        train(plans, run, tasks=2, examples=20)
    assert pd.read_csv(tmp_path / "metrics.csv")["optimizer/diverged"].tolist() == [0, 0]


def test_option_takes_two_words(tmp_path: Path) -> None:
    plans = make_plans(PERMUTED, {"plain": GOOD["plain"]})
    with Run.open(tmp_path, {}) as run, pytest.raises(ValueError, match="on_not_finite='skip': mark or stop"):
        train(plans, run, tasks=1, on_not_finite="skip")  # type: ignore[arg-type]
