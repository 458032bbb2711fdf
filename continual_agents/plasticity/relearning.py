"""How well a learner recovers after the task changes, and whether it gets worse at it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .statistics import Estimate, bootstrap


@dataclass(frozen=True)
class Relearning:
    """What each task change cost; every field `[..., changes]` in float64.

    Attributes:
        level: mean performance over the last `window` records before the change.
        drop: `level` minus the mean over the first `window` records after it.
        recovery: steps from the change until the trailing mean over `window` records is back at the asked-for
            fraction of `level`; inf when that never happens within the task.
        area: area between `level` and the curve where it is below, in performance times steps.
    """

    level: Tensor
    drop: Tensor
    recovery: Tensor
    area: Tensor


def relearning(
    performance: Tensor,
    tasks: Tensor,
    steps: Tensor | None = None,
    *,
    window: int = 1,
    fraction: float = 0.9,
    higher_is_better: bool = True,
) -> Relearning:
    """Drop, recovery time and lost area at every change of task.

    "Back at a fraction of the level" means within `(1 - fraction) * |level|` of it, so that negative returns and errors
    work alike. For errors (`higher_is_better=False`) drop and area are still positive when things got worse.

    Args:
        performance: `[..., records]`, in order of time.
        tasks: `[records]`, the task during each record; a change is where it differs from the record before.
        steps: `[records]`, position at the end of each record, increasing; 1, 2, 3, ... when None.
        window: records averaged on either side of the change.
        fraction: how much of the earlier level counts as recovered.
        higher_is_better: False for errors and losses.

    Raises:
        ValueError: lengths differ, steps do not increase, `window` under 1 or `fraction` outside (0, 1].

    Example:
        >>> relearning(torch.tensor([1.0, 1.0, 0.0, 0.5, 1.0]), torch.tensor([0, 0, 1, 1, 1])).recovery
        tensor([3.], dtype=torch.float64)
    """
    values = performance.to(torch.float64) * (1.0 if higher_is_better else -1.0)
    positions = torch.arange(1, len(tasks) + 1) if steps is None else steps
    _check(values, tasks, positions, window, fraction)
    starts = (torch.nonzero(tasks[1:] != tasks[:-1]).flatten() + 1).tolist()
    edges = [0, *starts, len(tasks)]
    columns = [
        _one_change(values, positions.to(torch.float64), *edges[k : k + 3], window=window, fraction=fraction)
        for k in range(len(starts))
    ]
    if not columns:
        empty = values.new_empty(*values.shape[:-1], 0)
        return Relearning(empty, empty, empty, empty)
    level, drop, recovery, area = (torch.stack(parts, dim=-1) for parts in zip(*columns, strict=True))
    return Relearning(level if higher_is_better else -level, drop, recovery, area)


def _check(values: Tensor, tasks: Tensor, steps: Tensor, window: int, fraction: float) -> None:
    records = values.shape[-1] if values.dim() else 0
    if records == 0 or tasks.shape != (records,) or steps.shape != (records,):
        raise ValueError(
            f"performance {tuple(values.shape)}, tasks {tuple(tasks.shape)} and steps {tuple(steps.shape)} differ: "
            "expected [..., records], [records] and [records] with at least one record"
        )
    if (steps[1:] <= steps[:-1]).any():
        raise ValueError("steps do not increase: sort the records and keep one per step")
    if window < 1 or not 0 < fraction <= 1:
        raise ValueError(f"window={window}, fraction={fraction}: expected at least 1, and a number in (0, 1]")


def _one_change(
    values: Tensor, steps: Tensor, start: int, change: int, end: int, *, window: int, fraction: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`level, drop, recovery, area` at record `change`, between a task from `start` and one until `end`."""
    level = values[..., max(start, change - window) : change].mean(-1)
    after = values[..., change:end]
    drop = level - after[..., :window].mean(-1)
    since = steps[change:end] - steps[change - 1]
    lengths = torch.diff(since, prepend=since.new_zeros(1))
    area = ((level[..., None] - after).clamp_min(0.0) * lengths).sum(-1)
    needed = level - (1 - fraction) * level.abs()
    recovered = _trailing_mean(after, window) >= needed[..., None]
    recovery = torch.where(recovered, since, torch.inf).amin(-1)  # the first time; never is infinitely late
    return level, drop, recovery, area


def _trailing_mean(values: Tensor, window: int) -> Tensor:
    """Mean over each record and the `window - 1` before it, `[..., records]`; nan where there are fewer."""
    window = min(window, values.shape[-1])
    means = values.unfold(-1, window, 1).mean(-1)
    return torch.cat([values.new_full((*values.shape[:-1], window - 1), torch.nan), means], dim=-1)


@dataclass(frozen=True)
class PlasticityIndex:
    """First tasks against last tasks, over runs.

    Attributes:
        first: mean performance on the first tasks, with interval.
        last: the same on the last tasks.
        change: `last - first`, paired by run: below 0 when plasticity is lost, whatever the direction of the measure.
        slope: least-squares slope of performance over the task number, per task, same sign.
        runs: number of runs.
    """

    first: Estimate
    last: Estimate
    change: Estimate
    slope: Estimate
    runs: int

    @property
    def verdict(self) -> str:
        """Whether the interval of `change` excludes 0: "loses", "gains" or "keeps"; "unknown" below 5 runs.

        Four runs that all change in one direction happen by chance once in eight times.
        """
        if self.runs < 5:
            return "unknown"
        if self.change.high < 0:
            return "loses"
        return "gains" if self.change.low > 0 else "keeps"


def plasticity_index(
    performance: Tensor, *, ends: int = 1, higher_is_better: bool = True, confidence: float = 0.95, seed: int = 0
) -> PlasticityIndex:
    """Does a learner do worse on late tasks than on early ones, and how sure is that?

    Args:
        performance: `[runs, tasks]`, one number per task (online accuracy, return, error).
        ends: tasks averaged at either end.
        higher_is_better: False for errors; `first` and `last` stay as measured, `change` and `slope` flip their sign.
        confidence: mass inside the bootstrapped intervals over runs.
        seed: of the bootstrap.

    Raises:
        ValueError: fewer than two tasks, or `ends` that overlap.
    """
    if performance.dim() != 2 or performance.shape[1] < 2:
        raise ValueError(
            f"performance of shape {tuple(performance.shape)}: expected [runs, tasks] with 2 tasks or more"
        )
    runs, tasks = performance.shape
    if not 1 <= ends <= tasks // 2:
        raise ValueError(f"ends={ends}: expected 1 to {tasks // 2} for {tasks} tasks")
    values = performance.to(torch.float64)
    sign = 1.0 if higher_is_better else -1.0
    number = torch.arange(tasks, dtype=torch.float64)
    number -= number.mean()  # around 0, so that the slope does not depend on the level
    slope = (values @ number) / number.square().sum()
    first, last = values[:, :ends].mean(1), values[:, -ends:].mean(1)
    columns = torch.stack([first, last, sign * (last - first), sign * slope], dim=1)
    estimate = bootstrap(columns, confidence=confidence, seed=seed)
    first_, last_, change, slope_ = (Estimate(*(part[k] for part in estimate)) for k in range(4))
    return PlasticityIndex(first_, last_, change, slope_, runs)
