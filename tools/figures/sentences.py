"""What a row of the table means, in one plain sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .table import number


def sentence(row: Mapping[str, Any]) -> str:
    """Does this setting lose plasticity, by which measure, by how much, and how sure is it?"""
    name, measure = row["setting"], str(row["measure"])
    name = name[0].upper() + name[1:]
    if row["verdict"] == "one task":
        return f"{name} has met a single task so far: nothing can be said about its plasticity."
    change = f"{number(row['first'])} on the first tasks to {number(row['last'])} on the last"
    low, high = number(row["change_low"]), number(row["change_high"])
    interval = f"change {number(row['change'])} [{low}, {high}], {row['n']} runs"
    network = _network(row)
    if row["verdict"] == "unknown":
        few = "one run is" if row["n"] == 1 else f"{row['n']} runs are"
        return f"{name}: {measure} goes from {change}; {few} too few to say whether that is more than chance{network}."
    says = {
        "loses": f"{name} loses plasticity",
        "keeps": f"{name} shows no loss of plasticity",
        "gains": f"{name} shows no loss of plasticity and gets better",
    }[row["verdict"]]
    return f"{says}: {measure} goes from {change} ({interval}){network}."


def _network(row: Mapping[str, Any]) -> str:
    parts = []
    if not np.isnan(row["dead_units"]):
        parts.append(f"{100 * row['dead_units']:.1f}% of its hidden units are dead at the end")
    if not np.isnan(row["effective_rank"]):
        parts.append(f"the effective rank is {number(row['effective_rank'])}")
    return f"; {' and '.join(parts)}" if parts else ""
