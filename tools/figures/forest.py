"""Many methods at once: a row each, sorted by their distance to a fresh network, with the network's state beside it.

With more methods than colours can tell apart, curves and their labels cover each other; a row per method does not.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from continual_agents.plasticity.measures import shown

from .folders import RunFolder
from .style import COLOURS, GREY, WIDTH
from .table import rows_of

LOOKS: dict[str, dict[str, Any]] = {
    "lost": {"color": COLOURS[1], "marker": "v"},
    "slower": {"color": GREY, "marker": "v"},
    "above": {"color": COLOURS[2], "marker": "^"},
    "level": {"color": GREY, "marker": "o"},
    "unknown": {"color": GREY, "marker": "x"},
    "reference": {"color": GREY, "marker": "|"},
}
"""Colour and marker by the table's verdict: the marker says it without the colour."""

ROW = 0.2
"""Height of a method's row, inches."""


MANY = 10
"""From so many methods on, curves are given up."""


def best_rows(runs: list[RunFolder], best: Sequence[str]) -> list[dict[str, Any]]:
    """The table's rows of the best setting of every method, or none if curves can still be told apart."""
    if len(best) < MANY:
        return []
    return [row for row in rows_of(runs) if row["setting"] in best]


def forest_figure(rows: Sequence[dict[str, Any]]) -> Figure:
    """Distance to a fresh network with its interval, and the diagnostics that figures show, a row per method.

    Args:
        rows: of one experiment, as `table.rows_of` gives them. Where none of them has a fresh network to be held
            against, the mean over the last tasks stands in the first panel.
    """
    paired = any(np.isfinite(row.get("minus_fresh", np.nan)) for row in rows)
    key = "minus_fresh" if paired else "last"
    higher = bool(rows[0]["higher_is_better"])
    rows = sorted(rows, key=lambda row: _place(row, key, higher))
    panels = [
        (measure.name, measure.title, measure.factor)
        for measure in shown("figure")
        if any(np.isfinite(row.get(measure.name, np.nan)) for row in rows)
    ]
    height = ROW * len(rows) + 1.0
    figure = Figure(figsize=(WIDTH + 1.0, height))
    grid = figure.add_gridspec(
        1, 1 + len(panels), width_ratios=[2.6, *[1.0] * len(panels)], wspace=0.14,
        left=0.27, right=0.98, top=1 - 0.3 / height, bottom=0.5 / height,
    )  # fmt: skip
    first = figure.add_subplot(grid[0])
    _intervals(first, rows, key)
    measure = str(rows[0]["measure"]).replace("_", " ")
    runs = sorted({int(row["n"]) for row in rows})
    n = str(runs[0]) if len(runs) == 1 else f"{runs[0]} to {runs[-1]}"
    first.set_title(f"{measure}{', minus fresh network' if paired else ' in the last tasks'}", loc="left", size=8)
    first.set_xlabel(f"mean and 95% interval, n = {n}", size=8)
    for place, (name, title, factor) in enumerate(panels, start=1):
        axes = figure.add_subplot(grid[place], sharey=first)
        values = [factor * row.get(name, np.nan) for row in rows]
        axes.barh(range(len(rows)), values, height=0.55, color=[_look(row)["color"] for row in rows], alpha=0.45)
        axes.set_title(title, loc="left", size=8)
        axes.set_xlabel("at the end", size=8)
        axes.tick_params(labelleft=False, left=False)
        axes.locator_params(axis="x", nbins=3)
    return figure


def _intervals(axes: Axes, rows: Sequence[dict[str, Any]], key: str) -> None:
    if key == "minus_fresh":
        axes.axvline(0, color=GREY, linewidth=0.8)
    for place, row in enumerate(rows):
        value = 0.0 if row["plasticity"] == "reference" and key == "minus_fresh" else row.get(key, np.nan)
        low, high = row.get(f"{key}_low", np.nan), row.get(f"{key}_high", np.nan)
        look = _look(row)
        axes.plot([low, high], [place, place], color=look["color"], linewidth=1.6)
        axes.plot([value], [place], markersize=5, linestyle="none", **look)
    axes.set_yticks(range(len(rows)), [str(row["setting"]) for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)


def _look(row: dict[str, Any]) -> dict[str, Any]:
    return LOOKS.get(str(row["plasticity"]), LOOKS["unknown"])


def _place(row: dict[str, Any], key: str, higher: bool) -> float:
    """Best first; the fresh network where a distance of 0 is, unknown ones last."""
    value = 0.0 if row["plasticity"] == "reference" and key == "minus_fresh" else row.get(key, np.nan)
    return np.inf if np.isnan(value) else -value if higher else value
