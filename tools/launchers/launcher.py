"""The loop that every launcher shares: start runs, watch them, tell how they end."""

from __future__ import annotations

import abc
import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from continual_agents.runs.interrupt import StopSignal

from .overview import Overview
from .worker import LOG

Config = Mapping[str, Any]
Started = TypeVar("Started")


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        folder: its run folder.
        kind: `finished`; `stopped` (saved, to be continued); `diverged`: numbers that are not finite, which the same
            settings will give again; `failed`: anything else, a death of its process included.
        error: what was wrong, in one line.
    """

    folder: Path
    kind: Literal["finished", "stopped", "diverged", "failed"]
    error: str = ""

    @property
    def bad(self) -> bool:
        """Whether there is something to tell about it."""
        return self.kind in ("failed", "diverged")

    def __str__(self) -> str:
        log = self.folder / LOG
        return f"{self.folder} {self.kind}: {self.error}{f' (its log: {log})' if log.exists() else ''}"


class Launcher(abc.ABC, Generic[Started]):
    """Trains runs in other processes, here or elsewhere; what fails does not end the others.

    A subclass says how a run is started (`start`), whether it has ended (`outcome`), and how it is asked to stop.

    Args:
        at_once: most runs at a time.

    Attributes:
        stopped_by: number of the signal that stopped the last `run`; 0: none.

    Example:
        >>> with Pool(2) as launcher:
        ...     outcomes = launcher.run(configs)
    """

    def __init__(self, at_once: int):
        self._at_once = at_once
        self.stopped_by = 0

    @abc.abstractmethod
    def start(self, config: Config) -> Started:
        """Start a run."""

    @abc.abstractmethod
    def outcome(self, started: Started, config: Config, *, stopping: bool) -> Outcome | None:
        """How it ended; None while it has not."""

    @abc.abstractmethod
    def stop(self, started: Started) -> None:
        """Ask it to save and end; asked again until it has."""

    @abc.abstractmethod
    def wait(self, started: Sequence[Started]) -> None:
        """Return when one of them has ended, or after a moment."""

    def __enter__(self) -> Launcher[Started]:
        return self

    def __exit__(self, *_: object) -> None:
        """Let go what is held."""

    def tell(self, outcomes: Sequence[Outcome], wanted: int) -> int:
        """Name on standard error what failed and what is left of the `wanted` runs.

        Returns:
            The command's exit code: 0, or 1 when runs failed, or 128 + N when signal N has stopped them.
        """
        for outcome in outcomes:
            if outcome.bad:
                print(outcome, file=sys.stderr)
        finished = sum(outcome.kind in ("finished", "diverged") for outcome in outcomes)
        if finished == wanted:
            return 1 if any(outcome.bad for outcome in outcomes) else 0
        how = "stopped with" if self.stopped_by else "ended with"
        print(f"{how} {wanted - finished} of {wanted} runs left: the same command continues", file=sys.stderr)
        return 128 + self.stopped_by if self.stopped_by else 1

    def run(
        self,
        configs: Sequence[Config],
        *,
        title: str = "runs",
        on_end: Callable[[int, Outcome], None] = lambda number, outcome: None,
    ) -> list[Outcome]:
        """Train every configuration.

        Ctrl-C and SIGTERM stop all runs at their next safe point, saved.

        Args:
            configs: resolved configurations of runs, in the order in which they start.
            title: what the overview calls them.
            on_end: is told of each run as it ends, with its number in `configs`.

        Returns:
            How each ended; without those that had not begun when it was stopped.
        """
        outcomes: list[Outcome] = []
        waiting = list(enumerate(configs))[::-1]
        running: list[tuple[int, Started]] = []
        shown = any(config["progress"] for config in configs)
        with StopSignal() as stop, Overview(title, len(configs), shown=shown) as overview:
            while running or (waiting and not stop.requested):
                while len(running) < self._at_once and waiting and not stop.requested:
                    number, config = waiting.pop()
                    running.append((number, self.start(config)))
                    overview.begin(number, config)
                if stop.requested:
                    for _, started in running:
                        self.stop(started)
                self.wait([started for _, started in running])
                for number, started in list(running):
                    outcome = self.outcome(started, configs[number], stopping=stop.requested)
                    if outcome is not None:
                        running.remove((number, started))
                        outcomes.append(outcome)
                        overview.end(number, failed=outcome.bad)
                        on_end(number, outcome)
                overview.draw()
        self.stopped_by = stop.number
        return outcomes
