"""The figures of supervised streams: performance per task with the network's plasticity below, and sweeps."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from .estimates import binned, estimate, nice_width
from .folders import RunFolder, short
from .forest import best_rows, forest_figure
from .fresh import difference
from .style import WIDTH, draw_curve, label_ends, looks, save, style, thousands
from .task_panel import with_difference
from .tasks import TaskEnds, task_ends
from .tidy import Stream, panels, tidy

BINS = 50
"""Most bins over all tasks."""

MOST_LINES = 7
"""With more settings than this, the main figure shows each method's best one; the sweep figure has the rest."""

AXES = {"task": "task", "step": "example", "epoch": "epoch"}
"""What the x axis is called."""

FEW = 20
"""With fewer tasks or rows than this, a sweep is judged by all of them after the first: a tenth is a single one."""

COLUMNS = 3
"""Panels side by side in the sweep figure."""

MOST_VALUES = 11
"""Values of the varied parameter that have a panel each, and a mark on the axis of the last one."""


def plot_stream(runs: list[RunFolder], path: Path) -> Path:
    """Performance per task with 95% intervals over runs, diagnostics below; a row per method where they are many."""
    data = tidy(runs)
    with style():
        many = best_rows(runs, data.best_settings())
        return save(forest_figure(many) if many else stream_figure(data, task_ends(runs)), path)


def stream_figure(data: Stream, ends: TaskEnds) -> Figure:
    """A wide panel of performance beside a fresh network's, a small one per logged diagnostic that figures show."""
    settings = data.settings if len(data.settings) <= MOST_LINES else data.best_settings()
    small = panels(data.records)
    figure = Figure(figsize=(WIDTH, 4.3 if small else 2.6))
    top = figure.add_subplot(
        figure.add_gridspec(1, 1, left=0.11, right=0.72, top=0.94, bottom=0.52 if small else 0.17)[0]
    )
    width = _curves(top, data, settings, "performance", ends=ends)
    statistic = "single runs" if max(map(data.replicates, settings)) == 1 else "mean and 95% interval"
    bins = f", bins of {thousands(width)} {AXES[data.position]}s" if width > 1 else ""
    top.set_title(f"{data.measure.replace('_', ' ')}, {statistic}{bins}", loc="left")
    top.set_xlabel(AXES[data.position])
    if small:
        _small_panels(figure, data, settings, small)
    return figure


def plot_sweep(data: Stream, path: Path) -> Path:
    """A panel of curves per value of the varied parameter, and one of the last tenth of the stream against the value.

    Where several parameters vary, each combination of the others has such a block of panels. Methods without the
    parameter (plain backprop has no replacement rate) are in every panel. Of more than `MOST_VALUES` values, so many
    have a panel, evenly chosen; the last panel has them all.
    """
    with style():
        return save(sweep_figure(data), path)


def sweep_figure(data: Stream) -> Figure:
    """The panels of `plot_sweep`: a block of them for each combination of the parameters that are not on the x axis."""
    name, others = _main_parameter(data)
    blocks: list[tuple[str, pd.DataFrame]] = [("", data.records)]
    if others:
        blocks = []
        for key, _ in data.records.groupby(others, sort=True):
            one = data.records
            for parameter, value in zip(others, key, strict=True):
                one = _with(one, parameter, value)
            blocks.append((", ".join(f"{short(k)} {v}" for k, v in zip(others, key, strict=True)), one))
    values = [_ordered(one[name]) for _, one in blocks]
    rows = [-(-(min(len(known), MOST_VALUES) + 1) // COLUMNS) for known in values]
    height = 1.75 * sum(rows) + 0.2
    figure = Figure(figsize=(WIDTH, height))
    figure.subplots_adjust(left=0.1, right=0.78, top=1 - 0.3 / height, bottom=0.5 / height)
    grid = figure.add_gridspec(sum(rows), COLUMNS, hspace=0.8, wspace=0.14)
    row = 0
    for (title, records), known, taken in zip(blocks, values, rows, strict=True):
        cells = [grid[row + k // COLUMNS, k % COLUMNS] for k in range(min(len(known), MOST_VALUES) + 1)]
        _sweep(figure, cells, data, records, name, known, title)
        row += taken
    return figure


def _sweep(
    figure: Figure, cells: list, data: Stream, records: pd.DataFrame, name: str, values: list, title: str
) -> None:  # fmt: skip
    methods = list(dict.fromkeys(data.records["method"]))
    look, edges = looks(methods), _edges(data)
    first: Axes | None = None
    drawn = _some(values)
    for number, (cell, value) in enumerate(zip(cells, drawn, strict=False)):
        axes = figure.add_subplot(cell, sharey=first)
        first = first or axes
        chosen = _with(records, name, value)
        for method in dict.fromkeys(chosen["method"]):
            one = chosen[chosen["method"] == method]
            curve = estimate(binned(one, "performance", position=data.position, edges=edges))
            draw_curve(axes, _centres(data, edges), curve, look[method])
        text = f"{short(name)} {_text(value)}"
        crowded: Any = {"size": 7.5} if len(text) > 18 else {}  # neighbours' titles must not touch
        axes.set_title(f"{title}\n{text}" if title and number == 0 else text, loc="left", **crowded)
        axes.set_xlabel(AXES[data.position])
        axes.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True))
        axes.xaxis.set_major_formatter(thousands)
        axes.tick_params(labelleft=number % COLUMNS == 0)
        if number % COLUMNS == 0:
            axes.set_ylabel(data.measure.replace("_", " "))
    last = figure.add_subplot(cells[-1], sharey=first)
    last.tick_params(labelleft=len(drawn) % COLUMNS == 0)
    _sensitivity(last, data, records, name, values)


def _some(values: list) -> list:
    """At most `MOST_VALUES` of them: the ends and evenly chosen ones between."""
    places = np.linspace(0, len(values) - 1, min(len(values), MOST_VALUES)).round().astype(int)
    return [values[place] for place in places]


def _with(records: pd.DataFrame, name: str, value: Any) -> pd.DataFrame:
    """Records of the runs whose parameter has this value, and of those that have no such parameter."""
    return records[(records[name] == value) | records[name].isna()]


def _sensitivity(axes: Axes, data: Stream, records: pd.DataFrame, name: str, values: list) -> None:
    """Mean over the late part of the stream against the parameter, with intervals."""
    methods = list(dict.fromkeys(data.records["method"]))
    look, ends = looks(methods), {}
    numeric = all(isinstance(value, int | float) for value in values)
    places = values if numeric else list(range(len(values)))
    title, start = _late(data)
    late = records[records[data.position] > start]
    for method in methods:
        own = late[late["method"] == method]
        if len(own) and own[name].isna().all():
            middle, low, high = estimate(own.groupby("replicate")["performance"].mean().to_numpy(float)[:, None])
            axes.axhline(middle[0], **look[method])
            axes.axhspan(low[0], high[0], color=look[method]["color"], alpha=0.18, linewidth=0)
            ends[method] = (float(middle[0]), look[method]["color"])
            continue
        means = own.groupby([name, "replicate"])["performance"].mean()
        known = [k for k, value in enumerate(values) if value in means.index.get_level_values(0)]
        if not known:
            continue
        estimates = [estimate(means.loc[values[k]].to_numpy(float)[:, None]) for k in known]
        middle, low, high = (np.array([one[part][0] for one in estimates]) for part in range(3))
        spans = np.abs(np.nan_to_num(np.stack([middle - low, high - middle])))
        at = [places[k] for k in known]
        axes.errorbar(at, middle, yerr=spans, marker="o", markersize=3, capsize=2, **look[method])
        ends[method] = (float(middle[-1]), look[method]["color"])
    if numeric and min(values) > 0 and max(values) / min(values) >= 5:
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
    crowded: Any = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if len(values) > 3 else {}
    if len(values) <= MOST_VALUES or not numeric:  # else marks of our own would cover each other
        ticks = _some(list(zip(places, map(_text, values), strict=True)))
        axes.set_xticks([place for place, _ in ticks], [text for _, text in ticks], size=6.5, **crowded)
    axes.set_title(title, loc="left")
    axes.set_xlabel(short(name))
    label_ends(axes, ends, size=7)


def _late(data: Stream) -> tuple[str, float]:
    """What the last panel is about, and the place after which it begins."""
    place = data.records[data.position]
    if 1 < place.nunique() < FEW:
        return f"{AXES[data.position]}s after the first", float(place.min())
    return "last tenth", float(place.max() - (place.max() - place.min() + 1) / 10)


def _main_parameter(data: Stream) -> tuple[str, list[str]]:
    """The parameter for the x axis, the numeric one with the most values if there is one; and the others."""
    counts = {name: data.records[name].nunique() for name in data.parameters}
    numeric = [name for name in counts if pd.api.types.is_numeric_dtype(data.records[name])]
    main = max(numeric or counts, key=lambda name: counts[name])
    return main, [name for name in counts if name != main]


def _ordered(column: pd.Series) -> list:
    """Values in increasing order; texts by the numbers at their beginning ("100x100" before "1000x1000")."""
    values = column.dropna().unique().tolist()
    if all(isinstance(value, int | float) for value in values):
        return sorted(values)
    return sorted(values, key=lambda value: ([int(n) for n in re.findall(r"^\d+", str(value))], str(value)))


def _text(value: Any) -> str:
    """Numbers as short as they are said: 0.01, 3e-4, 100k."""
    if not isinstance(value, int | float):
        return str(value)
    if 0 < abs(value) < 1e-3:
        mantissa, exponent = f"{value:g}".split("e") if "e" in f"{value:g}" else f"{value:.3e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return thousands(value)


def _small_panels(figure: Figure, data: Stream, settings: list[str], small: dict[str, tuple[str, float]]) -> None:
    grid = figure.add_gridspec(1, len(small), top=0.32, bottom=0.1, left=0.11, right=0.98, wspace=0.38)
    for number, (column, (title, factor)) in enumerate(small.items()):
        axes = figure.add_subplot(grid[number])
        _curves(axes, data, settings, column, factor=factor)
        axes.set_title(title, loc="left")
        axes.set_xlabel(AXES[data.position])
        axes.set_ylim(bottom=0)
        # few enough that their labels do not touch
        axes.xaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))


def _curves(
    axes: Axes, data: Stream, settings: list[str], column: str, *, factor: float = 1.0, ends: TaskEnds | None = None
) -> float:
    """Draw a curve per setting, labelled with its distance to a fresh network if `ends`; the width of the bins."""
    look = looks(settings)
    edges = _edges(data)
    texts = {}
    for setting in settings:
        records = data.records[data.records["setting"] == setting]
        curve = estimate(factor * binned(records, column, position=data.position, edges=edges))
        end = draw_curve(axes, _centres(data, edges), curve, look[setting])
        # chr(10): before Python 3.12 an f-string holds no backslash
        label = f"{setting.replace(', ', chr(10), 1)} (n={data.replicates(setting)})"
        if ends is not None:
            label = with_difference(label, setting, difference(ends, setting))
        texts[label] = end
    axes.margins(x=0.01)
    axes.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True))
    axes.xaxis.set_major_formatter(thousands)
    if ends is not None:
        label_ends(axes, texts)
    return float(edges[1] - edges[0])


def _edges(data: Stream) -> np.ndarray:
    """Edges of the bins: one holds the whole tasks (or rows) after its left edge up to its right edge."""
    places = np.unique(data.records[data.position].to_numpy(float))
    spacing = float(np.diff(places).min()) if len(places) > 1 else 1.0
    first, last = float(places[0]), float(places[-1])
    width = spacing * max(1.0, nice_width((last - first) / spacing + 1, BINS))
    return np.arange(first - spacing, last + width, width)


def _centres(data: Stream, edges: np.ndarray) -> np.ndarray:
    """Middle of the bins: of the whole tasks in them, or of the stretch of examples."""
    return (edges[:-1] + edges[1:]) / 2 + (0.0 if data.position == "step" else 0.5)
