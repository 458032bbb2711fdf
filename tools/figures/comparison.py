"""Reinforcement learning runs of one experiment in long form."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd

from .folders import RunFolder, preference, setting_labels


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Runs of one experiment in long form.

    Attributes:
        episodes: columns `setting`, `replicate`, `step`, `performance`, `task`, `friction`; one row per episode, or per
            row of metrics.csv where there is no episodes.csv.
        metrics: the rows of all metrics.csv with `setting` and `replicate`.
        settings: labels, continual backprop first.
        folders: the run folders; a replicate is a place in this list.
    """

    experiment: str
    episodes: pd.DataFrame
    metrics: pd.DataFrame
    settings: list[str]
    folders: list[RunFolder]

    def replicates(self, setting: str) -> int:
        """Number of runs of a setting."""
        return int(self.metrics.loc[self.metrics["setting"] == setting, "replicate"].nunique())


def compare(runs: list[RunFolder]) -> Comparison:
    """Put runs of one experiment into long form. One folder is one replicate; what the labels say makes a setting."""
    labels = setting_labels(runs)
    episodes, metrics = [], []
    for number, (run, label) in enumerate(zip(runs, labels, strict=True)):
        mark = {"setting": label, "replicate": number}
        metrics.append(run.metrics.assign(**mark))
        episodes.append(_episodes(run).assign(**mark))
    settings = sorted(dict.fromkeys(labels), key=_preference)
    return Comparison(runs[0].experiment, pd.concat(episodes), pd.concat(metrics), settings, runs)


def _episodes(run: RunFolder) -> pd.DataFrame:
    if run.episodes is not None:
        table = run.episodes.rename(columns={"return": "performance"})
    else:
        names = {"return/mean": "performance", "task/friction": "friction", "task/index": "task"}
        table = run.metrics.rename(columns=names)
    for column, default in (("task", 0), ("friction", np.nan), ("performance", np.nan)):
        if column not in table.columns:
            table = table.assign(**{column: default})
    table = table.assign(task=table["task"].fillna(0))  # an environment that announces no task has one
    return table[["step", "performance", "task", "friction"]]


def _preference(label: str) -> tuple[int, str]:
    return preference(label), label
