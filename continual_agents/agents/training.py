"""The training loop: collect, update, look, write down, save."""

from __future__ import annotations

import itertools
import math
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor

from continual_agents.runs import Run

from .collector import EnvironmentCollector
from .ppo import PPO


def train(
    run: Run,
    collector: EnvironmentCollector,
    ppo: PPO,
    *,
    steps: int,
    probe: Callable[[Tensor], dict[str, float]] | None = None,
    probe_every: int = 10,
    probe_batch: int = 2048,
    description: str = "",
) -> None:
    """Train until `steps` environment steps, continuing the run's last checkpoint if it has one.

    Every update writes one row of `metrics.csv`, every episode one of `episodes.csv` (`step`, `return`, `length`,
    `friction`, `task`). Continued exactly: a run that was stopped between any two updates writes the same tables.

    Args:
        run: where everything is written.
        collector: the environment side; closed by the caller.
        ppo: the learner side.
        steps: environment steps in all; the last batch is finished.
        probe: looks at the networks on a batch of observations and returns named numbers.
        probe_every: updates between two looks; the first update always has one.
        probe_batch: most observations it looks with.
        description: label of the progress bar.

    Raises:
        NotFiniteError: the learning diverged; the last checkpoint is kept.
    """
    updates = 0
    if run.state is not None:
        collector.load_state_dict(run.state["collector"])
        ppo.load_state_dict(run.state["ppo"])
        updates = run.state["updates"]
    recent: deque[float] = deque(maxlen=20)
    unknown: dict[str, float] = {}
    episodes = run.table("episodes")

    def state() -> dict[str, Any]:
        return {"collector": collector.state_dict(), "ppo": ppo.state_dict(), "updates": updates}

    with run.progress(total=steps, initial=collector.frames, unit="frames", description=description) as bar:
        while collector.frames < steps and not run.stop_requested:
            clock = [time.perf_counter()]
            batch = collector.collect()
            clock.append(time.perf_counter())
            metrics = _world(collector) | ppo.update(batch)
            clock.append(time.perf_counter())
            updates += 1
            metrics |= _surgery(ppo)
            if probe is not None:
                # the first look, in this session or an earlier one, tells which columns there are
                if updates % probe_every == 1 % probe_every or not unknown:
                    seen = probe(batch["observation"].reshape(-1, batch["observation"].shape[-1])[:probe_batch])
                    unknown = dict.fromkeys(seen, math.nan)
                metrics |= seen if updates % probe_every == 1 % probe_every else unknown
            clock.append(time.perf_counter())
            if collector.episodes:
                episodes.extend({key: [row[key] for row in collector.episodes] for key in collector.episodes[0]})
            run.log(collector.frames, metrics, timing=_timing(clock, collector.frames_per_batch))
            recent.extend(row["return"] for row in collector.episodes)
            bar.set_postfix_str(_postfix(metrics, recent), refresh=False)
            bar.update(collector.frames_per_batch)
            if run.save_due():
                run.save(collector.frames, state())
    if collector.frames >= steps:
        run.finish(collector.frames, state())
    else:
        run.save(collector.frames, state())


def _world(collector: EnvironmentCollector) -> dict[str, float]:
    rows = collector.episodes
    return {
        "return/mean": float(np.mean([row["return"] for row in rows])) if rows else math.nan,
        "return/episodes": len(rows),
        "episode/length": float(np.mean([row["length"] for row in rows])) if rows else math.nan,
        "task/friction": float(collector.world("friction").mean()),
        "task/index": float(collector.world("task").mean()),
    }


def _surgery(ppo: PPO) -> dict[str, float]:
    """Reports of the after-step operations; counts per layer also as a total over the layers."""
    report = {name: value for operation in ppo.operations for name, value in operation.report().items()}
    totals = {
        total: sum(value for name, value in report.items() if name.startswith(f"{total}/"))
        for total in ("replaced", "eligible")
        if any(name.startswith(f"{total}/") for name in report)
    }
    return {f"surgery/{name}": value for name, value in (totals | report).items()}


def _timing(clock: list[float], frames: int) -> dict[str, float]:
    collect, update, look = (after - before for before, after in itertools.pairwise(clock))
    return {
        "time/frames_per_second": frames / (clock[-1] - clock[0]),
        "time/collect_seconds": collect,
        "time/update_seconds": update,
        "time/look_seconds": look,
    }


def _postfix(metrics: dict[str, float], recent: deque[float]) -> str:
    parts = []
    if recent:
        parts.append(f"return {np.mean(recent):.0f}")
    if not math.isnan(metrics["task/friction"]):
        parts.append(f"friction {metrics['task/friction']:.2f} (task {metrics['task/index']:.0f})")
    if "surgery/replaced" in metrics:
        parts.append(f"replaced {metrics['surgery/replaced']:.0f}")
    return ", ".join(parts)
