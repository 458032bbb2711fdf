"""Every method minus every other one, paired by seed and task."""

from __future__ import annotations

from .fresh import difference
from .table import interval
from .tasks import TaskEnds

MOST = 8
"""Methods that are a column each; with more of them, the last in the figures' order, the fresh network among them."""


def paired_table(data: TaskEnds) -> tuple[list[str], list[list[str]]]:
    """Headings and rows: a row per setting, a column per method that it is held against, "mean [interval] (pairs)".

    Without two methods there are no rows.
    """
    methods = list(dict.fromkeys(setting.split(", ")[0] for setting in data.settings))
    if len(methods) < 2:
        return [], []
    references = methods[::-1][:MOST]  # the fresh network is the last one
    rows = [[setting, *(_cell(data, setting, reference) for reference in references)] for setting in data.settings]
    return ["method", *(f"minus {reference}" for reference in references)], rows


def _cell(data: TaskEnds, setting: str, reference: str) -> str:
    if setting.split(", ")[0] == reference:
        return ""
    found = difference(data, setting, reference)
    if not found.n:
        return found.missing
    return f"{interval(found.value, found.low, found.high)} ({found.n})"
