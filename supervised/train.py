"""One loop for every stream: all stacks of a figure advance together, a row of the table at a time."""

import time
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch

from continual_agents.runs import Run, RunError

from .divergence import Divergence
from .group import Group, make_group
from .plans import Plan, stacks
from .streams.stream import task_start


def train(
    plans: Sequence[Plan],
    run: Run,
    *,
    steps: int | None = None,
    tasks: int | None = None,
    row_steps: int | None = None,
    examples: int = 500,
    examine_every: int = 1,
    device: torch.device | str = "cpu",
    fast: bool = False,
    on_not_finite: Literal["mark", "stop"] = "mark",
) -> bool:
    """Train every plan, from where the run folder left off, and write the run's tables.

    Args:
        plans: all runs of the figure.
        run: the open run folder; runs.csv says what each run number is.
        steps: gradient steps of every run; or
        tasks: tasks of every run (of the longest kind, where their lengths differ).
        row_steps: gradient steps per row of metrics.csv; None: one row per task.
        examples: in the evaluation batch that the diagnostics look at; 0 for no diagnostics.
        examine_every: rows between two looks; the last row of the run always has one.
        device: where the stacks live.
        fast: native code or a CUDA graph where there is some; numbers then agree to float rounding only.
        on_not_finite: what becomes of a run whose weights are no longer finite, see `Divergence`.

    Returns:
        True if the run is finished, False if it was asked to stop and can be continued.

    Raises:
        ValueError: neither steps nor tasks, or both.
        FloatingPointError: a run has diverged and `on_not_finite` is "stop".
    """
    if (steps is None) == (tasks is None):
        raise ValueError(f"steps={steps}, tasks={tasks}: give one of them")
    groups = [make_group(numbers, [plans[k] for k in numbers], device=device, fast=fast) for numbers in stacks(plans)]
    longest = max((group.stream for group in groups), key=lambda stream: task_start(stream, 1))
    total = steps if steps is not None else task_start(longest, tasks or 0)

    def row_end(rows: int) -> int:
        return rows * row_steps if row_steps else task_start(longest, rows)

    if run.state is not None:
        _check_data(run, groups)
        with run.continuing():
            for group, stored in zip(groups, run.state["groups"], strict=True):
                group.load_state_dict(stored)
        codes = _codes_of(run, groups, fast)
    else:
        codes = [[0, [group.code for group in groups]]]
        _write_runs(run, plans, {n: group.learner.code for group in groups for n in group.numbers})
    if run.finished and run.step >= total:
        return True
    divergence = Divergence(plans, run, on_not_finite)
    labels = [plan.label for plan in plans]
    rows = int(run.state["rows"]) if run.state is not None else 0
    row: dict[str, np.ndarray] = {}
    before_row: tuple[dict[str, Any], dict[str, Any]] | None = None
    with run.progress(total=total * len(plans), initial=_done(groups), unit="run-steps") as bar:
        while row_end(rows) < total:
            until = min(row_end(rows + 1), total)
            started, before = time.perf_counter(), _done(groups)
            for group in groups:
                while group.stream.position < until:
                    bar.update(group.advance(until) * len(group.numbers))
                    if run.stop_requested or run.save_due():
                        divergence.look(groups, group.stream.position)
                        run.save(_done(groups) // len(plans), _state(rows, groups, codes))
                    if run.stop_requested:
                        return False
            rate = (_done(groups) - before) / (time.perf_counter() - started)
            due = (rows + 1) % examine_every == 0
            look = due or until == total
            diverged = divergence.look(groups, until)
            if until == total and not (due and until == row_end(rows + 1)):
                # a longer run would not have this row, or not have looked: it goes on from before it
                before_row = _state(rows, groups, codes), run.mark()
            row = divergence.mark(_together(groups, len(plans), examples if look else 0), diverged)
            run.log_runs(until, row, groups=labels, timing={"time/run_steps_per_second": rate})
            rows += 1
    state, mark = before_row or (_state(rows, groups, codes), None)
    run.finish(total, state, _means(row), mark=mark)
    return True


def _done(groups: Sequence[Group]) -> int:
    """Gradient steps of all runs together: where the figure stands, as its stacks advance in turn."""
    return sum(group.stream.position * len(group.numbers) for group in groups)


def _state(rows: int, groups: Sequence[Group], codes: list[Any]) -> dict[str, Any]:
    return {"rows": rows, "groups": [group.state_dict() for group in groups], "codes": codes}


def _check_data(run: Run, groups: Sequence[Group]) -> None:
    """Data may lie elsewhere in a continued run, but must be the same."""
    if run.state is not None and isinstance(run.state.get("groups"), list):
        for group, stored in zip(groups, run.state["groups"], strict=False):
            if isinstance(stored, dict) and stored.get("data") not in (None, group.data):
                raise RunError(
                    f"{run.folder} was begun with other images: let experiment.stream.root name the folder of the same "
                    "ones, or give another folder=..."
                )


def _codes_of(run: Run, groups: Sequence[Group], fast: bool) -> list[Any]:
    """Which code took the steps of each stack, from which step on: what the checkpoint knows, and now.

    Raises:
        RunError: other code than before would take them, and nobody asked for it.
    """
    assert run.state is not None
    now = [group.code for group in groups]
    codes: list[Any] = list(run.state.get("codes", [[0, now]]))  # checkpoints of earlier versions do not say
    before = list(codes[-1][1])
    if before == now:
        return codes
    old, new = next((old, new) for old, new in zip(before, now, strict=True) if old != new)
    said = f"the steps of {run.folder} were taken by {old} up to step {run.step}, here they are taken by {new}"
    if fast and old.split(",")[0] != new.split(",")[0]:
        mend = "experiment.fast=false goes on as before"
        if old != "torch":
            mend = f"install what {old} needs (a C compiler, a GPU), or go on inexactly with experiment.fast=false"
        raise RunError(f"{said}, with other last digits: {mend}")
    warnings.warn(f"{said}: the numbers differ in their last digits from those of an undisturbed run", stacklevel=3)
    return [*codes, [run.step, now]]


def _together(groups: Sequence[Group], runs: int, examples: int) -> dict[str, np.ndarray]:
    """The groups' rows as one, in the order of the plans."""
    together: dict[str, np.ndarray] = {}
    for group in groups:
        for key, values in group.row(examples).items():
            together.setdefault(key, np.full(runs, np.nan))[group.numbers] = values
    return together


def _means(row: Mapping[str, np.ndarray]) -> dict[str, float]:
    return {key: float(np.nanmean(values)) for key, values in row.items() if not np.isnan(values).all()}


def _write_runs(run: Run, plans: Sequence[Plan], codes: Mapping[int, str]) -> None:
    keys = list(dict.fromkeys(key for plan in plans for key in plan.settings))
    columns: dict[str, list[Any]] = {
        "run": list(range(len(plans))),
        "seed": [plan.seed for plan in plans],
        "method": [plan.method.name for plan in plans],
        "code": [codes[number] for number in range(len(plans))],  # what took the steps: native, graph or torch
    }
    for key in keys:
        values = [plan.settings.get(key, "nan") for plan in plans]
        columns[key] = ["x".join(map(str, one)) if isinstance(one, list | tuple) else one for one in values]
    run.table("runs").extend(columns)
