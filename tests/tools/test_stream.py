"""Streams from the command's configuration: every one builds, runs, and says what is wrong with it."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from continual_agents.runs import Run
from tests.supervised.test_data_mnist import write
from tools.command_line import compose_config, plain_config
from tools.overrides import RENAMED, renamed
from tools.stream import StreamJob, methods_of
from tools.train import MAY_CHANGE

STREAMS = ["permuted_digits", "slowly_changing_regression", "texture_pairs"]


def config(*words: str) -> dict:
    return plain_config(compose_config(["scale=smoke", *words]))


def run(settings: dict, folder: Path) -> pd.DataFrame:
    with Run.open(folder, settings, may_change=MAY_CHANGE, bar_position=None) as opened:
        StreamJob(settings).run(opened)
    return pd.read_csv(folder / "metrics.csv")


@pytest.mark.parametrize("name", STREAMS)
def test_every_stream_trains_at_smoke_scale_and_writes_a_row_per_run(name: str, tmp_path: Path) -> None:
    settings = config(f"experiment={name}")
    table = run(settings, tmp_path)
    runs = pd.read_csv(tmp_path / "runs.csv")
    experiment = settings["experiment"]
    assert list(runs["method"].unique()) == experiment["methods"]
    assert len(runs) == len(experiment["methods"]) * experiment["seeds"]
    assert set(table["run"]) == set(runs["run"])
    assert table["step"].max() == StreamJob(settings).steps
    measure = table[
        {"slowly_changing_regression": "squared_error", "texture_pairs": "test_accuracy"}.get(name, "accuracy")
    ]
    assert np.isfinite(measure).all()
    replaced = table.merge(runs, on="run").groupby("method")["surgery/replaced"].max()
    assert (replaced[[method for method in replaced.index if method.endswith("continual_backprop")]] > 0).all()


SWEEPS = {
    ("slowly_changing_regression", "activations"): "network.activation",
    ("permuted_digits", "step_sizes"): "optimizer.step_size",
    ("permuted_digits", "widths"): "network.hidden",
    ("permuted_digits", "change_rates"): "stream.change_every",
    ("permuted_digits", "replacement_rates"): "operations.continual_backprop.rate",
    ("permuted_digits", "births"): "operations.continual_backprop.birth",
    ("permuted_digits", "utilities"): "operations.continual_backprop.utility",
    ("permuted_mnist", "step_sizes"): "optimizer.step_size",
    ("permuted_mnist", "widths"): "network.hidden",
    ("permuted_mnist", "change_rates"): "stream.change_every",
    ("permuted_mnist", "replacement_rates"): "operations.continual_backprop.rate",
    ("texture_pairs", "step_sizes"): "optimizer.step_size",
    ("continual_imagenet", "step_sizes"): "optimizer.step_size",
}
"""Every experiment's sweeps and a parameter that each varies."""


@pytest.fixture(scope="module")
def mnist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 random images in the format of MNIST's files."""
    root, draws = tmp_path_factory.mktemp("mnist"), np.random.default_rng(0)
    write(root, draws.integers(0, 256, (300, 28, 28), np.uint8), np.arange(300) % 10)
    return root


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared array of the published number of classes, 30 random images each."""
    root = tmp_path_factory.mktemp("imagenet")
    pixels = np.random.default_rng(0).integers(0, 256, (1000, 30, 3, 32, 32), np.uint8)
    np.save(root / "imagenet32.npy", pixels)
    return root


def with_data(experiment: str, mnist: Path, imagenet: Path) -> list[str]:
    """The words that start an experiment at smoke scale, with made-up data where it needs files."""
    roots = {"mnist": mnist, "imagenet": imagenet}
    return [f"experiment={experiment}"] + [
        f"experiment.stream.root={root}" for name, root in roots.items() if name in experiment
    ]


@pytest.mark.parametrize(("experiment", "sweep"), SWEEPS)
def test_every_named_sweep_trains_at_smoke_scale(
    experiment: str, sweep: str, tmp_path: Path, mnist: Path, imagenet: Path
) -> None:
    key = SWEEPS[experiment, sweep]
    settings = config(*with_data(experiment, mnist, imagenet), f"sweep={sweep}")
    table = run(settings, tmp_path)
    runs = pd.read_csv(tmp_path / "runs.csv")
    values = settings["experiment"]["sweep"][key]
    words = {"x".join(map(str, value)) if isinstance(value, list) else str(value) for value in values}
    assert len(words) > 1
    assert set(runs[key].dropna().astype(str).str.removesuffix(".0")) == words
    assert list(runs["method"].unique()) == settings["experiment"]["methods"]
    assert set(table["run"]) == set(runs["run"])
    measure = next(name for name in ("test_accuracy", "accuracy", "squared_error") if name in table.columns)
    assert np.isfinite(table[measure]).all()


@pytest.mark.parametrize("experiment", ["permuted_mnist", "continual_imagenet"])
def test_streams_of_files_train_at_smoke_scale(experiment: str, tmp_path: Path, mnist: Path, imagenet: Path) -> None:
    settings = config(*with_data(experiment, mnist, imagenet))
    table = run(settings, tmp_path)
    assert len(pd.read_csv(tmp_path / "runs.csv")) == 2 * settings["experiment"]["seeds"]
    assert table["step"].max() == StreamJob(settings).steps


@pytest.mark.parametrize(
    "words",
    [*([f"experiment={name}"] for name in (*STREAMS, "permuted_mnist", "continual_imagenet"))]
    + [[f"experiment={name}", f"sweep={sweep}"] for name, sweep in SWEEPS],
    ids=" ".join,
)
@pytest.mark.parametrize("scale", ["smoke", "demo", "paper"])
def test_every_scale_composes(words: list[str], scale: str) -> None:
    settings = plain_config(compose_config([*words, f"scale={scale}"]))
    if len(words) == 1:  # a sweep has a name, and so a folder, of its own
        assert words == [f"experiment={settings['experiment']['name']}"]
    else:
        assert settings["experiment"]["name"] not in STREAMS
    assert list(methods_of(settings)) == settings["experiment"]["methods"]
    assert "swept" not in settings["experiment"]


def test_every_experiment_of_old_is_read_as_its_sweep() -> None:
    assert {new[:2] for new in RENAMED.values()} <= set(SWEEPS)
    for old, (experiment, sweep, *rest) in RENAMED.items():
        words = [f"experiment={experiment}", f"sweep={sweep}", *rest]
        with pytest.warns(UserWarning, match=f"experiment={old} is now written {' '.join(words)}"):
            assert renamed(["scale=demo", f"experiment={old}", "seed=3"]) == ["scale=demo", *words, "seed=3"]
    for old in ("digits_widths", "regression_sweep_adam"):
        with pytest.warns(UserWarning, match=old):
            settings = plain_config(compose_config([f"experiment={old}", "scale=demo"]))
        experiment, sweep, *rest = RENAMED[old]
        now = compose_config([f"experiment={experiment}", f"sweep={sweep}", *rest, "scale=demo"])
        assert settings == plain_config(now)
        assert settings["experiment"]["name"] == old  # so its run folder is the same


def test_a_sweep_takes_the_sizes_of_its_scale() -> None:
    """The published ranges (Dohare et al. 2021, 2024), and those of two cores."""

    def sweep(name: str, scale: str) -> dict:
        return plain_config(compose_config(["experiment=permuted_mnist", f"sweep={name}", f"scale={scale}"]))[
            "experiment"
        ]

    paper, demo = sweep("widths", "paper"), sweep("widths", "demo")
    assert paper["sweep"] == {"network.hidden": [[width] * 3 for width in (100, 1_000, 10_000)]}
    assert demo["sweep"] == {"network.hidden": [[width] * 3 for width in (30, 100, 300)]}
    assert (paper["tasks"], demo["tasks"]) == (150, 30)
    assert (paper["methods"], demo["methods"]) == (["backprop", "continual_backprop"],) * 2
    paper, demo = sweep("change_rates", "paper"), sweep("change_rates", "demo")
    assert paper["sweep"] == {"stream.change_every": [10_000, 100_000, 1_000_000]}
    assert (paper["tasks"], paper["steps"], demo["tasks"], demo["steps"]) == (None, 48_000_000, None, 300_000)


def test_published_sizes_of_the_streams() -> None:
    """Dohare et al. 2021 and 2024; the numbers of their public configurations."""
    mnist = plain_config(compose_config(["experiment=permuted_mnist", "scale=paper"]))
    experiment = mnist["experiment"]
    assert (experiment["seeds"], experiment["tasks"], experiment["network"]["hidden"]) == (30, 800, [2000] * 3)
    assert experiment["optimizer"] == {"kind": "sgd", "step_size": 0.003, "momentum": 0.0}
    assert mnist["method"]["of"]["l2"]["optimizer"]["weight_decay"] == 1e-4
    surgery = mnist["method"]["of"]["continual_backprop"]["operations"]["continual_backprop"]
    assert (surgery["rate"], surgery["maturity"], surgery["utility"]) == (1e-6, 100, "adaptable_contribution")
    imagenet = plain_config(compose_config(["experiment=continual_imagenet", "scale=paper"]))["experiment"]
    stream = imagenet["stream"]
    assert (imagenet["tasks"], stream["epochs"], 2 * stream["train_images"] // stream["batch"]) == (2000, 250, 12)
    assert (imagenet["optimizer"]["step_size"], imagenet["optimizer"]["momentum"]) == (0.01, 0.9)
    assert imagenet["replacement"]["rate"] == 3e-4
    regression = plain_config(compose_config(["experiment=slowly_changing_regression", "scale=paper"]))["experiment"]
    assert (regression["seeds"], regression["steps"], regression["row_steps"]) == (100, 1_000_000, 20_000)


def test_method_on_the_command_line_is_the_only_one_run() -> None:
    assert list(methods_of(config("experiment=permuted_digits", "method=redo"))) == ["redo"]
    assert list(methods_of(config("experiment=permuted_digits", "experiment.methods=[l2,fresh]"))) == ["l2", "fresh"]


def test_swept_settings_become_runs_of_their_own(tmp_path: Path) -> None:
    words = ("experiment=slowly_changing_regression", "experiment.methods=[backprop,linear]", "experiment.steps=1000")
    run(config(*words, "experiment.sweep={optimizer.step_size: [0.01, 0.003]}"), tmp_path)
    runs = pd.read_csv(tmp_path / "runs.csv")
    assert runs.groupby(["method", "optimizer.step_size"]).size().tolist() == [2, 2, 2, 2]


def test_a_finished_run_is_continued_when_more_tasks_are_asked_for(tmp_path: Path) -> None:
    words = ("experiment=permuted_digits", "experiment.methods=[backprop,continual_backprop]")
    whole = run(config(*words, "experiment.tasks=4"), tmp_path / "whole")
    run(config(*words, "experiment.tasks=2"), tmp_path / "parts")
    pd.testing.assert_frame_equal(run(config(*words, "experiment.tasks=4"), tmp_path / "parts"), whole)
