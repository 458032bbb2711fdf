"""A supervised stream from its configuration: every run of a figure in one folder."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from continual_agents.methods import Method
from continual_agents.runs import Run
from continual_agents.settings import check_counts, check_types, written
from supervised import Plan, make_learner, make_plans, make_stream, stacks, train
from supervised.streams.stream import task_start
from supervised.streams.table import sample
from tools.memory import check_stream

TYPES = {
    "name": str,
    "seeds": int,
    "steps": int | None,
    "tasks": int | None,
    "row_steps": int | None,
    "fast": bool,
    "on_not_finite": Literal["mark", "stop"],
    "sweep": Mapping[str, Any] | None,
    "stream": Mapping[str, Any],
    "network": Mapping[str, Any],
    "probe": Mapping[str, Any],
}
"""What the experiment's own keys hold; those of its groups are checked against what takes them."""


def methods_of(config: Mapping[str, Any]) -> dict[str, Method]:
    """The methods that a configuration compares: those of `experiment.methods`, or the one that `method=` chose."""
    settings = config["method"]
    chosen = settings["of"] if "of" in settings else {settings["name"]: settings}
    return {name: Method.of(one) for name, one in chosen.items()}


class StreamJob:
    """All runs of one stream, checked before a file is written.

    Args:
        config: the resolved configuration with `experiment.kind: stream`.

    Attributes:
        steps: gradient steps of every run.
        gradient_steps: the same, as agents call them.
        methods: what is compared, by name.

    Raises:
        ValueError, TypeError, KeyError: a setting out of range or unknown, naming it.
    """

    def __init__(self, config: Mapping[str, Any]):
        self.experiment, self.device = config["experiment"], config["device"]
        self._check_experiment()
        self.methods = methods_of(config)
        check_stream(self.experiment, len(self.methods))
        self.plans = make_plans(self.experiment, self.methods, seed=config["seed"])
        ends = [self._check([self.plans[number] for number in numbers]) for numbers in stacks(self.plans)]
        self.steps: int = self.experiment["steps"] if self.experiment["tasks"] is None else max(ends)
        self.gradient_steps = self.steps

    def _check_experiment(self) -> None:
        """Types and ranges of what no constructor takes."""
        experiment = self.experiment
        check_types("experiment", experiment, TYPES)
        check_types("experiment.probe", experiment["probe"], {"every": int, "examples": int})
        steps, tasks, row_steps, probe = (experiment[key] for key in ("steps", "tasks", "row_steps", "probe"))
        if (steps is None) == (tasks is None):
            given = f"experiment.steps={written(steps)} experiment.tasks={written(tasks)}"
            raise ValueError(f"{given}: give one of them, the other null")
        check_counts("experiment", steps=steps, tasks=tasks, row_steps=row_steps, seeds=experiment["seeds"])
        check_counts("experiment.probe", every=probe["every"])
        check_counts("experiment.probe", 0, examples=probe["examples"])

    def _check(self, plans: Sequence[Plan]) -> int:
        """Build a run of each setting of a stack, one after the other; where their last task ends."""
        stream = make_stream(sample(plans[0].stream), [plans[0].seed])
        checked: list[Method] = []
        for plan in plans:
            if plan.method not in checked:
                make_learner([plan], stream)
                checked.append(plan.method)
        return task_start(stream, self.experiment["tasks"] or 0)

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
            on_not_finite=self.experiment["on_not_finite"],
        )

    def close(self) -> None:
        """Nothing is held between runs."""
