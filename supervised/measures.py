"""What is written down about a stack: online measures in bins, test accuracy, diagnostics of its networks."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from continual_agents import plasticity

from .losses import LOSSES
from .states import array_of
from .streams.stream import Stream

RARE = 0.01
"""A unit that is active on at most this share of the examples is as good as dormant."""


class Bin:
    """Mean of an online measure over a bin of steps, per run, in float64.

    Args:
        runs: number of runs.
    """

    def __init__(self, runs: int):
        self.total, self.steps = np.zeros(runs), 0

    def add(self, values: torch.Tensor) -> None:
        """Take in `[steps, runs]`."""
        self.total += values.double().sum(0).cpu().numpy()
        self.steps += len(values)

    def take(self) -> np.ndarray:
        """The mean `[runs]`; the bin is empty afterwards."""
        mean = self.total / self.steps if self.steps else np.full(len(self.total), np.nan)
        self.total, self.steps = np.zeros(len(self.total)), 0
        return mean

    def state_dict(self) -> dict[str, Any]:
        """Sum and count."""
        return {"total": self.total.copy(), "steps": self.steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict()`."""
        self.total, self.steps = array_of(state["total"]), int(state["steps"])


def diagnose(learner: Any, stream: Stream, examples: int) -> dict[str, np.ndarray]:
    """Diagnostics of every run on the stream's fixed evaluation batch, `[runs]`; nan where it has no hidden layer.

    Args:
        learner: with `evaluate`, `weights` and `kinds`.
        stream: whose evaluation batch is used.
        examples: its size; 0 looks at nothing.
    """
    numbers = {measure.column: np.full(stream.runs, np.nan) for measure in plasticity.MEASURES.values()}
    if not examples:
        return numbers
    _, hidden = learner.evaluate(stream.evaluation(examples))
    weights = learner.weights()
    if hidden:
        found = plasticity.summarise(hidden, weights, kinds=learner.kinds())
    else:
        found = {"plasticity/weight_magnitude": plasticity.weight_magnitude(weights.values(), runs_dims=1)}
    return numbers | {key: found[key].double().cpu().numpy() for key in numbers if key in found}


ACTIVITY = ("plasticity/rarely_active_units", "plasticity/last_layer_rank")
"""Columns of `activity`."""


def activity(learner: Any, stream: Stream, examples: int) -> dict[str, np.ndarray]:
    """What was published for class-incremental CIFAR-100 (Dohare et al. 2024), `[runs]`.

    Units that are 0 on at least 99% of the evaluation batch's examples (and positions), as a fraction; and of the last
    hidden layer's activations, averaged over positions, how many singular values hold 99% of their plain sum (there
    called the stable rank).

    Args:
        learner: with `evaluate`.
        stream: whose evaluation batch is used.
        examples: its size, at least 1.
    """
    x = stream.evaluation(examples)
    _, hidden = learner.evaluate(x)
    rare = torch.cat([(h != 0).float().mean(-2) <= RARE for h in hidden.values()], -1).double().mean(-1)
    last = list(hidden.values())[-1]
    features = last.unflatten(1, (x.shape[1], -1)).mean(2)
    found = (rare, plasticity.abs_approximate_rank(features).double())
    return {name: value.cpu().numpy() for name, value in zip(ACTIVITY, found, strict=True)}


def test_accuracy(learner: Any, stream: Stream) -> np.ndarray | None:
    """Share of the current task's test set that each run gets right, `[runs]`; None without a test set."""
    test = stream.test()
    if test is None:
        return None
    inputs, classes = test
    outputs, _ = learner.evaluate(inputs)
    return LOSSES["cross_entropy"].measure(outputs, classes).double().cpu().numpy()


test_accuracy.__test__ = False  # type: ignore[attr-defined]  # not a test, whatever pytest thinks of its name
