"""One number per run, by which candidates are compared."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from tools.figures.comparison import compare
from tools.figures.folders import read_folder
from tools.figures.tasks import returns_at_task_ends
from tools.figures.tidy import tidy

CRITERIA: dict[str, Callable[[Sequence[float]], float]] = {
    "all_tasks": lambda performance: float(np.mean(performance)),
    "last_tasks": lambda performance: float(np.mean(performance[-max(1, len(performance) // 10) :])),
}
"""How the performances on the tasks become one score: their mean, or that of the last tenth (at least one task)."""


def scores(folder: Path, criterion: str) -> list[float]:
    """The score of every run in a folder: one for an agent, one per run of a stream's stack.

    The performance on a task is an agent's mean return over the last quarter of the task's steps, a stream's mean
    accuracy or error over the task. A run whose numbers are not finite scores nan.

    Raises:
        FolderError: no finished row.
    """
    run = read_folder(folder)
    if run.is_stream:
        performance = tidy([run]).records.groupby(["run", "task"])["performance"]
        tasks = performance.apply(lambda one: float(np.mean(one.to_numpy())))
        each = [one.tolist() for _, one in tasks.groupby("run")]
    else:
        each = [returns_at_task_ends(compare([run]).episodes).to_numpy(float).ravel().tolist()]
    return [CRITERIA[criterion](one) if len(one) else math.nan for one in each]


def higher_is_better(folder: Path) -> bool:
    """Whether the best score of runs like this one is the highest."""
    run = read_folder(folder)
    return not run.is_stream or tidy([run]).higher_is_better
