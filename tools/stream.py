"""A supervised stream from its configuration: every run of a figure in one folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from continual_agents.methods import Method
from continual_agents.runs import Run
from supervised import Plan, make_learner, make_plans, make_stream, stacks, train


def methods_of(config: Mapping[str, Any]) -> dict[str, Method]:
    """The methods that a configuration compares: those of `experiment.methods`, or the one that `method=` chose."""
    settings = config["method"]
    chosen = settings["of"] if "of" in settings else {settings["name"]: settings}
    return {name: Method(**one) for name, one in chosen.items()}


class StreamJob:
    """All runs of one stream, checked before a file is written.

    Args:
        config: the resolved configuration with `experiment.kind: stream`.

    Attributes:
        steps: gradient steps of every run.

    Raises:
        ValueError, TypeError, KeyError: a setting out of range or unknown, naming it.
    """

    def __init__(self, config: Mapping[str, Any]):
        self.experiment, self.device = config["experiment"], config["device"]
        if self.device != "cpu" and not torch.cuda.is_available():
            raise ValueError(f"device={self.device}: this machine has no such device, use device=cpu")
        self.plans = make_plans(self.experiment, methods_of(config), seed=config["seed"])
        task_steps = [self._check(self.plans[numbers[0]]) for numbers in stacks(self.plans)]
        steps, tasks = self.experiment["steps"], self.experiment["tasks"]
        if (steps is None) == (tasks is None) or (steps or tasks) < 1:
            raise ValueError(f"experiment.steps={steps}, tasks={tasks}: give one of them, at least 1, the other null")
        self.steps: int = steps if steps is not None else tasks * max(task_steps)

    def _check(self, plan: Plan) -> int:
        """Build one run of a stack; the length of its tasks."""
        stream = make_stream(plan.stream, [plan.seed])
        make_learner([plan], stream, fast=self.experiment["fast"])
        return stream.task_steps

    def run(self, run: Run) -> None:
        """Train, continuing the run if it was begun."""
        probe = self.experiment["probe"]
        train(
            self.plans,
            run,
            steps=self.steps,
            row_steps=self.experiment["row_steps"],
            examples=probe["examples"],
            examine_every=probe["every"],
            device=self.device,
            fast=self.experiment["fast"],
        )

    def close(self) -> None:
        """Nothing is held between runs."""
