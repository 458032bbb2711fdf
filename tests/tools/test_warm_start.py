"""The warm start through the one command."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from tools.command_line import UsageError, compose_config, plain_config
from tools.train import build

ROOT = Path(__file__).resolve().parents[2]


def test_one_command_ends_with_table_and_figure(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tools.train", "experiment=warm_start", "scale=smoke", f"folder={tmp_path}"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=240)
    for label in ("warm start ", "from scratch", "warm start with shrink and perturb"):
        assert label in result.stdout
    assert (tmp_path / "figure.png").stat().st_size > 10_000
    runs = pd.read_csv(tmp_path / "runs.csv")
    assert runs.groupby("method").size().to_dict() == {"warm": 2, "cold": 2, "warm_shrink_and_perturb": 2}
    rows = pd.read_csv(tmp_path / "metrics.csv").merge(runs, on="run")
    assert rows.groupby("method")["test_accuracy"].count().to_dict() == {
        "warm": 14, "cold": 8, "warm_shrink_and_perturb": 14,
    }  # fmt: skip
    assert rows["train_accuracy"].dropna().between(0, 1).all()
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=240)
    assert "is finished" in again.stderr


def test_other_methods_are_refused() -> None:
    settings = plain_config(compose_config(["experiment=warm_start", "scale=smoke", "method=redo"]))
    with pytest.raises(UsageError, match="method=redo: warm start compares"):
        build(settings)
