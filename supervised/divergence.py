"""Runs of a figure whose weights are no longer finite: they are marked and the others go on, or all of them stop."""

import warnings
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from continual_agents.runs import Run

from .plans import Plan

SHOWN = 3
"""Most runs that a message names."""


class Divergence:
    """Looks for weights that are NaN or infinite, a run at a time: no run of a stack sees another one's.

    Args:
        plans: all runs of the figure.
        run: its folder, for the message.
        then: "mark": the row of such a run is nan but for `optimizer/diverged`, which is 1; "stop": all stop.
    """

    def __init__(self, plans: Sequence[Plan], run: Run, then: Literal["mark", "stop"] = "mark"):
        if then not in ("mark", "stop"):
            raise ValueError(f"on_not_finite={then!r}: mark or stop")
        self.plans, self.run, self.then = plans, run, then
        self._told: set[int] = set()

    def look(self, groups: Sequence[Any], step: int) -> np.ndarray:
        """Which runs have diverged, bool `[runs]`; a warning names those that were not known before.

        Args:
            groups: stacks with `numbers` and a `learner`.
            step: where they stand, for the message.

        Raises:
            FloatingPointError: there is one, and they are to stop.
        """
        layers = {group.numbers[k]: name for group in groups for k, name in broken(group.learner).items()}
        new = [number for number in sorted(layers) if number not in self._told]
        self._told.update(new)
        if new:
            named = "; ".join(
                f"run {n} ({self.plans[n].label}, seed {self.plans[n].seed}): {layers[n]}" for n in new[:SHOWN]
            )
            what = f"not finite by step {step}: {named}{f'; and {len(new) - SHOWN} more' if len(new) > SHOWN else ''}"
            if self.then == "stop":
                raise FloatingPointError(
                    f"{what}. Lower the step size, or give experiment.on_not_finite=mark to go on with the other runs. "
                    f"The last good checkpoint of {self.run.folder}: {self.run.last_checkpoint}"
                )
            warnings.warn(f"{what}. Their rows are nan, the other runs go on", stacklevel=3)
        return np.isin(np.arange(len(self.plans)), list(layers))

    def mark(self, row: dict[str, np.ndarray], diverged: np.ndarray) -> dict[str, np.ndarray]:
        """The row with nothing but nan for the runs that have diverged: what their networks give means nothing."""
        marked = {
            key: values if key == "task/index" else np.where(diverged, np.nan, values) for key, values in row.items()
        }
        return marked | {"optimizer/diverged": diverged.astype(float)}


def broken(learner: Any) -> dict[int, str]:
    """Place in the stack of each run with a weight or bias that is not finite, and the first layer where one is.

    Args:
        learner: with `trained()`, tensors `[runs, ...]` by the layer's name.
    """
    found: dict[int, str] = {}
    for name, tensor in learner.trained().items():
        good = tensor.isfinite().flatten(1).all(1).tolist()
        for place, fine in enumerate(good):
            if not fine:
                found.setdefault(place, name)
    return found
