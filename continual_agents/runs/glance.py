"""Curves of different units brought to one scale, so that one chart can lay them over each other."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from continual_agents.plasticity.measures import MEASURES


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
