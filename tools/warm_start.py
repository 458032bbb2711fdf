"""Warm start from its configuration: every run of the comparison in one folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from continual_agents.runs import Run
from continual_agents.settings import written
from supervised.warm_start import WarmStart, train_warm_start
from tools.memory import COPIES, RUN, check_memory, weights


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
        self._check_memory(config["experiment"])
        self.work = WarmStart(config["experiment"], seed=config["seed"], device=device)
        self.steps = self.work.epochs

    def _check_memory(self, experiment: Mapping[str, Any]) -> None:
        """Whether all networks fit; types are checked later."""
        seeds, hidden, starts = experiment["seeds"], experiment["network"]["hidden"], experiment["starts"]
        if isinstance(seeds, int) and isinstance(hidden, list) and all(isinstance(one, int) for one in hidden):
            runs = seeds * (len(starts) if isinstance(starts, list) else 1)
            size = runs * (RUN + 4 * COPIES * weights(64, hidden, 10))
            check_memory(f"experiment.seeds={seeds} experiment.network.hidden={written(hidden)}", size)

    def run(self, run: Run) -> None:
        """Train, continuing the run if it was begun."""
        train_warm_start(self.work, run)

    def close(self) -> None:
        """Nothing is held between runs."""
