"""Every row of every run as one long table, for other programs: CSV or Parquet."""

import importlib.util
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from continual_agents.runs.checkpoint import write_atomically, write_bytes
from tools.text import cell

from .comparison import compare
from .folders import FolderError, RunFolder
from .tidy import tidy

KINDS = (".csv", ".parquet")


def check_records(path: Path) -> None:
    """Whether `write_records` can write a file of this name.

    Raises:
        FolderError: another kind, or a package that is missing.
    """
    if path.suffix not in KINDS:
        raise FolderError(f"{path}: the name must end in {' or '.join(KINDS)}")
    if path.suffix == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise FolderError(f"{path} needs the package pyarrow: pip install --constraint constraints.txt pyarrow")


def write_records(experiments: Mapping[str, list[RunFolder]], path: Path) -> Path:
    """Write the rows of every metrics.csv, one below the other.

    The columns are `experiment`, `method`, `setting` (the method and whatever varies), `folder`, `seed`, `step`, then
    those of metrics.csv; nan where a run does not have one.

    Raises:
        FolderError: as `check_records`.
    """
    check_records(path)
    table = pd.concat([_records(name, runs) for name, runs in experiments.items()], ignore_index=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".csv":
        write_bytes(path, table.map(cell).to_csv(index=False).encode())
    else:
        write_atomically(path, lambda file: table.to_parquet(file, index=False))
    return path


def _records(name: str, runs: list[RunFolder]) -> pd.DataFrame:
    if runs[0].is_stream:
        data = tidy(runs)
        table = data.records.copy()
        table["seed"] = [_seed(runs[folder], run) for folder, run in zip(table["folder"], table["run"], strict=True)]
        table["folder"] = [str(runs[number].path) for number in table["folder"]]
    else:
        comparison = compare(runs)
        table = comparison.metrics.assign(
            method=comparison.metrics["setting"].str.split(", ").str[0],
            folder=[str(runs[number].path) for number in comparison.metrics["replicate"]],
            seed=[runs[number].config.get("seed") for number in comparison.metrics["replicate"]],
        )
    first = ["experiment", "method", "setting", "folder", "seed", "step"]
    table = table.assign(experiment=name).drop(columns="replicate")
    return table[[*first, *(column for column in table.columns if column not in first)]]


def _seed(folder: RunFolder, run: int) -> int | None:
    """Seed of one run of a stack."""
    if folder.runs is not None and "seed" in folder.runs.columns:
        return int(folder.runs.loc[folder.runs["run"] == run, "seed"].iloc[0])
    return folder.config.get("seed")
