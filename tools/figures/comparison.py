"""Reinforcement learning runs of one experiment in long form."""

import dataclasses
import functools
import itertools
from collections.abc import Sequence

import numpy as np
import pandas as pd

from .folders import RunFolder, preference, setting_labels


@dataclasses.dataclass(frozen=True, eq=False)
class Comparison:
    """Runs of one experiment in long form.

    Attributes:
        episodes: columns `setting`, `replicate`, `step`, `performance`, `task`, `friction`; one row per episode, or per
            row of metrics.csv where there is no episodes.csv.
        metrics: the rows of all metrics.csv with `setting` and `replicate`.
        settings: labels, continual backprop first.
        folders: the run folders; a replicate is a place in this list.
        measure: what `performance` is: the return of an episode, or the reward per step where no episode ends.
    """

    experiment: str
    episodes: pd.DataFrame
    metrics: pd.DataFrame
    settings: list[str]
    folders: list[RunFolder]
    measure: str = "return"

    def replicates(self, setting: str) -> int:
        """Number of runs of a setting."""
        return int(self.metrics.loc[self.metrics["setting"] == setting, "replicate"].nunique())


def compare(runs: list[RunFolder]) -> Comparison:
    """Put runs of one experiment into long form. One folder is one replicate; what the labels say makes a setting."""
    return _compare(tuple(runs))


@functools.lru_cache(maxsize=1)  # figure, sweep and table ask for the same runs, which may be a thousand
def _compare(given: tuple[RunFolder, ...]) -> Comparison:
    runs = list(given)
    labels = setting_labels(runs)
    metrics = _marked([run.metrics for run in runs], range(len(runs)), labels)
    episodes = _episodes(runs, labels, metrics)
    measure = "return"
    if not episodes["performance"].notna().any() and all("reward/mean" in run.metrics for run in runs):
        # no episode has ended anywhere: a continuing task is judged by its reward
        measure, episodes = "reward per step", _performance(metrics, "reward/mean")
    settings = sorted(dict.fromkeys(labels), key=lambda label: (preference(label), label))
    return Comparison(runs[0].experiment, episodes, metrics, settings, runs, measure)


def _episodes(runs: list[RunFolder], labels: list[str], metrics: pd.DataFrame) -> pd.DataFrame:
    """One row per episode; of runs without episodes.csv, one per row of metrics.csv."""
    parts = []
    for own, group in itertools.groupby(range(len(runs)), lambda number: runs[number].episodes is not None):
        numbers = list(group)
        if own:
            tables = [table for number in numbers if (table := runs[number].episodes) is not None]
            parts.append(_performance(_marked(tables, numbers, labels), "return"))
        else:
            parts.append(_performance(metrics[metrics["replicate"].isin(numbers)], "return/mean"))
    return pd.concat(parts)


def _marked(tables: list[pd.DataFrame], numbers: Sequence[int], labels: list[str]) -> pd.DataFrame:
    """Tables of runs one below the other, with their settings and numbers."""
    lengths = [len(table) for table in tables]
    settings = pd.Series([labels[number] for number in numbers]).repeat(lengths).array
    return pd.concat(tables).assign(setting=settings, replicate=np.repeat(numbers, lengths))


def _performance(table: pd.DataFrame, measure: str) -> pd.DataFrame:
    """The columns of `Comparison.episodes`, `performance` from the column `measure`."""
    table = table.rename(columns={measure: "performance", "task/friction": "friction", "task/index": "task"})
    missing = {"task": 0, "friction": np.nan, "performance": np.nan}
    table = table.assign(**{column: value for column, value in missing.items() if column not in table.columns})
    table = table.assign(task=table["task"].fillna(0))  # an environment that announces no task has one
    return table[["step", "performance", "task", "friction", "setting", "replicate"]]
