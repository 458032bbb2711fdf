"""The reinforcement learning figure: return over steps, what changed, and the network's plasticity below."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, LogNorm
from matplotlib.figure import Figure

from .comparison import Comparison, compare
from .estimates import ENOUGH_FOR_IQM, binned, estimate, nice_width
from .folders import RunFolder
from .forest import best_rows, forest_figure
from .style import WIDTH, draw_curve, label_ends, looks, make_room, save, style, thousands
from .task_panel import draw_task_ends
from .tasks import TaskEnds, agent_task_ends
from .tidy import panels

MOST_LINES = 7
"""With more settings than this, each method's best one is drawn; the sweep figure has the rest."""

BINS = 60
"""Most bins over the whole run; each averages the episodes that ended in it."""

ICE = LinearSegmentedColormap.from_list("ice", ["#c3ddf3", "#ffffff"])
"""Slippery ground is blue, rough ground white: pale enough to draw on."""

STRONG_ICE = LinearSegmentedColormap.from_list("strong ice", ["#3d8fd1", "#f1efe8"])
"""The same for a strip of its own."""


def plot_agent(runs: list[RunFolder], path: Path) -> Path:
    """Return per task and over steps, diagnostics below; a row per method where they are many."""
    data = compare(runs)
    with style():
        many = best_rows(runs, _best_settings(agent_task_ends(data)))
        return save(forest_figure(many) if many else agent_figure(data), path)


def agent_figure(data: Comparison) -> Figure:
    """Return per task beside a fresh network's, return over steps, a panel per logged diagnostic that figures show.

    Above them the friction of each seed, where the seeds differ in it.
    """
    below = panels(data.metrics)
    stretches = _stretches(data.episodes)
    ends = agent_task_ends(data)
    if len(data.settings) > MOST_LINES:
        data = dataclasses.replace(data, settings=_best_settings(ends))
        ends = dataclasses.replace(ends, settings=data.settings)
    heights = [1.6 if len(ends.ends.columns) > 1 else 2.4, *[1.05] * len(below)]
    if len(ends.ends.columns) > 1:
        heights.insert(0, 2.4)
    grounds = _distinct_grounds(stretches)
    if len(grounds) > 1:
        heights.insert(0, min(0.6, 0.09 * len(grounds)))
    figure = Figure(figsize=(WIDTH, sum(heights) + 0.42 * len(heights)))
    grid = figure.add_gridspec(len(heights), 1, height_ratios=heights, hspace=0.42 / float(np.mean(heights)))
    figure.subplots_adjust(left=0.11, right=0.76, top=0.95, bottom=0.08)
    axes = [figure.add_subplot(grid[k]) for k in range(len(heights))]
    end = float(data.metrics["step"].max())
    width = nice_width(end, BINS)
    edges = np.arange(0.0, end + width, width)
    if len(grounds) > 1:
        _friction_strip(axes.pop(0), grounds, _friction_norm(stretches), end)
    top = axes[0]
    if len(ends.ends.columns) > 1:
        late = stretches.assign(place=stretches["end"] - (stretches["end"] - stretches["start"]) / 8)
        draw_task_ends(top, ends, late.groupby("task")["place"].mean())
    curves = axes[-1 - len(below)]
    statistic = _curves(curves, data, data.episodes, "performance", edges, factor=1.0, counts=curves is top)
    what = "return per episode" if data.measure == "return" else data.measure
    curves.set_title(f"{what}, {statistic}", loc="left")
    for panel, (column, (title, factor)) in zip(axes[len(axes) - len(below) :], below.items(), strict=True):
        _curves(panel, data, data.metrics, column, edges, factor=factor, counts=False, bottom=0.0)
        panel.set_title(title, loc="left")
    for panel in axes:
        _task_bands(panel, stretches, label=panel is top, same_ground=len(grounds) == 1)
        panel.set_xlim(0, end)
        panel.xaxis.set_major_formatter(thousands)
        panel.tick_params(labelbottom=panel is axes[-1])
    axes[-1].set_xlabel("environment steps")
    return figure


def _curves(
    axes: Axes, data: Comparison, records: pd.DataFrame, column: str, edges: np.ndarray, *, factor: float,
    counts: bool, bottom: float | None = None,
) -> str:  # fmt: skip
    """Draw a curve per setting and label the ends, with the number of runs if `counts`; say which statistic it is."""
    look = looks(data.settings)
    numbers = {setting: data.replicates(setting) for setting in data.settings}
    iqm = counts and min(numbers.values()) >= ENOUGH_FOR_IQM
    ends: dict[str, tuple[float, str]] = {}
    drawn = []
    for setting in data.settings:
        values = factor * binned(records[records["setting"] == setting], column, position="step", edges=edges)
        curve = estimate(values, iqm=iqm)
        drawn.append(curve[0])
        label = f"{setting} (n={numbers[setting]})" if counts else setting
        ends[label] = draw_curve(axes, (edges[:-1] + edges[1:]) / 2, curve, look[setting])
    axes.margins(x=0)
    axes.set_ylim(bottom=bottom)
    room = "" if bottom is not None else make_room(axes, np.concatenate([*drawn, []]))
    label_ends(axes, ends)
    if max(numbers.values()) == 1:
        return room or "single runs"
    return room or f"{'interquartile mean' if iqm else 'mean'} and 95% interval"


def _friction_strip(axes: Axes, grounds: list[pd.DataFrame], norm: LogNorm, end: float) -> None:
    """One row per sequence of frictions, its friction as colour."""
    for row, one in enumerate(grounds):
        spans = list(zip(one["start"], one["end"] - one["start"], strict=True))
        axes.broken_barh(spans, (row, 0.85), facecolors=STRONG_ICE(norm(one["friction"])), linewidth=0)
    axes.set_title("friction by seed, blue is slippery", loc="left")
    axes.set_xlim(0, end)
    axes.set_ylim(len(grounds), 0)
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.tick_params(bottom=False, labelbottom=False)


def _task_bands(axes: Axes, stretches: pd.DataFrame, *, label: bool, same_ground: bool) -> None:
    """Ground behind the curves: coloured by friction where all runs had the same, else lines at the mean change."""
    if stretches["task"].nunique() < 2:
        return
    if not same_ground:
        for start in stretches.groupby("task")["start"].mean().iloc[1:]:
            axes.axvline(start, color="#999999", linewidth=0.6, zorder=0)
        return
    norm = _friction_norm(stretches)
    tasks = stretches.groupby("task").agg({"start": "mean", "friction": "first"})
    for start, end, friction in zip(
        tasks["start"], [*tasks["start"][1:], stretches["end"].max()], tasks["friction"], strict=True
    ):
        axes.axvspan(start, end, color=ICE(norm(friction)), linewidth=0, zorder=-1)
        axes.axvline(start, color="white", linewidth=1.0, zorder=-0.5)
        if label and stretches["task"].nunique() <= 12:
            text = f"friction {friction:.2g}" if start == 0 else f"{friction:.2g}"
            place: Any = {"transform": axes.get_xaxis_transform(), "ha": "center", "va": "top"}
            axes.text((start + end) / 2, 0.985, text, size=7, color="#555555", **place)


def _friction_norm(stretches: pd.DataFrame) -> LogNorm:
    low, high = stretches["friction"].min(), stretches["friction"].max()
    return LogNorm(min(low, 0.02), max(high, 2.0))


def _stretches(episodes: pd.DataFrame) -> pd.DataFrame:
    """First and last step of every task of every run: columns `replicate`, `task`, `end`, `friction`, `start`."""
    last = {"end": ("step", "max"), "friction": ("friction", lambda one: one.iloc[-1])}
    table = episodes.groupby(["replicate", "task"]).agg(**last).astype(float).reset_index()
    return table.assign(start=table.groupby("replicate")["end"].shift(fill_value=0.0))


def _distinct_grounds(stretches: pd.DataFrame) -> list[pd.DataFrame]:
    """The different sequences of frictions that runs met; runs of one seed share theirs, whatever their method.

    Two runs met the same if their frictions agree in every task that both had: one may have come further, or skipped
    a short task within a long episode.
    """
    known = stretches[stretches["friction"].notna()]
    grounds: list[pd.DataFrame] = []
    for _, one in sorted(known.groupby("replicate"), key=lambda pair: -len(pair[1])):
        frictions = one.set_index("task")["friction"]
        if not any(_agree(frictions, other.set_index("task")["friction"]) for other in grounds):
            grounds.append(one)
    return sorted(grounds, key=lambda one: int(one["replicate"].iloc[0]))


def _agree(one: pd.Series, other: pd.Series) -> bool:
    shared = one.index.intersection(other.index)
    return len(shared) > 0 and bool(np.allclose(one[shared], other[shared]))


def _best_settings(data: TaskEnds) -> list[str]:
    """The setting of each method that does best over all tasks, in the order of the figures."""
    means = {setting: float(data.of(setting).stack().mean()) for setting in data.settings}
    best: dict[str, str] = {}
    for setting, mean in means.items():
        method = setting.split(", ")[0]
        if method not in best or mean > means[best[method]]:
            best[method] = setting
    return list(best.values())
