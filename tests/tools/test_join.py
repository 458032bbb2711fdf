"""Shards of a stream, joined: the bytes of the unsplit stack."""

from pathlib import Path

import pandas as pd
import pytest

from continual_agents.runs import RunError
from tests.helpers import ended, same_tables
from tools.figures.folders import read_folder
from tools.join import JoinError, join, main
from tools.train import jobs, train_one

DIGITS = ["experiment=permuted_digits", "scale=smoke", "experiment.tasks=2", "progress=false"]
METHODS = ["backprop", "continual_backprop", "layer_norm"]


def trained(folder: Path, *words: str, methods: list[str] = METHODS[:2]) -> Path:
    names = f"experiment.methods=[{','.join(methods)}]"
    assert train_one(jobs([*DIGITS, names, f"folder={folder}", *words])[0], quiet=True) == 0
    return folder


def test_shards_of_seeds_and_methods_join_to_the_bytes_of_the_unsplit_stack(tmp_path: Path) -> None:
    sweep = "experiment.sweep={optimizer.step_size: [0.01, 0.003]}"
    whole = trained(tmp_path / "whole", "seed=3", "experiment.seeds=3", sweep, methods=METHODS)
    shards = [
        trained(tmp_path / "a", "seed=3", "experiment.seeds=2", sweep),
        trained(tmp_path / "b", "seed=5", "experiment.seeds=1", sweep),
        trained(tmp_path / "c", "seed=3", "experiment.seeds=3", sweep, methods=METHODS[2:]),
    ]
    joined = join(shards, tmp_path / "joined")
    same_tables(joined, whole, ("metrics.csv", "runs.csv"))
    assert len(pd.read_csv(joined / "metrics.csv")) == 2 * 3 * 2 * 3
    one, other = read_folder(joined).config, read_folder(whole).config
    del one["joined"]
    assert one | {"folder": ""} == other | {"folder": ""}
    join(shards, joined)  # again, as the shards grow
    main([*map(str, shards), "--output", str(joined)])
    with pytest.raises(RunError, match="another configuration .joined"):  # it is not continued: it has no checkpoint
        trained(joined, "seed=3", "experiment.seeds=3", sweep, methods=METHODS)
    with pytest.raises(JoinError, match="whole holds a run: give a new --output"):
        join(shards, whole)
    with pytest.raises(JoinError, match="backprop, 0.01 with seed 5 is in none of the folders"):
        join([shards[0], shards[2]], tmp_path / "new")
    with pytest.raises(JoinError, match=r"backprop with seed 3 is in .*/a and in .*/whole"):
        join([shards[0], whole], tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_folders_that_are_no_shards(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = trained(tmp_path / "one", "experiment.seeds=1")
    (tmp_path / "agent").mkdir()
    (tmp_path / "agent/config.yaml").write_text("experiment: {kind: agent}\nseed: 0\n")
    for folders, said in (
        ([one, tmp_path], f"{tmp_path} is not a run folder: it has no config.yaml"),
        ([tmp_path / "agent"], f"{tmp_path}/agent is not the run of a stream: only stacks of runs have shards"),
        ([one, one], f"backprop with seed 0 is in {one} and in {one}"),
    ):
        assert ended(capsys, main, *folders, "--output", tmp_path / "new") == f"error: {said}\n"
