"""The figures of supervised streams: performance per task with the network's plasticity below, and sweeps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from .estimates import binned, estimate, nice_width
from .style import WIDTH, draw_curve, label_ends, looks, save, style, thousands
from .tidy import Stream

BINS = 50
"""Most bins over all tasks."""

MOST_LINES = 7
"""With more settings than this, the main figure shows each method's best one; the sweep figure has the rest."""

COLUMNS = 3
"""Panels side by side in the sweep figure."""

PANELS = {
    "plasticity/dead_units": ("dead units (%)", 100.0),
    "plasticity/weight_magnitude": ("mean |weight|", 1.0),
    "plasticity/effective_rank": ("effective rank", 1.0),
}


def plot_stream(data: Stream, path: Path) -> Path:
    """Performance per task with 95% intervals over runs; dead units, weight magnitude and rank below."""
    with style():
        return save(stream_figure(data), path)


def stream_figure(data: Stream) -> Figure:
    """One wide panel of performance, and one small panel for each of `PANELS` that was logged."""
    settings = data.settings if len(data.settings) <= MOST_LINES else data.best_settings()[:MOST_LINES]
    panels = {column: text for column, text in PANELS.items() if _has(data.records, column)}
    figure = Figure(figsize=(WIDTH, 4.3 if panels else 2.6))
    top = figure.add_subplot(
        figure.add_gridspec(1, 1, left=0.11, right=0.72, top=0.94, bottom=0.52 if panels else 0.17)[0]
    )
    width = _curves(top, data, settings, "performance", counts=True)
    statistic = "single runs" if max(map(data.replicates, settings)) == 1 else "mean and 95% interval"
    bins = f", bins of {width:g} tasks" if width > 1 else ""
    top.set_title(f"{data.measure.replace('_', ' ')} per task, {statistic}{bins}", loc="left")
    top.set_xlabel("task")
    if panels:
        _small_panels(figure, data, settings, panels)
    return figure


def plot_sweep(data: Stream, path: Path) -> Path:
    """For each varied parameter: a panel of curves per value, and one of the last tasks against the value.

    Methods keep their colours across panels; the other parameters are averaged over.
    """
    with style():
        return save(sweep_figure(data), path)


def sweep_figure(data: Stream) -> Figure:
    """The panels of `plot_sweep`."""
    methods = list(dict.fromkeys(data.records["method"]))
    values = {name: sorted(data.records[name].dropna().unique()) for name in data.parameters}
    rows = [-(-(len(known) + 1) // COLUMNS) for known in values.values()]
    height = 1.75 * sum(rows) + 0.2
    figure = Figure(figsize=(WIDTH, height))
    figure.subplots_adjust(left=0.1, right=0.78, top=1 - 0.3 / height, bottom=0.5 / height)
    grid = figure.add_gridspec(sum(rows), COLUMNS, hspace=0.8, wspace=0.14)
    row = 0
    for (name, known), taken in zip(values.items(), rows, strict=True):
        cells = [grid[row + k // COLUMNS, k % COLUMNS] for k in range(len(known) + 1)]
        _sweep(figure, cells, data, name, known, methods)
        row += taken
    return figure


def _sweep(figure: Figure, cells: list, data: Stream, name: str, values: list[float], methods: list[str]) -> None:
    look, edges = looks(methods), _edges(data.records)
    first: Axes | None = None
    for number, (cell, value) in enumerate(zip(cells, values, strict=False)):
        axes = figure.add_subplot(cell, sharey=first)
        first = first or axes
        chosen = data.records[data.records[name] == value]
        for method in dict.fromkeys(chosen["method"]):
            one = chosen[chosen["method"] == method]
            curve = estimate(binned(one, "performance", position="task", edges=edges))
            draw_curve(axes, (edges[:-1] + edges[1:]) / 2, curve, look[method])
        axes.set_title(f"{name.replace('_', ' ')} {value:g}", loc="left")
        axes.set_xlabel("task")
        axes.tick_params(labelleft=number % COLUMNS == 0)
        if number % COLUMNS == 0:
            axes.set_ylabel(data.measure.replace("_", " "))
    last = figure.add_subplot(cells[-1], sharey=first)
    last.tick_params(labelleft=len(values) % COLUMNS == 0)
    _sensitivity(last, data, name, values, methods)


def _sensitivity(axes: Axes, data: Stream, name: str, values: list[float], methods: list[str]) -> None:
    """Mean over the last tenth of the tasks against the parameter, with intervals."""
    look = looks(methods)
    tasks = data.records["task"]
    late = data.records[tasks > tasks.max() - max(1, (tasks.max() - tasks.min() + 1) // 10)]
    ends = {}
    for method in methods:
        means = late[late["method"] == method].groupby([name, "replicate"])["performance"].mean()
        known = [value for value in values if value in means.index.get_level_values(0)]
        if not known:
            continue
        estimates = [estimate(means.loc[value].to_numpy(float)[:, None]) for value in known]
        middle, low, high = (np.array([one[part][0] for one in estimates]) for part in range(3))
        spans = np.nan_to_num(np.stack([middle - low, high - middle]))
        axes.errorbar(known, middle, yerr=np.abs(spans), marker="o", markersize=3, capsize=2, **look[method])
        ends[method] = (float(middle[-1]), look[method]["color"])
    if min(values) > 0 and max(values) / min(values) >= 5:
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(values, [f"{value:g}" for value in values], size=6.5)
    axes.set_title("last tasks", loc="left")
    axes.set_xlabel(name.replace("_", " "))
    label_ends(axes, ends, size=7)


def _small_panels(figure: Figure, data: Stream, settings: list[str], panels: dict[str, tuple[str, float]]) -> None:
    grid = figure.add_gridspec(1, len(panels), top=0.32, bottom=0.1, left=0.11, right=0.98, wspace=0.38)
    for number, (column, (title, factor)) in enumerate(panels.items()):
        axes = figure.add_subplot(grid[number])
        _curves(axes, data, settings, column, factor=factor)
        axes.set_title(title, loc="left")
        axes.set_xlabel("task")
        axes.set_ylim(bottom=0)


def _curves(
    axes: Axes, data: Stream, settings: list[str], column: str, *, factor: float = 1.0, counts: bool = False
) -> float:
    """Draw a curve per setting, with labels and numbers of runs if `counts`; return the width of the bins."""
    look = looks(settings)
    edges = _edges(data.records)
    ends = {}
    for setting in settings:
        records = data.records[data.records["setting"] == setting]
        curve = estimate(factor * binned(records, column, position="task", edges=edges))
        draw_curve(axes, (edges[:-1] + edges[1:]) / 2, curve, look[setting])
        known = curve[0][np.isfinite(curve[0])]
        label = f"{setting.replace(', ', chr(10), 1)} (n={data.replicates(setting)})"
        ends[label] = (float(known[-1]) if known.size else np.nan, look[setting]["color"])
    axes.set_xlim(edges[0], edges[-1])
    axes.xaxis.set_major_formatter(thousands)
    if counts:
        label_ends(axes, ends)
    return float(edges[1] - edges[0])


def _edges(records: pd.DataFrame) -> np.ndarray:
    """Edges of the bins over tasks: a bin holds the whole tasks after its left edge up to its right edge."""
    first, last = float(records["task"].min()), float(records["task"].max())
    width = max(1.0, nice_width(last - first + 1, BINS))
    return np.arange(first - 1, last + width, width)


def _has(records: pd.DataFrame, column: str) -> bool:
    return column in records.columns and bool(records[column].notna().any())
