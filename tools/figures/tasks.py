"""One number per run and task, for agents and streams alike: what every comparison between methods starts from."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from .comparison import Comparison, compare
from .folders import RunFolder, flatten, is_setting, method_label
from .tidy import Stream, short_key, tidy, varied


@dataclasses.dataclass(frozen=True)
class TaskEnds:
    """How well each run did at the end of each task.

    Attributes:
        experiment: its name.
        measure: "return", "accuracy", "error", ...
        higher_is_better: False for errors.
        ends: a row per run, a column per task in order; mean over the last quarter of the task, nan where unknown.
        runs: a row per run: `setting`, `method`, `seed`, then every setting of its configuration.
        settings: labels in the order of the figures.
        world: columns of `runs` that say which tasks a run meets: runs of one seed that agree in them meet the same.
    """

    experiment: str
    measure: str
    higher_is_better: bool
    ends: pd.DataFrame
    runs: pd.DataFrame
    settings: list[str]
    world: list[str]

    @functools.cached_property
    def words(self) -> np.ndarray:
        """Everything in `runs` as text, `[runs, columns]`: a missing value is as good as another, unlike in pandas."""
        return self.runs.map(str).to_numpy(object)

    @functools.cached_property
    def seeds(self) -> np.ndarray:
        """Seed of each run; nan, which is like no other, where it has none."""
        return self.runs["seed"].to_numpy(object, na_value=np.nan)

    def of(self, setting: str) -> pd.DataFrame:
        """The rows of `ends` that belong to a setting."""
        return self.ends.loc[self.runs.index[self.runs["setting"] == setting]]


def task_ends(runs: list[RunFolder]) -> TaskEnds:
    """The ends of all tasks of the runs of one experiment.

    Raises:
        FolderError: a stream's metrics.csv has no known measure.
    """
    if runs[0].is_stream:
        return stream_task_ends(tidy(runs), stream_settings(runs))
    return agent_task_ends(compare(runs))


@functools.lru_cache(maxsize=1)  # as `compare`
def agent_task_ends(data: Comparison) -> TaskEnds:
    """Returns at the ends of tasks."""
    setting_of = data.metrics.groupby("replicate")["setting"].first()
    rows = [
        {"setting": setting_of[number], "method": method_label(run.method), "seed": run.config.get("seed")}
        | {key: value for key, value in flatten(run.config).items() if is_setting(key)}
        for number, run in enumerate(data.folders)
    ]
    runs = pd.DataFrame(rows)
    world = [key for key in runs.columns if key.startswith("experiment.environment.")]
    # a run in which no episode has ended yet keeps its row
    table = returns_at_task_ends(data.episodes).reindex(runs.index)
    return TaskEnds(data.experiment, data.measure, True, table, runs, data.settings, world)


def stream_task_ends(data: Stream, world: list[str]) -> TaskEnds:
    """Accuracies or errors at the ends of tasks: a task's last rows, or the one row that it has."""
    table = data.records[data.records["performance"].notna()]
    steps = table.groupby(["replicate", "task"])["step"]
    first, last, rows = steps.transform("min"), steps.transform("max"), steps.transform("size")
    span = (last - first) * rows / (rows - 1).clip(lower=1)  # rows lie at the ends of equal stretches
    # 1e-9: the row that ends three quarters of the task is not a late one, whatever the rounding
    late = table[table["step"] >= last - (span / 4 - 1e-9).clip(lower=0)]
    ends = late.pivot_table(index="replicate", columns="task", values="performance", aggfunc="mean")
    runs = data.runs.set_index("replicate")
    known = [key for key in world if key in runs.columns]
    ends = ends.reindex(runs.index)
    return TaskEnds(data.experiment, data.measure, data.higher_is_better, ends, runs, data.settings, known)


def returns_at_task_ends(episodes: pd.DataFrame) -> pd.DataFrame:
    """Mean return over the last quarter of each task's steps; a last task shorter than half the others is left out.

    Args:
        episodes: columns `replicate`, `step`, `performance`, `task`.

    Returns:
        A row per run, a column per task in order; nan for a task in whose last quarter no return is known.
    """
    groups = episodes.groupby(["replicate", "task"])
    ends = groups["step"].max().astype(float)
    starts = ends.groupby(level="replicate").shift(fill_value=0.0)
    place = groups.ngroup().to_numpy()
    late = episodes["step"].to_numpy() > (ends - (ends - starts) / 4).to_numpy()[place]
    means = episodes["performance"].where(late).groupby([episodes["replicate"], episodes["task"]]).mean()
    table, lengths = means.unstack(), (ends - starts).where(means.notna()).unstack().to_numpy()
    for run, known in enumerate(np.isfinite(lengths)):
        # -1 where no task is known: none came before it, so nothing is left out
        *before, last = np.flatnonzero(known) if known.any() else (-1,)
        if before and lengths[run, last] < 0.5 * np.median(lengths[run, before]):
            table.iloc[run, last] = np.nan
    return table.dropna(axis=1, how="all")


def whole(ends: pd.DataFrame) -> pd.DataFrame:
    """The runs that came as far as half of them did, and the tasks up to there.

    A run that is still on its way, or that diverged, neither hides what the others did nor counts with its first tasks.
    A task that a run skipped within a long episode is nan.
    """
    known = np.isfinite(ends.to_numpy(float))
    if not known.any():
        return ends.iloc[:0, :0]
    reach = np.where(known.any(1), known.shape[1] - np.argmax(known[:, ::-1], axis=1), 0)
    tasks = int(np.median(reach[reach > 0]))
    return ends.loc[reach >= tasks].iloc[:, :tasks]


def stream_settings(runs: list[RunFolder]) -> list[str]:
    """Short names of the settings in `experiment.stream`: they say which tasks a run meets."""
    keys: dict[str, None] = {}
    for run in runs:
        experiment: Any = run.config.get("experiment")
        group = experiment.get("stream") if isinstance(experiment, Mapping) else None
        if isinstance(group, Mapping):
            keys.update(dict.fromkeys(short_key(key) for key in flatten(group)))
    return [key for key in keys if key != "kind"]  # an optimizer has a kind too


def sweep_of_agents(runs: list[RunFolder]) -> Stream:
    """A sweep over settings of agents in the form that streams have, so that one figure draws both.

    Records are the ends of all tasks, `parameters` the settings that differ within a method.

    Args:
        runs: agents' runs of one experiment.
    """
    data = task_ends(runs)
    own = ["setting", "method", "seed"]
    # a method reads its experiment's constants: of one name, what counts is the method's, which is put last
    keys = sorted(data.runs.columns.difference(own, sort=False), key=lambda key: key.startswith("method."))
    table = data.runs[[*own, *keys]].rename(columns={key: short_key(key) for key in keys})
    table = table.loc[:, ~table.columns.duplicated(keep="last")].rename_axis("replicate").reset_index()
    table = table.map(lambda value: str(value) if isinstance(value, list) else value)
    parameters = varied(table)
    ends = data.ends.rename_axis(index="replicate", columns="task")
    records = ends.stack().rename("performance").reset_index()
    records["task"] += 1 - records["task"].min()  # people count tasks from 1
    records = records.merge(table[["replicate", *own[:2], *parameters]], on="replicate")
    return Stream(data.experiment, records, pd.DataFrame(table), data.settings, parameters, data.measure)
