"""The training loop: collect, update, look, write down, save."""

import dataclasses
import math
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import numpy as np
from tensordict import TensorDict

from continual_agents.methods import AfterStep
from continual_agents.runs import Run
from continual_agents.settings import check_counts

from .collector import EnvironmentCollector
from .errors import EnvironmentFault, NotFiniteError
from .learner import Learner


class Film(Protocol):
    """Pictures of the policy at play.

    Attributes:
        frames_per_second: how fast they follow each other.
    """

    frames_per_second: int

    def __call__(self, step: int, friction: float) -> np.ndarray:
        """The policy after `step` steps on ground of `friction`: `[time, height, width, 3]` uint8."""


def train(
    run: Run,
    collector: EnvironmentCollector,
    learner: Learner,
    *,
    steps: int,
    probe: Callable[[Any], dict[str, float]] | None = None,
    probe_every: int = 10,
    probe_batch: int = 2048,
    description: str = "",
    film: Film | None = None,
) -> None:
    """Train until `steps` environment steps, continuing the run's last checkpoint if it has one.

    Every update writes one row of `metrics.csv`, every episode one of `episodes.csv` (`step`, `return`, `length`,
    `friction`, `task`). Continued exactly: a run that was stopped between any two updates writes the same tables.

    Args:
        run: where everything is written.
        collector: the environment side; closed by the caller.
        learner: the agent's side.
        steps: environment steps in all; the last batch is finished.
        probe: looks at the networks on a batch of observations and returns named numbers.
        probe_every: updates between two looks; the first update always has one.
        probe_batch: most observations it looks with.
        description: label of the progress bar.
        film: shows the policy at the end of every task.

    Raises:
        ValueError: `probe_every` or `probe_batch` below 1.
        NotFiniteError: the learning diverged; the last checkpoint is kept.
        EnvironmentFault: the environment failed; the last checkpoint is kept.
    """
    check_counts("probe", every=probe_every, batch=probe_batch)
    loop = Loop(run, collector, learner, probe, probe_every, probe_batch, film=film, steps=steps)
    loop.resume()
    with run.progress(total=steps, initial=collector.frames, unit="frames", description=description) as bar:
        while collector.frames < steps and not run.stop_requested:
            try:
                metrics = loop.step()
            except (NotFiniteError, EnvironmentFault) as error:
                raise type(error)(
                    f"{error}. The last good checkpoint of {run.folder}: {run.last_checkpoint}"
                ) from error
            bar.set_postfix_str(loop.summary(metrics), refresh=False)
            bar.update(collector.frames - bar.n)
            if collector.frames < steps and run.save_due():
                loop.save()
    learner.save_beside(run.folder)
    if collector.frames >= steps:
        run.finish(collector.frames, loop.state())
    else:
        run.save(collector.frames, loop.state())


@dataclasses.dataclass(eq=False)
class Loop:
    """One turn of the loop, and what has to be carried from turn to turn."""

    run: Run
    collector: EnvironmentCollector
    learner: Learner
    probe: Callable[[Any], dict[str, float]] | None
    probe_every: int
    probe_batch: int
    film: Film | None = None
    steps: float = math.inf
    updates: int = 0
    probed: list[str] = dataclasses.field(default_factory=list)
    """Names that the probe gives, so that rows without a look have the columns."""
    recent: deque[float] = dataclasses.field(default_factory=lambda: deque(maxlen=20))
    write_seconds: float = math.nan

    def resume(self) -> None:
        """Continue from the run's checkpoint, if there is one."""
        self.learner.begin_beside(self.run.folder)
        state = self.run.state
        if state is None:
            return
        with self.run.continuing():
            self.collector.load_state_dict(state["collector"])
            self.learner.load_state_dict(state["learner"])
            self.learner.load_beside(self.run.folder)
        self.updates = state["updates"]
        self.probed = list(state["probed"])

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {
            "collector": self.collector.state_dict(),
            "learner": self.learner.state_dict(),
            "updates": self.updates,
            "probed": self.probed,
        }

    def save(self) -> None:
        """Write a checkpoint, counted as writing."""
        start = time.perf_counter()
        self.learner.save_beside(self.run.folder)
        self.run.save(self.collector.frames, self.state())
        self.write_seconds += time.perf_counter() - start

    def step(self) -> dict[str, float]:
        """Collect, update, look and write one row."""
        collector, learner = self.collector, self.learner
        before, seconds = self._ground(), np.zeros(4)
        rows, episodes = [], []
        for _ in range(max(1, learner.frames_per_row // collector.frames_per_batch)):
            batch, row = self._learn(seconds)
            rows.append(row)
            episodes += collector.episodes
        metrics = _world(collector, episodes) | _mean(rows)
        clock = [time.perf_counter()]
        looks = self.updates % self.probe_every == 0
        self.updates += 1
        if self.film is not None:
            self._show(self.film, *before)
        metrics |= surgery_report(learner.operations)
        if self.probe is not None:
            metrics |= self._look(batch) if looks else dict.fromkeys(self.probed, math.nan)
        clock.append(time.perf_counter())
        timing = self._timing(len(rows), seconds, look=clock[1] - clock[0])
        if episodes:
            columns = {key: [row[key] for row in episodes] for key in episodes[0]}
            self.run.table("episodes").extend(columns)
        step_size = float(learner.optimizer.param_groups[0]["lr"])
        self.run.log(collector.frames, metrics, timing=timing, curves={"optimizer/step_size": step_size})
        self.recent.extend(row["return"] for row in episodes)
        self.write_seconds = time.perf_counter() - clock[-1]
        return metrics

    def _learn(self, seconds: np.ndarray) -> tuple[TensorDict, dict[str, float]]:
        """Collect a batch and learn from it; adds up the time of collection, environment, update and operations."""
        collector, learner = self.collector, self.learner
        before, start = self._ground()[0], time.perf_counter()
        batch = collector.collect()
        collected = time.perf_counter()
        metrics = learner.update(batch)
        task = self._ground()[0]
        if task != before and not math.isnan(task):
            # between two batches: the steps of the new task that this batch already holds were the old policy's
            learner.start_task()
        now = time.perf_counter()
        seconds += (collected - start, collector.environment_seconds, now - collected, learner.operation_seconds)
        return batch, {"reward/mean": float(batch["next", "reward"].mean())} | metrics

    def _look(self, batch: TensorDict) -> dict[str, float]:
        """Probe the networks; draw the operations' histograms, if they have any."""
        assert self.probe is not None
        seen = self.probe(self.learner.probe_inputs(batch, self.probe_batch))
        self.probed = list(seen)
        for operation in self.learner.operations:
            for name, values in getattr(operation, "histograms", dict)().items():
                self.run.loggers.histogram(f"surgery/{name}", values, self.collector.frames)
        return seen

    def _ground(self) -> tuple[float, float]:
        """Task and friction of the first environment."""
        return float(self.collector.world("task")[0]), float(self.collector.world("friction")[0])

    def _show(self, film: Film, task: float, friction: float) -> None:
        """Film the policy if the task has just ended, or the run does."""
        frames = self.collector.frames
        if self._ground()[0] != task or frames >= self.steps:
            self.run.loggers.video("video/policy", film(frames, friction), frames, film.frames_per_second)

    def _timing(self, batches: int, seconds: np.ndarray, *, look: float) -> dict[str, float]:
        """Seconds of this row by where they went; writing is the previous row's, saving included."""
        collect, environment, update, surgery = seconds.tolist()
        return {
            "time/frames_per_second": batches * self.collector.frames_per_batch / (collect + update + look),
            "time/environment_seconds": environment,
            "time/policy_seconds": collect - environment,
            "time/update_seconds": update - surgery,
            "time/surgery_seconds": surgery,
            "time/look_seconds": look,
            "time/write_seconds": self.write_seconds,
        }

    def summary(self, metrics: dict[str, float]) -> str:
        """What the progress bar says besides speed and time left."""
        parts = []
        if self.recent:
            parts.append(f"return {np.mean(self.recent):.0f}")
        if not math.isnan(metrics["task/friction"]):
            parts.append(f"friction {metrics['task/friction']:.2f} (task {metrics['task/index']:.0f})")
        if "surgery/replaced" in metrics:
            parts.append(f"replaced {metrics['surgery/replaced']:.0f}")
        return ", ".join(parts)


def _mean(rows: list[dict[str, float]]) -> dict[str, float]:
    """Means of the updates of one row of the table, those that know a number; skipped steps are added up."""
    if len(rows) == 1:
        return rows[0]
    columns = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    means = {name: float(np.nanmean(one)) if np.isfinite(one).any() else math.nan for name, one in columns.items()}
    return means | {name: float(np.nansum(one)) for name, one in columns.items() if name == "optimizer/skipped_steps"}


def _world(collector: EnvironmentCollector, rows: list[dict[str, float]]) -> dict[str, float]:
    return {
        "return/mean": float(np.mean([row["return"] for row in rows])) if rows else math.nan,
        "return/episodes": len(rows),
        "episode/length": float(np.mean([row["length"] for row in rows])) if rows else math.nan,
        "task/friction": float(collector.world("friction").mean()),
        "task/index": float(collector.world("task").mean()),
    }


def surgery_report(operations: Iterable[AfterStep]) -> dict[str, float]:
    """Reports of the after-step operations; counts per layer also as a total over the layers."""
    report = {name: value for operation in operations for name, value in operation.report().items()}
    totals = {
        total: sum(value for name, value in report.items() if name.startswith(f"{total}/"))
        for total in ("replaced", "eligible")
        if any(name.startswith(f"{total}/") for name in report)
    }
    return {f"surgery/{name}": value for name, value in (totals | report).items()}
