"""The first panel of a figure: each setting at the end of every task, beside a fresh network."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from .estimates import estimate
from .fresh import FRESH, Difference, difference
from .style import draw_curve, label_ends, looks, make_room
from .table import interval
from .tasks import TaskEnds, whole


def draw_task_ends(axes: Axes, data: TaskEnds, places: pd.Series) -> None:
    """Mean over runs at the end of every task with its interval; the fresh network grey, the distance to it in words.

    Args:
        axes: to draw in; its limits are final afterwards.
        data: of one experiment.
        places: x by task.
    """
    look, texts, single, drawn = looks(data.settings), {}, True, []
    for setting in data.settings:
        ends = whole(data.of(setting))
        curve = estimate(ends.to_numpy(float))
        x = places.reindex(ends.columns).to_numpy(float)
        drawn.append(curve[0])
        label = with_difference(f"{setting} (n={len(ends)})", setting, difference(data, setting))
        texts[label] = draw_curve(axes, x, curve, {**look[setting], "marker": "o", "markersize": 2.5})
        single = single and len(ends) < 2
    axes.margins(x=0)
    room = make_room(axes, np.concatenate([*drawn, []]))
    label_ends(axes, texts)
    statistic = "single runs" if single else "mean and 95% interval"
    axes.set_title(
        f"{data.measure.replace('_', ' ')} in the last quarter of each task, {room or statistic}", loc="left"
    )


def with_difference(label: str, setting: str, found: Difference) -> str:
    """A curve's label with the setting's distance to a fresh network below it."""
    if setting.split(", ")[0] == FRESH or not found.n:
        return label
    return f"{label}\n{interval(found.value, found.low, found.high)} to fresh"
