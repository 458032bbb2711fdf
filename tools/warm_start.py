"""Warm start from its configuration: every run of the comparison in one folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from continual_agents.runs import Run
from supervised.warm_start import WarmStart, train_warm_start


class WarmStartJob:
    """All runs of the comparison, checked before a file is written.

    Args:
        config: the resolved configuration with `experiment.kind: warm_start`.

    Attributes:
        steps: epochs of every run.

    Raises:
        ValueError: a setting out of range, naming it.
    """

    def __init__(self, config: Mapping[str, Any]):
        device, method = config["device"], config["method"]["name"]
        if method != "backprop":
            raise ValueError(f"method={method}: warm start compares experiment.starts, all with method=backprop")
        self.work = WarmStart(config["experiment"], seed=config["seed"], device=device)
        self.steps = self.work.epochs

    def run(self, run: Run) -> None:
        """Train, continuing the run if it was begun."""
        train_warm_start(self.work, run)

    def close(self) -> None:
        """Nothing is held between runs."""
