"""How figures look: colours that colour-blind readers tell apart, labels at the line ends, no legend."""

import io
import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import NullLocator

from continual_agents.runs.checkpoint import write_bytes

from .folders import METHOD_NAMES

WIDTH = 5.5
"""Figure width in inches: the text width of a one-column page; fonts stay readable when it is set at 3.4 inches."""

# Okabe and Ito 2008 (yellow left out: too pale for lines), most used first; dashes say the same without colour
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES: tuple[Any, ...] = ("-", "--", "-.", (0, (1, 1)), (0, (5, 1, 1, 1, 1, 1)), (0, (3, 1, 1, 1)), ":")
PREFERRED = {
    "continual backprop": 0,
    "PPO": 1,
    "backprop": 1,
    "L2": 2,
    "shrink and perturb": 3,
    "ReDo": 4,
    "tuned Adam": 5,
    "continual backprop + L2": 6,
}
"""Places in `COLOURS` that methods keep in every figure."""

GREY = "#767676"
FRESH = METHOD_NAMES["fresh"]


@contextmanager
def style() -> Iterator[None]:
    """Matplotlib settings of this project; nothing global is changed."""
    settings: Any = {
        "font.size": 9,
        "axes.labelsize": 9,
        "axes.titlesize": 9,
        "xtick.labelsize": 8,
        "ytick.labelsize": 8,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.linewidth": 0.7,
        "lines.linewidth": 1.6,
        "lines.solid_capstyle": "round",
        "svg.hashsalt": "continual-agents",  # the same data give the same file
        "figure.dpi": 100,
        "savefig.dpi": 220,
    }
    with mpl.rc_context(settings):
        yield


def looks(labels: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Name, colour and dashes per label, "method, setting, ...": a colour per method, dashes for its other settings.

    Methods keep their colour in every figure (`PREFERRED`); the others take what is left, in order. The fresh network
    that all are held against is grey.
    """
    fresh = [label for label in labels if label.split(", ")[0] == FRESH]
    grey = {  # and below the curves of the others
        label: {"label": label, "color": GREY, "linestyle": dash, "zorder": 1.5}
        for label, dash in zip(fresh, itertools.cycle(DASHES), strict=False)
    }
    others = [label for label in labels if label not in grey]
    methods = list(dict.fromkeys(label.split(", ")[0] for label in others))
    wanted = {PREFERRED.get(method) for method in methods}
    free = [place for place in range(len(COLOURS)) if place not in wanted]
    places: dict[str, int] = {}
    for number, method in enumerate(methods):
        place = PREFERRED.get(method)
        if place is None or place in places.values():
            place = free.pop(0) if free else number % len(COLOURS)
        places[method] = place
    used = dict.fromkeys(places.values(), 0)
    chosen: dict[str, dict[str, Any]] = {}
    for label in others:
        place = places[label.split(", ")[0]]
        chosen[label] = {
            "label": label,
            "color": COLOURS[place],
            "linestyle": DASHES[(place + used[place]) % len(DASHES)],
        }
        used[place] += 1
    return chosen | grey


def draw_curve(
    axes: Axes, x: np.ndarray, curve: tuple[np.ndarray, np.ndarray, np.ndarray], look: Mapping[str, Any]
) -> tuple[float, str]:
    """A line with its interval shaded; the line's end and its colour, for `label_ends`."""
    value, low, high = curve
    known = np.isfinite(value)
    marker = {"marker": "o" if known.sum() == 1 else None, "markersize": 3}
    axes.plot(x[known], value[known], **{**marker, **look})
    axes.fill_between(x[known], low[known], high[known], color=look["color"], alpha=0.18, linewidth=0)
    return float(value[known][-1]) if known.any() else np.nan, look["color"]


DWARFED = 30
"""Times the median size of all values: where one is larger, a linear axis shows nothing of the others."""


def make_room(axes: Axes, values: np.ndarray) -> str:
    """A logarithmic axis beyond the usual size of `values`, where some dwarf the rest; what the title adds, or "".

    A policy that breaks down pays for its actions without limit: one return of -1,000,000 beside five hundreds.
    """
    sizes = np.abs(values[np.isfinite(values)])
    if not sizes.size or sizes.max() <= DWARFED * np.median(sizes):
        return ""
    usual = 10.0 ** np.ceil(np.log10(max(float(np.median(sizes)), 1e-12)))
    axes.set_yscale("symlog", linthresh=usual, linscale=2)
    low, high = axes.get_ylim()
    decades = usual * 10.0 ** np.arange(np.log10(max(-low, high) / usual) + 1)
    ticks = np.concatenate([-decades[::-1], [0.0], decades])
    axes.set_yticks(ticks[(ticks >= low) & (ticks <= high)])
    axes.yaxis.set_major_formatter(thousands)
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylim(low, high)  # final: labels are placed by them
    return f"log beyond {thousands(usual)}"


def label_ends(axes: Axes, texts: Mapping[str, tuple[float, str]], *, gap: float = 1.15, size: float = 8) -> None:
    """Write each label right of the axes at the height where its line ends, moved apart where they would overlap.

    Args:
        axes: whose limits are final.
        texts: label -> (end of its line in data units, colour).
        gap: least distance between labels, in font heights per line of text.
        size: font size, points.
    """
    height = axes.get_window_extent().height * 72 / mpl.rcParams["figure.dpi"]  # points
    labels = [label for label in texts if np.isfinite(texts[label][0])]
    ends = np.array(
        [axes.transAxes.inverted().transform(axes.transData.transform((0.0, texts[k][0])))[1] for k in labels]
    )
    heights = np.array([gap * size * (label.count("\n") + 1) / height for label in labels])
    for label, end, place in zip(labels, ends, spread(np.clip(ends, 0, 1), heights), strict=True):
        arrow: Any = {"arrowstyle": "-", "color": texts[label][1], "linewidth": 0.6, "shrinkA": 1, "shrinkB": 1}
        arrow["relpos"] = (0.0, 0.5)  # the line ends at the text's left edge, however many lines it has
        axes.annotate(
            label, (1.005, float(np.clip(end, 0, 1))), xytext=(1.035, place), xycoords="axes fraction", size=size,
            textcoords="axes fraction", color=_darker(texts[label][1]), va="center", annotation_clip=False,
            arrowprops=arrow, linespacing=1.0,
        )  # fmt: skip


def spread(wanted: np.ndarray, heights: np.ndarray) -> np.ndarray:
    """Centres of boxes of `heights`, in the order of `wanted` and as near to it as not overlapping allows.

    Boxes that touch form a block whose mean displacement is 0 (pool-adjacent-violators).
    """
    order = np.argsort(wanted, kind="stable")
    # without the boxes below them, which they stand on, boxes do not overlap where their places do not fall
    below = np.cumsum(heights[order]) - heights[order] / 2
    blocks: list[tuple[float, int]] = []
    for place in wanted[order] - below:
        total, count = float(place), 1
        while blocks and blocks[-1][0] / blocks[-1][1] > total / count:
            total, count = total + blocks[-1][0], count + blocks.pop()[1]
        blocks.append((total, count))
    centres = np.empty(len(wanted))
    centres[order] = np.array([total / count for total, count in blocks for _ in range(count)]) + below
    return centres


def _darker(colour: str) -> tuple[float, float, float]:
    """The colour with a third of its light taken, so that small letters in it stand out from white."""
    red, green, blue = to_rgb(colour)
    return 0.7 * red, 0.7 * green, 0.7 * blue


def thousands(value: float, position: float = 0) -> str:
    """Tick label of a step count: 0, 50k, 1.5M."""
    for size, suffix in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{suffix}"
    return f"{value:g}"


def save(figure: Figure, path: Path) -> Path:
    """Write `path` as PNG, and as SVG beside it; both are the same for the same data."""
    _take_words_literally(figure)
    path.parent.mkdir(parents=True, exist_ok=True)
    for target, metadata in ((path, {"Software": None}), (path.with_suffix(".svg"), {"Date": None})):
        drawn = io.BytesIO()
        figure.savefig(drawn, metadata=metadata, bbox_inches="tight", pad_inches=0.04, format=target.suffix[1:])
        write_bytes(target, drawn.getvalue())
    return path


def _take_words_literally(figure: Figure) -> None:
    """No `$...$` in names is mathematics; only the ticks' own numbers are."""
    axes = [axis for one in figure.axes for axis in (one.xaxis, one.yaxis)]
    ticks = {id(label) for axis in axes for label in axis.get_ticklabels(which="both")}
    for text in figure.findobj(Text):
        if id(text) not in ticks:
            text.set_parse_math(False)  # type: ignore[attr-defined]
