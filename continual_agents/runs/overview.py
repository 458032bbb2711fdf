"""TensorBoard's page "Plasticity at a glance": which curves share a chart, and some of them brought to one scale."""

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from continual_agents.plasticity.measures import MEASURES, shown

STREAM_MEASURES = ("accuracy", "online_accuracy", "test_accuracy", "squared_error", "error", "loss")
"""What streams are measured by; their charts have the interval over runs."""


def interval_tag(tag: str, end: str) -> str:
    """The tag of one end, "low" or "high", of a curve's interval: apart, for only charts of the overview draw it."""
    return f"interval/{tag.rpartition('/')[2]}/{end}"


def overview(tags: Iterable[str]) -> dict[str, dict[str, list[Any]]]:
    """The custom-scalars layout for a run that has curves of these tags, now or later."""
    tags = list(tags)

    def has_curves(chart: list[Any]) -> bool:
        return any(re.search(pattern, tag) for pattern in chart[1] for tag in tags)

    return {"Plasticity at a glance": {title: chart for title, chart in _charts().items() if has_curves(chart)}}


def _charts() -> dict[str, list[Any]]:
    diagnostics: dict[str, list[str]] = {}
    for measure in shown("chart"):
        diagnostics.setdefault(measure.chart, []).append(measure.column)
    return {
        "return": _chart("charts/episodic_return"),
        **{name.replace("_", " "): _with_interval(f"charts/{name}") for name in STREAM_MEASURES},
        **{title: _chart(*columns) for title, columns in diagnostics.items()},
        "replaced units": _chart("surgery/replaced"),
        "eligible units": _chart("surgery/eligible"),
        "friction": _chart("charts/friction"),
        "task": _chart("charts/task"),
        "one run, all together, to scale": _chart("glance/.*"),
    }


def _chart(*patterns: str) -> list[Any]:
    return ["Multiline", [f"^{pattern}$" for pattern in patterns]]


def _with_interval(tag: str) -> list[Any]:
    return ["Margin", [tag, interval_tag(tag, "low"), interval_tag(tag, "high")]]


class Glance:
    """Return, rank, weights and dead units on a scale around 1, with the task changes as a square wave.

    | curve | is |
    |---|---|
    | `glance/return` | `return/mean` over its largest value so far; nothing while that is not positive |
    | `glance/NAME` | each diagnostic whose row in `plasticity.MEASURES` is `scaled`: over its largest or first value, or as it is |
    | `glance/task` | `task/index` modulo 2: jumps at every change of task |

    Attributes:
        scale: what each curve is divided by; all there is to continue from.
    """

    def __init__(self, scale: Mapping[str, float] | None = None):
        self.scale = dict(scale or {})

    def __call__(self, metrics: Mapping[str, Any]) -> dict[str, float]:
        """The curves' values at one step; nan where `metrics` does not know it."""
        found: dict[str, float] = {}
        scaled = {measure.column: measure.scaled for measure in MEASURES.values() if measure.scaled}
        for tag, how in {"return/mean": "largest", **scaled}.items():
            value = float(metrics.get(tag, math.nan))
            name = "return" if tag == "return/mean" else tag.split("/")[1]
            if how == "as it is":
                found[f"glance/{name}"] = value
            elif not math.isnan(value):
                if tag not in self.scale or (value > self.scale[tag] and how == "largest"):
                    self.scale[tag] = value
                found[f"glance/{name}"] = value / self.scale[tag] if self.scale[tag] > 0 else math.nan
        # a square wave shows the changes however many tasks there are; their number would dwarf all other curves
        found["glance/task"] = float(metrics.get("task/index", math.nan)) % 2
        return found
