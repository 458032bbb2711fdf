"""TensorBoard's page "Plasticity at a glance": which curves share a chart."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from continual_agents.plasticity.measures import shown

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
