"""Reinforcement learning runs of one experiment in long form."""

from __future__ import annotations

import dataclasses
import functools

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
    episodes, metrics = [], []
    for number, (run, label) in enumerate(zip(runs, labels, strict=True)):
        mark = {"setting": label, "replicate": number}
        metrics.append(run.metrics.assign(**mark))
        episodes.append(_episodes(run).assign(**mark))
    settings = sorted(dict.fromkeys(labels), key=_preference)
    measure = "return"
    if not any(one["performance"].notna().any() for one in episodes) and all("reward/mean" in m for m in metrics):
        # no episode has ended anywhere: a continuing task is judged by its reward
        measure = "reward per step"
        episodes = [
            _episodes(run, reward=True).assign(**{key: one[key].iloc[0] for key in ("setting", "replicate")})
            for run, one in zip(runs, metrics, strict=True)
        ]
    return Comparison(runs[0].experiment, pd.concat(episodes), pd.concat(metrics), settings, runs, measure)


def _episodes(run: RunFolder, reward: bool = False) -> pd.DataFrame:
    if run.episodes is not None and not reward:
        table = run.episodes.rename(columns={"return": "performance"})
    else:
        measure = "reward/mean" if reward else "return/mean"
        names = {measure: "performance", "task/friction": "friction", "task/index": "task"}
        table = run.metrics.rename(columns=names)
    for column, default in (("task", 0), ("friction", np.nan), ("performance", np.nan)):
        if column not in table.columns:
            table = table.assign(**{column: default})
    table = table.assign(task=table["task"].fillna(0))  # an environment that announces no task has one
    return table[["step", "performance", "task", "friction"]]


def _preference(label: str) -> tuple[int, str]:
    return preference(label), label
