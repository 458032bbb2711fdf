"""Curves of different units brought to one scale, so that one chart can lay them over each other."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


class Glance:
    """Return, rank, weights and dead units on a scale around 1, with the task changes as a square wave.

    | curve | is |
    |---|---|
    | `glance/return` | `return/mean` over its largest value so far; nothing while that is not positive |
    | `glance/effective_rank` | `plasticity/effective_rank` over its largest value so far |
    | `glance/weight_magnitude` | `plasticity/weight_magnitude` over its first value |
    | `glance/dead_units` | `plasticity/dead_units`, a fraction as it is |
    | `glance/task` | `task/index` modulo 2: jumps at every change of task |

    Attributes:
        scale: what each curve is divided by; all there is to continue from.
    """

    def __init__(self, scale: Mapping[str, float] | None = None):
        self.scale = dict(scale or {})

    def __call__(self, metrics: Mapping[str, Any]) -> dict[str, float]:
        """The curves' values at one step; nan where `metrics` does not know it."""
        found: dict[str, float] = {}
        for tag in ("return/mean", "plasticity/effective_rank", "plasticity/weight_magnitude"):
            value = float(metrics.get(tag, math.nan))
            if math.isnan(value):
                continue
            if tag not in self.scale or (value > self.scale[tag] and tag != "plasticity/weight_magnitude"):
                self.scale[tag] = value
            name = "return" if tag == "return/mean" else tag.split("/")[1]
            found[f"glance/{name}"] = value / self.scale[tag] if self.scale[tag] > 0 else math.nan
        found["glance/dead_units"] = float(metrics.get("plasticity/dead_units", math.nan))
        found["glance/task"] = float(metrics.get("task/index", math.nan)) % 2
        return found
