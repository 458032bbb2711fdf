"""The loop: its tables, and that a stopped run continues to the same tables and weights."""

import functools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from campaigns.chaos.compare import unequal
from continual_agents.runs import Run, RunError
from supervised import make_plans, train
from supervised.group import Group, make_learner
from supervised.streams.table import make_stream
from tests.supervised.helpers import CBP, method, tensors_of

METHODS = {
    "backprop": method("backprop"),
    "continual": method("continual", operations={"continual_backprop": CBP}),
    "noisy": method("noisy", weight_decay=1e-3, operations={"perturb": {"noise": 1e-3}}),
    "random": method("random", operations={"continual_backprop": {**CBP, "utility": "random"}}),
    "adam": method("adam", kind="adam", step_size=1e-3, operations={"continual_backprop": CBP}),
}
PERMUTED = {"stream": {"kind": "permuted", "change_every": 120}, "network": {"hidden": [12, 8]}, "seeds": 2}
REGRESSION = {"stream": {"kind": "regression", "change_every": 100}, "network": {"hidden": [5]}, "seeds": 3}
TEXTURES = {
    "stream": {
        "kind": "textures", "classes": 6, "side": 16, "train_images": 8, "test_images": 4, "epochs": 2, "batch": 4,
    },
    "network": {"kind": "conv", "channels": [4, 4, 4], "kernels": [3, 2, 2], "hidden": [6, 6]},
    "seeds": 2,
}  # fmt: skip
INCREMENTAL = {
    "stream": {
        "kind": "incremental_textures", "classes": 6, "side": 8, "increment": 2, "train_images": 4,
        "validation_images": 2, "test_images": 2, "epochs": 2, "batch": 4, "milestones": [1], "crop": 1,
    },
    "network": {"kind": "resnet", "channels": [4, 6], "blocks": 1},
    "seeds": 2,
}  # fmt: skip


def start(folder: Path, experiment: dict, methods: dict = METHODS, **kind) -> bool:
    plans = make_plans(experiment, methods)
    with Run.open(folder, {"experiment": experiment}, bar_position=None) as run:
        return train(plans, run, **kind)


class StoppedError(Exception):
    """Stands for SIGKILL."""


def interrupt(folder: Path, experiment: dict, monkeypatch: pytest.MonkeyPatch, *, saves: int, **kind) -> None:
    """Save after every chunk, and die at the given one, before the next."""
    counted = {"saves": 0}
    save = Run.save

    def dying(self, step, state, **more):
        save(self, step, state, **more)
        counted["saves"] += 1
        if counted["saves"] == saves:
            raise StoppedError

    with monkeypatch.context() as patch:
        patch.setattr(Run, "save_due", lambda self: True)
        patch.setattr(Run, "save", dying)
        with pytest.raises(StoppedError):
            start(folder, experiment, **kind)


@pytest.mark.parametrize("saves", [1, 26, 60, 130])  # within the first row of the table, and beyond
def test_a_killed_run_continues_to_the_same_table_and_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, saves: int
) -> None:
    monkeypatch.setattr("supervised.streams.stream.MOST_BYTES", 5000)
    kind = {"tasks": 3, "examples": 50, "row_steps": 70}
    start(tmp_path / "whole", PERMUTED, **kind)
    interrupt(tmp_path / "killed", PERMUTED, monkeypatch, saves=saves, **kind)
    assert start(tmp_path / "killed", PERMUTED, **kind)
    for table in ("metrics.csv", "runs.csv"):
        assert (tmp_path / "killed" / table).read_bytes() == (tmp_path / "whole" / table).read_bytes()
    states = [Run.open(tmp_path / name, {"experiment": PERMUTED}, bar_position=None) for name in ("whole", "killed")]
    first, second = (tensors_of(run.state) for run in states)
    assert len(first) > 50
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    for run in states:
        run.close()


@pytest.mark.parametrize(
    "experiment", [REGRESSION, TEXTURES, INCREMENTAL], ids=["regression", "textures", "incremental"]
)
def test_other_streams_continue_too(experiment: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("supervised.streams.stream.MOST_BYTES", 5000)
    methods = {name: METHODS[name] for name in ("continual", "adam")}
    kind = {"tasks": 3, "examples": 20, "methods": methods}
    start(tmp_path / "whole", experiment, **kind)
    interrupt(tmp_path / "killed", experiment, monkeypatch, saves=9, **kind)
    start(tmp_path / "killed", experiment, **kind)
    assert (tmp_path / "killed/metrics.csv").read_bytes() == (tmp_path / "whole/metrics.csv").read_bytes()


def test_the_table_says_what_each_run_alone_would_say(tmp_path: Path) -> None:
    """One run by hand: online accuracy per task, computed from an ordinary loop over the stream."""
    start(tmp_path, PERMUTED, tasks=2, examples=40)
    metrics, runs = pd.read_csv(tmp_path / "metrics.csv"), pd.read_csv(tmp_path / "runs.csv")
    assert list(runs["method"]) == [name for name in METHODS for _ in range(2)]
    assert len(metrics) == 2 * 10
    plans = make_plans(PERMUTED, METHODS)
    for number in (1, 3):
        plan = plans[number]
        stream = make_stream(plan.stream, [plan.seed])
        learner = make_learner([plan], stream)
        for task in range(2):
            x, y = stream.next(120)
            expected = learner.learn(x, y).double().mean().item()
            row = metrics[(metrics["run"] == number) & (metrics["task/index"] == task)].iloc[0]
            assert row["accuracy"] == expected
            assert row["step"] == 120 * (task + 1)
            hidden = learner.evaluate(stream.evaluation(40))[1].values()
            dead = np.concatenate([(h[0] == 0).all(0).numpy() for h in hidden])
            assert row["plasticity/dead_units"] == pytest.approx(dead.mean())
            weights = torch.cat([layer.weight[0].flatten() for layer in learner.stack.layers])
            assert row["plasticity/weight_magnitude"] == pytest.approx(weights.abs().mean().item(), rel=1e-5)
            if plan.method.name == "continual":
                assert row["surgery/replaced"] == learner.report()["replaced"][0] > 0


def test_streams_with_a_test_set_report_test_accuracy(tmp_path: Path) -> None:
    start(tmp_path, TEXTURES, {"backprop": METHODS["backprop"]}, tasks=2, examples=8)
    metrics = pd.read_csv(tmp_path / "metrics.csv")
    # eight test images per task
    assert set((metrics["test_accuracy"] * 8) % 1) == {0.0}
    assert metrics["online_accuracy"].between(0, 1).all()
    assert metrics["plasticity/effective_rank"].notna().all()


def test_a_linear_network_has_weights_but_no_units(tmp_path: Path) -> None:
    start(tmp_path, {**PERMUTED, "network": {"hidden": []}}, {"backprop": METHODS["backprop"]}, tasks=1, examples=40)
    metrics = pd.read_csv(tmp_path / "metrics.csv")
    assert metrics["plasticity/dead_units"].isna().all()
    assert metrics["plasticity/weight_magnitude"].gt(0).all()


def test_a_finished_run_is_left_alone_and_a_longer_one_goes_on(tmp_path: Path) -> None:
    methods = {"backprop": METHODS["backprop"]}
    start(tmp_path, PERMUTED, methods, tasks=1, examples=0)
    before = (tmp_path / "metrics.csv").read_bytes()
    start(tmp_path, PERMUTED, methods, tasks=1, examples=0)
    assert (tmp_path / "metrics.csv").read_bytes() == before
    start(tmp_path, PERMUTED, methods, tasks=2, examples=0)
    assert len(pd.read_csv(tmp_path / "metrics.csv")) == 4
    with pytest.raises(ValueError, match="give one of them"):
        start(tmp_path / "other", PERMUTED, methods)


@pytest.mark.parametrize(
    ("experiment", "short", "every"),
    [(PERMUTED, 25, 1), (PERMUTED, 30, 2), (REGRESSION, 25, 2), (TEXTURES, 25, 1)],
    ids=["part of a row", "a look", "both", "convolutional"],
)
def test_longer_run_is_the_one_that_was_never_shorter(tmp_path: Path, experiment: dict, short: int, every: int) -> None:
    """A row that is there only because the run ended is taken away again."""
    methods = {"backprop": METHODS["backprop"]}
    for name, lengths in (("whole", (41,)), ("grown", (short, 33, 41))):
        for steps in lengths:
            assert start(
                tmp_path / name, experiment, methods, steps=steps, row_steps=10, examine_every=every, examples=20
            )
        assert pd.read_csv(tmp_path / name / "metrics.csv")["step"].unique().tolist() == [10, 20, 30, 40, 41]
    assert (tmp_path / "whole/metrics.csv").read_bytes() == (tmp_path / "grown/metrics.csv").read_bytes()
    states = []
    for name in ("whole", "grown"):
        with Run.open(tmp_path / name, {"experiment": experiment}) as run:
            states.append(run.state)
    assert list(unequal(*states)) == []


def test_other_code_takes_no_steps_unless_asked_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    methods = {"backprop": METHODS["backprop"]}
    with monkeypatch.context() as patch:
        patch.setattr(Group, "code", "native, vectors of 32 bytes")
        start(tmp_path, REGRESSION, methods, steps=20, row_steps=10, fast=True)
    said = "taken by native, vectors of 32 bytes up to step 20, here they are taken by"
    for code in ("torch", "graph"):
        monkeypatch.setattr(Group, "code", code)
        with pytest.raises(RunError, match=f"{said} {code}, with other last digits: install what native"):
            start(tmp_path, REGRESSION, methods, steps=30, row_steps=10, fast=True)
    monkeypatch.setattr(Group, "code", "torch")
    with pytest.warns(UserWarning, match=f"{said} torch: the numbers differ in their last digits"):
        start(tmp_path, REGRESSION, methods, steps=30, row_steps=10)
    start(tmp_path, REGRESSION, methods, steps=40, row_steps=10)  # said once
    monkeypatch.setattr(Group, "code", "native, vectors of 64 bytes")
    with pytest.raises(RunError, match="experiment.fast=false goes on as before"):
        start(tmp_path, REGRESSION, methods, steps=50, row_steps=10, fast=True)
    with Run.open(tmp_path, {"experiment": REGRESSION}) as run:
        assert run.state is not None
        assert run.state["codes"] == [[0, ["native, vectors of 32 bytes"]], [20, ["torch"]]]


def test_other_vectors_of_the_same_code_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for steps, size in ((20, 32), (30, 64)):
        monkeypatch.setattr(Group, "code", f"native, vectors of {size} bytes")
        run = functools.partial(start, tmp_path, REGRESSION, {"a": METHODS["backprop"]}, steps=steps, fast=True)
        if steps == 20:
            run()
        else:
            with pytest.warns(
                UserWarning, match="taken by native, vectors of 32 bytes up to step 20, here .* 64 bytes"
            ):
                run()


def test_data_that_moved_is_known_again_and_other_data_is_refused(tmp_path: Path) -> None:
    for folder, seed in (("here", 0), ("moved", 0), ("others", 1)):
        write_mnist(tmp_path / folder, seed)

    def go_on(folder: str, tasks: int) -> None:
        stream = {"kind": "permuted", "data": "mnist", "root": str(tmp_path / folder)}
        experiment = {"stream": stream, "network": {"hidden": [4]}, "seeds": 1}
        with Run.open(tmp_path / "run", {"root": folder}, may_change=("root",), bar_position=None) as run:
            train(make_plans(experiment, {"backprop": METHODS["backprop"]}), run, tasks=tasks)

    go_on("here", 1)
    go_on("moved", 2)
    with pytest.raises(RunError, match="was begun with other images: let experiment.stream.root name"):
        go_on("others", 3)
    assert len(pd.read_csv(tmp_path / "run" / "metrics.csv")) == 2


def write_mnist(folder: Path, seed: int) -> None:
    folder.mkdir()
    images = np.random.default_rng(seed).integers(0, 256, (20, 784))
    rows = (",".join(map(str, [number % 10, *pixels])) for number, pixels in enumerate(images))
    (folder / "mnist_train.csv").write_text("\n".join(rows) + "\n")
