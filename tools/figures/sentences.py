"""What a row of the table means, in plain sentences."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .table import alike, number

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "results"

TRENDS = {
    "loses": "gets worse with the tasks",
    "keeps": "is the same on the last tasks as on the first",
    "gains": "gets better with the tasks",
}


def conclusion(table: pd.DataFrame, folder: Path | str) -> str:
    """What a command ends with: which method has lost plasticity, which has not, by how much; where to read more."""
    lines = []
    for experiment, rows in table.groupby("experiment", sort=False):
        measured = rows[rows["plasticity"] != "reference"].to_dict("records")
        missing = {row["missing"] for row in measured if not row["pairs"] > 0}
        if len(missing) == 1 and not any(row["pairs"] > 0 for row in measured):  # the same of every method: said once
            lines.append(f"Unknown whether plasticity is lost: {missing.pop()}.")
            lines += [trend(row) for row in measured if row["verdict"] == "loses"]
        else:
            lines += [against_fresh(row) for row in measured]
        page = _page(str(experiment))
        lines.append(f"Read more: {f'{page}; ' if page else ''}python -m tools.report {folder}")
    return "\n".join(dict.fromkeys(lines)) + "\n"


def sentence(row: Mapping[str, Any]) -> str:
    """Does this setting lose plasticity, by which measure, by how much, how sure is it, and how is its network?"""
    return " ".join(part for part in (against_fresh(row), trend(row), _network(row)) if part)


def against_fresh(row: Mapping[str, Any]) -> str:
    """The difference from a fresh network, its interval, and what it says."""
    name = _name(row)
    if row["plasticity"] == "reference":
        return f"{name}: what the others are held against."
    if not row["pairs"] > 0:
        return f"{name}: unknown whether it has lost plasticity ({row['missing']})."
    measure = str(row["measure"]).replace("_", " ")
    article = "an" if measure[0] in "aeiou" else "a"
    side = "below" if row["minus_fresh"] < 0 else "above"
    ends = f"{name} ends tasks with {article} {measure}"
    if row["plasticity"] == "unknown":
        away = number(abs(row["minus_fresh"]))
        return f"{ends} {away} {side} a fresh network's ({row['missing']} to tell this from chance)."
    away, low, high = alike(row["minus_fresh"], row["minus_fresh_low"], row["minus_fresh_high"])
    what = f"{ends} {away.lstrip('-')} {side} a fresh network's"
    says = {
        "lost": "it has lost plasticity",
        "slower": "so it does the first task: it learns less, no loss of plasticity is shown",
        "above": "no loss of plasticity is shown, it gains from what it learned before",
        "level": "no loss of plasticity is shown",
    }[row["plasticity"]]
    tasks = f"{row['tasks_after_first']:.0f} task{'s' if row['tasks_after_first'] > 1 else ''} after the first"
    # runs without a fresh partner, unfinished or diverged ones are left out
    seeds = f"{row['pairs']:.0f} seeds" if row["pairs"] == row["runs"] else f"{row['pairs']:.0f} of {row['runs']} seeds"
    if row["plasticity"] == "level" and row["tasks_worse_low"] > 0.5:
        share = f"{row['tasks_worse']:.0%} [{100 * row['tasks_worse_low']:.0f}, {100 * row['tasks_worse_high']:.0f}]"
        says = (
            f"a mean that single tasks rule shows no loss, but {share} of its tasks end worse than the fresh network's"
        )
    # a mean over all tasks hides a loss that comes late
    late = ""
    if row["plasticity"] not in ("lost", "slower") and row["verdict"] == "loses":
        change = alike(row["change"], row["change_low"], row["change_high"])
        late = f"; but it gets worse from the first tasks to the last, by {change[0]} [{change[1]}, {change[2]}]"
    return f"{what} [{low}, {high}] ({seeds}, {tasks}): {says}{late}."


def trend(row: Mapping[str, Any]) -> str:
    """First tasks against last tasks."""
    name, measure = _name(row), str(row["measure"]).replace("_", " ")
    if row["verdict"] == "one task":
        return f"{name} has met a single task so far: nothing can be said about a trend."
    change = f"from {number(row['first'])} on the first tasks to {number(row['last'])} on the last"
    if row["verdict"] == "harder":
        return ""
    if row["verdict"] == "unknown":
        few = "one run" if row["n"] == 1 else f"{row['n']} runs"
        return f"{name} goes {change} in {measure} ({few}: at least 5 needed to tell this from chance)."
    low, high = number(row["change_low"]), number(row["change_high"])
    interval = f"change {number(row['change'])} [{low}, {high}], {row['n']} runs"
    return f"{name} {TRENDS[row['verdict']]}: {measure} goes {change} ({interval})."


def _name(row: Mapping[str, Any]) -> str:
    name = str(row["setting"])
    return name[0].upper() + name[1:]


def _network(row: Mapping[str, Any]) -> str:
    parts = []
    if not np.isnan(row["dead_units"]):
        parts.append(f"{100 * row['dead_units']:.1f}% of its hidden units are dead at the end")
    if not np.isnan(row["effective_rank"]):
        parts.append(f"the effective rank is {number(row['effective_rank'])}")
    text = " and ".join(parts)
    return f"{text[0].upper()}{text[1:]}." if text else ""


def _page(experiment: str) -> str:
    """The page of results in docs/ that tells about this experiment, if there is one."""
    for path in sorted(RESULTS.glob("*.md")):
        if path.stem == experiment or f"experiment={experiment}" in path.read_text(encoding="utf-8"):
            return str(path.relative_to(RESULTS.parents[1]))
    return ""
