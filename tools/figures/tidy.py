"""Records of supervised streams in long form: many runs in one folder, each with its own settings."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from continual_agents.plasticity.measures import shown

from .folders import FolderError, RunFolder, flatten, is_setting, method_label, preference, short

MEASURES = {"accuracy": True, "test_accuracy": True, "error": False, "squared_error": False, "loss": False}
"""What a stream is measured by, and whether higher is better; the first that metrics.csv has is used."""


@dataclasses.dataclass(frozen=True)
class Stream:
    """Runs of one stream in long form.

    Attributes:
        experiment: its name.
        records: metrics of all runs with `replicate`, `setting`, `method`, `task`, `performance` and one column for
            each of `parameters`.
        runs: one row per run: `replicate`, `method`, `setting`, `seed` and every setting by the last part of its name.
        settings: labels in the order of the figures.
        parameters: settings other than the method that differ among runs of a method, for instance `step_size`.
        measure: "accuracy", "error", ...
    """

    experiment: str
    records: pd.DataFrame
    runs: pd.DataFrame
    settings: list[str]
    parameters: list[str]
    measure: str

    @property
    def position(self) -> str:
        """What the x axis counts: "epoch" where there are epochs, "task" where every task has a row, else "step"."""
        if "epoch" in self.records.columns:
            return "epoch"
        tasks = self.records["task"]
        return "task" if tasks.nunique() == tasks.max() - tasks.min() + 1 else "step"

    @property
    def higher_is_better(self) -> bool:
        """True for accuracies and returns."""
        return MEASURES.get(self.measure, True)

    def replicates(self, setting: str) -> int:
        """Number of runs of a setting."""
        return int(self.records.loc[self.records["setting"] == setting, "replicate"].nunique())

    def best_settings(self) -> list[str]:
        """The setting of each method that does best on average over all tasks."""
        means = self.records.groupby(["method", "setting"], sort=False)["performance"].mean()
        means = means.fillna(-np.inf if self.higher_is_better else np.inf)  # diverged everywhere: worse than anything
        best = means.groupby("method").idxmax() if self.higher_is_better else means.groupby("method").idxmin()
        return [setting for setting in self.settings if setting in {pair[1] for pair in best}]


def tidy(runs: list[RunFolder]) -> Stream:
    """Put the runs of one stream into long form; `runs.csv` overrides config.yaml where both name a setting.

    Raises:
        FolderError: no column of metrics.csv is a known measure.
    """
    replicates = pd.DataFrame([row for folder, run in enumerate(runs) for row in _replicates(folder, run)])
    replicates["setting"] = _labels(replicates)
    parameters = varied(replicates)
    measure, column = _measure(runs[0])
    tables = []
    for folder, run in enumerate(runs):
        table = run.metrics.rename(columns={column: "performance", "task/index": "task"})
        tables.append(table.assign(folder=folder))
    records = pd.concat(tables, ignore_index=True)
    if "task" not in records.columns:
        records["task"] = records["step"].rank(method="dense")
    records["task"] += 1 - records["task"].min()  # people count tasks from 1
    own = ["folder", "run", "replicate", "method", "setting", *parameters]
    records = records.drop(columns=[name for name in own[2:] if name in records.columns])
    records = records.merge(replicates[own], on=["folder", "run"])
    settings = sorted(dict.fromkeys(replicates["setting"]), key=preference)
    return Stream(runs[0].experiment, records, replicates, settings, parameters, measure)


def panels(records: pd.DataFrame) -> dict[str, tuple[str, float]]:
    """Title and factor of each diagnostic that figures show, by its column, of those that the runs logged."""
    known = [row for row in shown("figure") if row.column in records.columns and records[row.column].notna().any()]
    return {row.column: (row.title, row.factor) for row in known}


def _replicates(folder: int, run: RunFolder) -> list[dict[str, Any]]:
    """One row per run of a stack: `folder`, `run`, `replicate`, `method` and its settings."""
    own = {} if run.runs is None else run.runs.set_index("run").to_dict("index")
    rows = []
    for number in sorted(run.metrics["run"].unique()):
        settings = {str(key): value for key, value in own.get(number, {}).items() if is_setting(str(key))}
        method = str(settings.pop("method", run.method))
        # a stack's config lists the swept values of all its runs; runs.csv says which one this run has
        config = {k: str(value) if isinstance(value, list) else value for k, value in _config_of(run, method).items()}
        row = {short_key(key): value for key, value in (config | settings).items()}
        row |= {"method": method_label(method), "folder": folder, "run": number, "replicate": f"{folder}:{number}"}
        row["seed"] = own.get(number, {}).get("seed", run.config.get("seed"))
        rows.append(row)
    return rows


def _config_of(run: RunFolder, method: str) -> dict[str, Any]:
    """Settings in config.yaml that hold for runs of `method`; a comparison has those of each method under `of`."""
    config = dict(run.config)
    compared = config.get("method")
    if isinstance(compared, Mapping) and method in compared.get("of", {}):
        config["method"] = compared["of"][method]
    return {key: value for key, value in flatten(config).items() if is_setting(key)}


def short_key(key: str) -> str:
    """Last part of a dotted key."""
    return key.rsplit(".", 1)[-1]


def _labels(replicates: pd.DataFrame) -> list[str]:
    """Method and whatever varies among its runs."""
    labels = {}
    for method, alike in replicates.groupby("method", sort=False):
        different = varied(alike)
        for index, row in alike.iterrows():
            labels[index] = ", ".join([str(method), *(f"{short(key)} {_text(row[key])}" for key in different)])
    return [labels[index] for index in replicates.index]


def varied(replicates: pd.DataFrame) -> list[str]:
    """Settings that differ within a method."""
    bookkeeping = {"method", "folder", "run", "replicate", "setting", "name", "seed"}
    groups = [alike for _, alike in replicates.groupby("method")]
    return [
        str(key)
        for key in replicates.columns
        if key not in bookkeeping and any(alike[key].astype(str).nunique() > 1 for alike in groups)
    ]


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _measure(run: RunFolder) -> tuple[str, str]:
    """Name of the measure and its column: `accuracy`, or grouped as `accuracy/online`, `task/accuracy`."""
    for measure in MEASURES:
        for column in run.metrics.columns:
            if measure in (column, *column.split("/")):
                return measure, column
    raise FolderError(
        f"{run.path}/metrics.csv has none of the columns {', '.join(MEASURES)}: its columns are "
        f"{', '.join(run.metrics.columns)}"
    )
