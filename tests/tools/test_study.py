"""A study: its choice by hand, its runs bit for bit, killed and continued, wrong files."""

import itertools
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from tests.helpers import begun, same_tables, wait_for_rows
from tools.study.__main__ import main
from tools.study.protocol import jobs, read_protocol
from tools.study.scores import scores
from tools.train import train_one

STEP_SIZE = "experiment.optimizer.step_size"
SMOKE = {
    "common": ["experiment=gymnasium", "scale=smoke", "experiment.steps=1024"],
    "methods": {"ppo": {STEP_SIZE: [1e-3, 3e-3]}, "redo": {STEP_SIZE: 1e-3}},
    "tuning": {"seeds": [100, 101]},
    "fresh": {"seeds": [0]},
    "criterion": "all_tasks",
}


def write(folder: Path, **changed: object) -> str:
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump({**SMOKE, **changed}))
    return str(path)


def study(*words: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(list(words))
    return caught.value.code


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed study."""
    folder = tmp_path_factory.mktemp("study")
    assert study(write(folder), "--folder", str(folder / "out"), "hydra.launcher.n_jobs=2") == 0
    return folder / "out"


def return_of(run: Path) -> float:
    """The score by hand: CartPole announces no task, so the last quarter of the only one is the run's."""
    episodes = pd.read_csv(run / "episodes.csv")
    last = episodes["step"].iloc[-1]
    return float(np.mean([row["return"] for _, row in episodes.iterrows() if row["step"] > 0.75 * last]))


def test_every_candidate_runs_on_every_tuning_seed_and_the_best_mean_is_frozen(whole: Path) -> None:
    table = pd.read_csv(whole / "tuning.csv")
    wanted = set(itertools.product([("ppo", 0), ("ppo", 1), ("redo", 0)], [100, 101]))
    pairs = zip(table["method"], table["candidate"], strict=True)
    assert set(zip(pairs, table["seed"], strict=True)) == wanted
    assert len(table) == len(wanted)
    frozen = yaml.safe_load((whole / "frozen.yaml").read_text())["methods"]
    by_hand = [
        np.mean([return_of(whole / f"tuning/ppo/candidate_{number}/seed_{seed}") for seed in (100, 101)])
        for number in (0, 1)
    ]
    assert frozen["ppo"]["candidate"] == np.argmax(by_hand)
    assert frozen["ppo"]["score"] == pytest.approx(max(by_hand))
    config = yaml.safe_load((whole / "fresh/ppo/seed_0/config.yaml").read_text())
    assert (config["seed"], config["experiment"]["optimizer"]["step_size"]) == (0, [1e-3, 3e-3][np.argmax(by_hand)])
    results = pd.read_csv(whole / "results.csv").set_index("method")["score"]
    for method in ("ppo", "redo"):
        assert results[method] == pytest.approx(return_of(whole / f"fresh/{method}/seed_0"))
    assert (whole / "figure.png").stat().st_size > 10_000
    assert set(pd.read_csv(whole / "table.csv")["setting"]) == {"PPO", "ReDo"}


def test_a_run_in_a_used_process_is_the_run_alone_bit_for_bit(whole: Path, tmp_path: Path) -> None:
    last = whole / pd.read_csv(whole / "tuning.csv")["folder"].iloc[-1]  # its process had trained others before
    config = yaml.safe_load((last / "config.yaml").read_text())
    assert train_one({**config, "folder": str(tmp_path / "alone")}) == 0
    same_tables(tmp_path / "alone", last)


def test_a_killed_study_goes_on_where_it_was(whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "out"
    words = [write(tmp_path), "--folder", str(folder), "hydra.launcher.n_jobs=1"]
    process, table = begun("tools.study", *words), folder / "tuning.csv"
    wait_for_rows(table, 2, process)
    process.kill()
    process.communicate()
    table.write_text(table.read_text() + "ppo,0,half a")
    done = [folder / name for name in pd.read_csv(table)["folder"][:2]]
    assert study(*words) == 0
    assert all(len(json.loads((run / "environment.json").read_text())) == 1 for run in done)  # begun once
    runs = sorted(path.parent.relative_to(whole) for path in whole.rglob("metrics.csv"))
    assert runs == sorted(path.parent.relative_to(folder) for path in folder.rglob("metrics.csv"))
    for run in runs:
        same_tables(folder / run, whole / run)
    same_tables(folder, whole, ("frozen.yaml",))
    capsys.readouterr()
    assert study(*words) == 0  # nothing is left: no process is started
    output = capsys.readouterr()
    assert "UNEQUAL: candidates of ppo 2, redo 1; x 2 seeds x 1,024 steps" in output.out
    assert output.err == ""


def test_a_folder_of_another_study_is_refused(whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert study(write(tmp_path, criterion="last_tasks"), "--folder", str(whole)) == 2
    assert capsys.readouterr().err == (
        f"error: {whole} holds a study with another criterion (see {whole}/protocol.yaml): give another --folder\n"
    )


def test_a_stream_runs_its_seeds_as_one_stack(tmp_path: Path) -> None:
    methods = {"backprop": {STEP_SIZE: [1e-3, 1e-2]}, "l2": {STEP_SIZE: 1e-2}}
    common = ["experiment=permuted_digits", "scale=smoke", "experiment.sweep=null"]
    tuning, fresh = {"seeds": [7, 6]}, {"seeds": [0, 1, 2]}
    path = write(tmp_path, methods=methods, common=common, tuning=tuning, fresh=fresh, criterion="last_tasks")
    folder = tmp_path / "out"
    assert study(path, "--folder", str(folder), "hydra.launcher.n_jobs=1") == 0
    table = pd.read_csv(folder / "tuning.csv")
    assert list(table.groupby("folder")["seed"].apply(list)) == [[6, 7]] * 3
    metrics = pd.read_csv(folder / "tuning/backprop/candidate_1/metrics.csv")
    last = metrics["task/index"].max()
    for run, seed in enumerate((6, 7)):
        mine = metrics[(metrics["run"] == run) & (metrics["task/index"] == last)]
        (score,) = table[(table["candidate"] == 1) & (table["seed"] == seed)]["score"]
        assert score == pytest.approx(mine["accuracy"].mean())
    frozen = yaml.safe_load((folder / "frozen.yaml").read_text())
    assert frozen["criterion"].startswith("highest")
    assert frozen["methods"]["backprop"]["candidate"] == 1  # ten times the step size learns more in these few steps


def test_numbers_that_are_not_finite_score_nan(tmp_path: Path) -> None:
    pd.DataFrame(
        {"step": [1, 1, 2, 2], "run": [0, 1, 0, 1], "task": [0, 0, 1, 1], "error": [1.0, 2.0, 3.0, np.nan]}
    ).to_csv(tmp_path / "metrics.csv", index=False)
    (tmp_path / "config.yaml").write_text("{experiment: {name: x}, method: {name: y}}")
    assert scores(tmp_path, "all_tasks")[0] == 2.0
    assert np.isnan(scores(tmp_path, "all_tasks")[1])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"seeds": [1]}, "seeds is unknown"),
        ({"tuning": {"seeds": []}}, "tuning.seeds=[]: at least one, none negative, none twice"),
        ({"fresh": {"seeds": [100]}}, "seed 100 is a tuning seed and a fresh one"),
        ({"criterion": "all_task"}, "criterion=all_task: did you mean 'all_tasks'?"),
        ({"methods": {"ppo": {"experiment.step": [1]}}}, "experiment.step: no such key"),
        ({"methods": {"pp": None}}, "method=pp: no such method; did you mean ppo?"),
        ({"methods": {"ppo": {STEP_SIZE: []}}}, f"methods.ppo.{STEP_SIZE}=[]: at least one value"),
        ({"methods": {"ppo": {STEP_SIZE: [-1.0]}}}, "-1.0"),
        ({"common": ["experiment=changing_cartpole"], "methods": {"ppo": {STEP_SIZE: [1e-3, 2e-3]}}},
         f"candidates 'method=ppo {STEP_SIZE}=0.001' and 'method=ppo {STEP_SIZE}=0.002' would be the same run"),
        ({"common": ["experiment=permuted_digits"], "methods": {"l2": None}, "fresh": {"seeds": [0, 2]}},
         "seeds=[0, 2]: the seeds of a stream run as one stack and must follow each other"),
    ],
)  # fmt: skip
def test_what_cannot_be_run_is_one_line_before_any_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changed: dict, message: str
) -> None:
    assert study(write(tmp_path, **changed), "--folder", str(tmp_path / "out")) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert not (tmp_path / "out").exists()


def test_budgets_that_differ_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    protocol = read_protocol(Path(write(tmp_path, methods={"ppo": {STEP_SIZE: [1e-3, 3e-3]}, "redo": None})))
    assert [one.settings for one in protocol.candidates] == [
        f"method=ppo {STEP_SIZE}=0.001", f"method=ppo {STEP_SIZE}=0.003", "method=redo",
    ]  # fmt: skip
    planned = jobs(protocol, "tuning", protocol.candidates)
    assert [job.seeds for job in planned] == [(100,)] * 3 + [(101,)] * 3
