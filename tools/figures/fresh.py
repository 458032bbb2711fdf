"""A method beside a fresh network, and any two methods beside each other: paired differences with intervals over seeds.

A method has lost plasticity where it ends a task worse than a fresh network that had the same task and the same steps.
Both meet the same tasks where they share a seed, so the difference is taken run by run and task by task; the first task
is left out, because there every network is fresh. That task tells a loss from a method that learns less to begin with:
who is as far behind in the first task as later has lost nothing.
"""

import dataclasses

import numpy as np
import pandas as pd
from scipy.special import stdtrit  # scipy.stats.t.ppf, without the half second that loading scipy.stats takes

from .folders import method_label
from .tasks import TaskEnds, whole
from .tidy import MEASURES

FRESH = method_label("fresh")
"""What the method `fresh` is called: a new network and optimizer at every change of the task."""

ENOUGH = 3
"""Seeds from which on an interval is given."""


@dataclasses.dataclass(frozen=True)
class Difference:
    """A setting minus the reference, at the ends of the tasks after the first.

    Attributes:
        value: mean over tasks, then over seeds; nan without any pair.
        low: lower end of the 95% t-interval over seeds, nan below `ENOUGH` of them.
        high: its upper end.
        n: pairs of runs that share a seed and their tasks, and that came as far as half of the pairs did.
        tasks: tasks after the first that the pairs have.
        missing: "", or what an answer needs.
        verdict: "lost", "above", "level" or "unknown": whether the interval lies below, above or around the reference;
            "slower" where it lies below, as it does in the first task, and is not told to have grown since.
        worse: share of the tasks that end worse than the reference's, mean over seeds, which no single task can rule.
        worse_low: lower end of its 95% t-interval over seeds.
        worse_high: its upper end.
    """

    value: float
    low: float
    high: float
    n: int
    tasks: int
    missing: str
    verdict: str
    worse: float = np.nan
    worse_low: float = np.nan
    worse_high: float = np.nan


def difference(data: TaskEnds, setting: str, reference: str = FRESH) -> Difference:
    """`setting` minus the method `reference`, paired by seed.

    Where the reference was run with several settings, a run's partner is the one that agrees with it in most of them.
    """
    own = data.of(setting)
    others = np.flatnonzero((data.runs["method"] == reference).to_numpy())
    partners = {name: _partners(data, name, others) for name in own.index} if len(others) else {}
    pairs = pd.DataFrame(
        {name: own.loc[name] - data.ends.loc[other].mean() for name, other in partners.items() if other}
    ).T
    if pairs.empty:
        return Difference(np.nan, np.nan, np.nan, 0, 0, _missing_runs(data, reference), "unknown")
    began = data.ends.columns[0]
    later = whole(pairs.drop(columns=began))
    values = later.mean(axis=1).to_numpy(float)
    n, tasks = len(values), later.shape[1]
    if n == 0:
        return Difference(np.nan, np.nan, np.nan, 0, 0, "one task so far: it has to change", "unknown")
    low, high = t_interval(values)
    missing = "" if n >= ENOUGH else f"{'one seed' if n == 1 else f'{n} seeds'}: at least {ENOUGH} needed"
    better = data.higher_is_better
    verdict = _verdict(low, high, higher_is_better=better)
    if verdict == "lost":
        at_first = pairs.loc[later.index, began].to_numpy(float)
        ahead, since = (
            _verdict(*t_interval(change), higher_is_better=better) for change in (at_first, values - at_first)
        )
        if ahead == "lost" and since != "lost":
            verdict = "slower"
    shares = ((later < 0) if better else (later > 0)).mean(axis=1).to_numpy(float)
    worse = map(float, (shares.mean(), *np.clip(t_interval(shares), 0.0, 1.0)))
    return Difference(float(values.mean()), low, high, n, tasks, missing, verdict, *worse)


def t_interval(values: np.ndarray, confidence: float = 0.95) -> tuple[float, float]:
    """Student's interval of the mean, nan below `ENOUGH` values; right for few seeds, unlike a bootstrap."""
    if len(values) < ENOUGH:
        return np.nan, np.nan
    half = stdtrit(len(values) - 1, (1 + confidence) / 2) * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean() - half), float(values.mean() + half)


def _partners(data: TaskEnds, name: object, others: np.ndarray) -> list[object]:
    """Which of `others`, places of runs, have this run's seed and tasks; of several, the nearest in settings."""
    words, place = data.words, data.runs.index.get_loc(name)
    alike = data.seeds[others] == data.seeds[place]
    for column in [data.runs.columns.get_loc(key) for key in data.world]:
        alike &= words[others, column] == words[place, column]
    candidates = others[alike]
    if not len(candidates):
        return []
    shared = (words[candidates] == words[place]).sum(axis=1)
    return list(data.runs.index[candidates[shared == shared.max()]])


def _missing_runs(data: TaskEnds, reference: str) -> str:
    """Why there is not a single pair."""
    if (data.runs["method"] == reference).any():
        return f"no run of {reference} has the same seed and tasks"
    if reference != FRESH:
        return f"no run of {reference}"
    return f"no fresh runs: add {'fresh to experiment.methods' if data.measure in MEASURES else 'method=fresh'}"


def _verdict(low: float, high: float, *, higher_is_better: bool) -> str:
    if np.isnan(low):
        return "unknown"
    if not higher_is_better:
        low, high = -high, -low
    return "lost" if high < 0 else "above" if low > 0 else "level"
