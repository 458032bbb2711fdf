"""The printed table: what each setting reached on its first and last tasks, and the state of its network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from continual_agents import plasticity
from continual_agents.plasticity.measures import shown

from .agent import compare
from .estimates import estimate_one
from .folders import RunFolder
from .tidy import task_table, tidy

DIAGNOSTICS = tuple(measure.name for measure in shown("table"))
"""Columns `plasticity/...` whose last values are reported."""

COLUMNS = (
    "experiment", "setting", "n", "measure", "tasks", "first", "first_low", "first_high", "last", "last_low",
    "last_high", "change", "change_low", "change_high", "verdict", "overall", "overall_low", "overall_high",
    *DIAGNOSTICS,
)  # fmt: skip


def agent_rows(runs: list[RunFolder]) -> list[dict[str, Any]]:
    """Rows of reinforcement learning runs of one experiment: return at the end of the first and of the last task."""
    data = compare(runs)
    rows = []
    for setting in data.settings:
        episodes = data.episodes[data.episodes["setting"] == setting]
        ends = [returns_at_task_ends(one) for _, one in episodes.groupby("replicate", sort=False)]
        # a run that is still on its way does not hide what the others did
        tasks = int(np.median([len(one) for one in ends]))
        performance = np.array([one[:tasks] for one in ends if len(one) >= tasks])
        rows.append(
            {"experiment": data.experiment, "setting": setting, "measure": "return at the task's end", "tasks": tasks}
            | _ends(performance, higher_is_better=True)
            | _overall(performance)
            | _diagnostics(data.metrics[data.metrics["setting"] == setting])
        )
    return rows


def returns_at_task_ends(episodes: pd.DataFrame) -> list[float]:
    """Mean return over the last quarter of each task's steps; a last task shorter than half the others is left out.

    Args:
        episodes: one run, columns `step`, `performance`, `task`.
    """
    known = episodes[episodes["performance"].notna()]
    start, means, lengths = 0.0, [], []
    for _, task in known.groupby("task"):
        end = float(task["step"].max())
        means.append(float(task.loc[task["step"] > end - (end - start) / 4, "performance"].mean()))
        lengths.append(end - start)
        start = end
    if len(lengths) > 1 and lengths[-1] < 0.5 * float(np.median(lengths[:-1])):
        means.pop()
    return means


def stream_rows(runs: list[RunFolder]) -> list[dict[str, Any]]:
    """Rows of streams of one experiment: mean accuracy or error over the first and the last tenth of the tasks."""
    data = tidy(runs)
    rows = []
    for setting in data.settings:
        one = data.records[data.records["setting"] == setting]
        performance = task_table(one)
        rows.append(
            {"experiment": data.experiment, "setting": setting, "measure": data.measure, "tasks": performance.shape[1]}
            | _ends(performance, higher_is_better=data.higher_is_better)
            | _diagnostics(one)
        )
    return rows


def make_table(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Rows as a table with fixed columns."""
    return pd.DataFrame(rows, columns=list(COLUMNS))


def readable(table: pd.DataFrame) -> str:
    """The table for people, as Markdown."""
    columns = readable_columns(table)
    return markdown(list(columns), list(zip(*columns.values(), strict=True)))


def readable_columns(table: pd.DataFrame) -> dict[str, list[str]]:
    """The table's columns as text: intervals in brackets, three digits."""
    return {
        "experiment": [str(name) for name in table["experiment"]],
        "method": [str(name) for name in table["setting"]],
        "n": [str(n) for n in table["n"]],
        "first task": _intervals(table, "first"),
        "last task": _intervals(table, "last"),
        "change": _intervals(table, "change"),
        **({"all tasks, IQM": _intervals(table, "overall")} if table["overall"].notna().any() else {}),
        "plasticity": [str(verdict) for verdict in table["verdict"]],
        "dead units": [_percent(value) for value in table["dead_units"]],
        "rank": [number(value) for value in table["effective_rank"]],
    }


def markdown(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of text as Markdown, columns aligned so that it reads well in a terminal too."""
    cells = [list(headings), *map(list, rows)]
    widths = [max(len(row[k]) for row in cells) for k in range(len(headings))]
    padded = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in cells]
    lines = [f"| {' | '.join(row)} |" for row in padded]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines) + "\n"


def _ends(performance: np.ndarray, *, higher_is_better: bool) -> dict[str, Any]:
    """First against last tasks of `[runs, tasks]`, tenths of them averaged, as columns of the table."""
    whole = performance[np.isfinite(performance).all(axis=1)]
    result: dict[str, Any] = {"n": len(whole)}
    if len(whole) == 0 or whole.shape[1] < 2:
        for part in ("first", "last") if len(whole) and whole.shape[1] else ():
            result[part], result[f"{part}_low"], result[f"{part}_high"] = estimate_one(whole.mean(axis=1))
        return result | {"verdict": "one task"}
    tenth = max(1, whole.shape[1] // 10)
    index = plasticity.plasticity_index(torch.from_numpy(whole), ends=tenth, higher_is_better=higher_is_better)
    for part in ("first", "last", "change"):
        value, low, high = (float(number) for number in getattr(index, part))
        result |= {part: value, f"{part}_low": low, f"{part}_high": high}
    return result | {"verdict": index.verdict}


def _overall(performance: np.ndarray) -> dict[str, float]:
    """Interquartile mean over all runs and tasks with a stratified bootstrap, as rliable does it (Agarwal et al. 2021).

    The tasks are the strata: runs are drawn anew within each task.

    Args:
        performance: `[runs, tasks]`.
    """
    whole = performance[np.isfinite(performance).all(axis=1)]
    if len(whole) < 2:
        value = float(plasticity.interquartile_mean(torch.from_numpy(whole.reshape(-1, 1)))) if whole.size else np.nan
        return {"overall": value, "overall_low": np.nan, "overall_high": np.nan}
    strata = np.tile(np.arange(whole.shape[1]), len(whole)).tolist()
    scores = torch.from_numpy(whole.ravel())
    found = plasticity.bootstrap(scores, plasticity.interquartile_mean, strata=strata)
    return {"overall": float(found.value), "overall_low": float(found.low), "overall_high": float(found.high)}


def _diagnostics(metrics: pd.DataFrame) -> dict[str, float]:
    """Last known value of each diagnostic, averaged over runs."""
    result = {}
    for name in DIAGNOSTICS:
        column = f"plasticity/{name}"
        known = metrics[metrics[column].notna()] if column in metrics.columns else metrics.iloc[:0]
        last = known.groupby("replicate").tail(1)
        result[name] = float(last[column].mean()) if len(last) else np.nan
    return result


def interval(value: float, low: float, high: float, *, ends_only: bool = False) -> str:
    """A number with its interval, "12.3 [11, 14]", or the interval alone; without one, the number or nothing."""
    if np.isnan(low):
        return "" if ends_only else number(value)
    ends = f"[{number(low)}, {number(high)}]"
    return ends if ends_only else f"{number(value)} {ends}"


def number(value: float) -> str:
    """Three digits, whole numbers from 100 on."""
    if np.isnan(value):
        return "-"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _intervals(table: pd.DataFrame, part: str) -> list[str]:
    parts = zip(table[part], table[f"{part}_low"], table[f"{part}_high"], strict=True)
    return [interval(value, low, high) for value, low, high in parts]


def _percent(value: float) -> str:
    return "-" if np.isnan(value) else f"{100 * value:.1f}%"
