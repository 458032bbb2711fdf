"""The printed table: how far each setting is from a fresh network, its first and last tasks, its network's state."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from continual_agents import plasticity
from continual_agents.plasticity.measures import shown

from .comparison import compare
from .estimates import estimate_one
from .folders import RunFolder
from .fresh import FRESH, difference
from .tasks import agent_task_ends, stream_settings, stream_task_ends, whole
from .tidy import tidy

DIAGNOSTICS = tuple(measure.name for measure in shown("table"))
"""Columns `plasticity/...` whose last values are reported."""

COLUMNS = (
    "experiment", "setting", "n", "minus_fresh", "minus_fresh_low", "minus_fresh_high", "pairs", "tasks_after_first",
    "tasks_worse", "tasks_worse_low", "tasks_worse_high", "plasticity", "missing", "measure", "higher_is_better",
    "tasks", "first", "first_low", "first_high", "last", "last_low", "last_high", "change", "change_low", "change_high",
    "verdict", "runs", "overall", "overall_low",
    "overall_high", *DIAGNOSTICS,
)  # fmt: skip

HARDER = "task/classes"
"""A stream's column; where it changes, tasks get harder, and first against last tasks says nothing of the network."""

PLASTICITY = {
    "lost": "lost", "slower": "slower at once", "above": "above fresh", "level": "no loss shown", "unknown": "unknown",
}  # fmt: skip
"""What the table says of a setting whose interval lies below, above or around a fresh network."""

TRENDS = {
    "loses": "worse", "keeps": "same", "gains": "better", "unknown": "unknown", "one task": "one task",
    "harder": "harder tasks",
}  # fmt: skip
"""What the table says of the change from first to last tasks."""


def rows_of(runs: list[RunFolder]) -> list[dict[str, Any]]:
    """The table's rows about the runs of one experiment, a row per setting.

    Raises:
        FolderError: a stream's metrics.csv has no known measure.
    """
    if runs[0].is_stream:
        stream = tidy(runs)
        data, records = stream_task_ends(stream, stream_settings(runs)), stream.records
    else:
        comparison = compare(runs)
        data, records = agent_task_ends(comparison), comparison.metrics
    rows = []
    for setting in data.settings:
        ends, against = data.of(setting), difference(data, setting)
        performance = whole(ends)
        reference = setting.split(", ")[0] == FRESH
        row: dict[str, Any] = {
            "experiment": data.experiment, "setting": setting, "measure": data.measure,
            "higher_is_better": data.higher_is_better, "tasks": performance.shape[1],
            "runs": len(ends), "plasticity": "reference" if reference else against.verdict,
            "missing": "" if reference else against.missing,
        }  # fmt: skip
        if not reference:
            row |= {"minus_fresh": against.value, "minus_fresh_low": against.low, "minus_fresh_high": against.high}
            row |= {"pairs": against.n, "tasks_after_first": against.tasks, "tasks_worse": against.worse}
            row |= {"tasks_worse_low": against.worse_low, "tasks_worse_high": against.worse_high}
        whole_runs = performance.dropna(axis=1).to_numpy(float)
        row |= _ends(whole_runs, higher_is_better=data.higher_is_better) | _overall(whole_runs)
        if HARDER in records.columns and records[HARDER].nunique() > 1:
            row["verdict"] = "harder"
        rows.append(row | _diagnostics(records[records["setting"] == setting]))
    return rows


def make_table(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Rows as a table with fixed columns."""
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype({"missing": "string"})


def readable(table: pd.DataFrame) -> str:
    """The table for people, as Markdown."""
    columns = readable_columns(table)
    if len(set(columns["experiment"])) == 1:  # nothing to tell apart by it
        del columns["experiment"]
    return markdown(list(columns), list(zip(*columns.values(), strict=True)))


def legend(table: pd.DataFrame) -> str:
    """Lines that say what the columns of `readable` are."""
    measure = " or ".join(dict.fromkeys(table["measure"].str.replace("_", " ")))
    overall = "; IQM: interquartile mean over runs and tasks" if table["overall"].notna().any() else ""
    return (
        f"minus fresh: {measure} in the last quarter of a task, minus a fresh network's with the same seed and task; "
        "mean over the tasks after the first, 95% t-interval over seeds\n"
        "tasks worse: share of those tasks that end worse than the fresh network's, 95% t-interval over seeds\n"
        f"first, last task: mean over runs (a tenth of the tasks), bootstrapped 95% interval{overall}; "
        "dead units and effective rank: at the end\n"
    )


def readable_columns(table: pd.DataFrame) -> dict[str, list[str]]:
    """The table's columns as text: intervals in brackets, three digits."""
    return {
        "experiment": [str(name) for name in table["experiment"]],
        "method": [str(name) for name in table["setting"]],
        "n": [str(n) for n in table["n"]],
        "minus fresh": [_against_fresh(row) for row in table.to_dict("records")],
        "plasticity": [PLASTICITY.get(word, word) for word in table["plasticity"]],
        "tasks worse": [_share(row) for row in table.to_dict("records")],
        "first task": _intervals(table, "first"),
        "last task": _intervals(table, "last"),
        "change": _intervals(table, "change"),
        "first to last": [TRENDS[verdict] for verdict in table["verdict"]],
        **({"all tasks, IQM": _intervals(table, "overall")} if table["overall"].notna().any() else {}),
        "dead units": ["-" if np.isnan(value) else f"{value:.1%}" for value in table["dead_units"]],
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
    result: dict[str, Any] = {"n": len(performance)}
    if len(performance) == 0 or performance.shape[1] < 2:
        for part in ("first", "last") if performance.size else ():
            result[part], result[f"{part}_low"], result[f"{part}_high"] = estimate_one(performance.mean(axis=1))
        return result | {"verdict": "one task"}
    tenth = max(1, performance.shape[1] // 10)
    index = plasticity.plasticity_index(torch.tensor(performance), ends=tenth, higher_is_better=higher_is_better)
    for part in ("first", "last", "change"):
        value, low, high = (float(number) for number in getattr(index, part))
        result |= {part: value, f"{part}_low": low, f"{part}_high": high}
    return result | {"verdict": index.verdict}


def _overall(performance: np.ndarray) -> dict[str, float]:
    """Interquartile mean over all runs and tasks with a stratified bootstrap, as rliable does it (Agarwal et al. 2021).

    The tasks are the strata: runs are drawn anew within each task.

    Args:
        performance: `[runs, tasks]`, finite.
    """
    if len(performance) < 2 or not performance.size:
        flat = torch.tensor(performance.reshape(-1, 1))
        value = float(plasticity.interquartile_mean(flat)) if performance.size else np.nan
        return {"overall": value, "overall_low": np.nan, "overall_high": np.nan}
    strata = np.tile(np.arange(performance.shape[1]), len(performance)).tolist()
    scores = torch.tensor(performance.ravel())
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
    """A number with its interval, "12.3 [11.0, 14.1]", or the interval alone; without one, the number or nothing."""
    if np.isnan(low):
        return "" if ends_only else number(value)
    middle, *ends = alike(value, low, high)
    text = f"[{ends[0]}, {ends[1]}]"
    return text if ends_only else f"{middle} {text}"


def alike(*values: float) -> list[str]:
    """Numbers that belong together: three digits of the largest, as many decimals for all."""
    largest = max(map(abs, values))
    if not 1e-4 <= largest < np.inf:
        return [number(value) for value in values]
    decimals = max(0, 2 - int(np.floor(np.log10(largest))))
    return [f"{round(value, decimals) + 0.0:.{decimals}f}" for value in values]  # + 0.0: no "-0"


def number(value: float) -> str:
    """Three digits, whole numbers from 100 on."""
    if np.isnan(value):
        return "-"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _share(row: Mapping[str, Any]) -> str:
    if np.isnan(row["tasks_worse"]):
        return "-"
    if np.isnan(row["tasks_worse_low"]):
        return f"{row['tasks_worse']:.0%}"
    return f"{row['tasks_worse']:.0%} [{100 * row['tasks_worse_low']:.0f}, {100 * row['tasks_worse_high']:.0f}]"


def _against_fresh(row: dict[str, Any]) -> str:
    if np.isnan(row["minus_fresh"]):
        return "-"
    pairs = "" if row["pairs"] == row["n"] else f" ({row['pairs']:.0f} pairs)"
    return interval(row["minus_fresh"], row["minus_fresh_low"], row["minus_fresh_high"]) + pairs


def _intervals(table: pd.DataFrame, part: str) -> list[str]:
    parts = zip(table[part], table[f"{part}_low"], table[f"{part}_high"], strict=True)
    return [interval(value, low, high) for value, low, high in parts]
