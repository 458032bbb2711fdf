"""Many runs on one machine: worker processes that import torch once and outlive one another's deaths."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import faulthandler
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, Literal

from continual_agents.runs.interrupt import StopSignal
from tools.overview import Overview

LOG = "log.txt"
"""File of a run folder for what the run printed: warnings, tracebacks."""


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

    def __str__(self) -> str:
        log = self.folder / LOG
        return f"{self.folder} {self.kind}: {self.error}{f' (its log: {log})' if log.exists() else ''}"


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Pool:
    """Worker processes that train runs; what fails does not end the others.

    Args:
        workers: processes at a time.

    Example:
        >>> with Pool(2) as pool:
        ...     outcomes = pool.run(configs)
    """

    def __init__(self, workers: int):
        self._size = workers
        self._idle: list[Worker] = []

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._idle:
            worker.close()

    def run(
        self,
        configs: Sequence[Mapping[str, Any]],
        *,
        title: str = "runs",
        on_end: Callable[[int, Outcome], None] = lambda number, outcome: None,
    ) -> list[Outcome]:
        """Train every configuration.

        Ctrl-C and SIGTERM stop all runs at their next safe point, saved. If this process is killed, its workers stop
        by themselves.

        Args:
            configs: resolved configurations of runs, in the order in which they start.
            title: what the overview calls them.
            on_end: is told of each run as it ends, with its number in `configs`.

        Returns:
            How each ended; without those that had not begun when it was stopped.
        """
        outcomes: list[Outcome] = []
        waiting = list(enumerate(configs))[::-1]
        running: dict[Future[str], tuple[int, Worker]] = {}
        with StopSignal() as stop, Overview(title, len(configs)) as overview:
            while running or (waiting and not stop.requested):
                while len(running) < self._size and waiting and not stop.requested:
                    number, config = waiting.pop()
                    worker = self._idle.pop() if self._idle else Worker()
                    running[worker.submit(config)] = number, worker
                    overview.begin(number, config)
                if stop.requested:
                    for _, worker in running.values():
                        worker.stop()
                ended, _ = concurrent.futures.wait(running, timeout=0.5, return_when=concurrent.futures.FIRST_COMPLETED)
                for future in ended:
                    number, worker = running.pop(future)
                    outcome = worker.outcome(future, configs[number], stopping=stop.requested)
                    outcomes.append(outcome)
                    overview.end(number, failed=outcome.kind in ("failed", "diverged"))
                    on_end(number, outcome)
                    if worker.lives:
                        self._idle.append(worker)
                overview.draw()
        return outcomes


class Worker:
    """A process that trains one run after the other.

    Each has an executor of its own: an executor whose process dies gives up all that it was asked for.
    """

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._executor = ProcessPoolExecutor(1, mp_context=context, initializer=_begin)
        self._process = self._executor.submit(os.getpid)
        self.lives = True

    def submit(self, config: Mapping[str, Any]) -> Future[str]:
        """Train a run; gives the kind of its outcome."""
        return self._executor.submit(_train, config)

    def stop(self) -> None:
        """Ask it to save its run and end."""
        if self._process.done() and not self._process.exception():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.result(), signal.SIGTERM)

    def outcome(self, future: Future[str], config: Mapping[str, Any], *, stopping: bool) -> Outcome:
        """How a run ended that `submit` began."""
        folder = Path(config["folder"])
        try:
            kind, _, error = future.result().partition(" ")
            return Outcome(folder, kind, error)  # type: ignore[arg-type]
        except BrokenProcessPool:
            self.lives = False
            self.close()
            if stopping:  # between two runs, or before it had opened its folder
                return Outcome(folder, "stopped")
            return Outcome(
                folder, "failed", "its process died, for want of memory perhaps; the same command continues it"
            )

    def close(self) -> None:
        """Let the process go."""
        self._executor.shutdown(wait=False, cancel_futures=True)


def _begin() -> None:
    """What a worker does first."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to all; the parent tells who has to stop
    faulthandler.enable()
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Stop when the parent is gone: an executor's worker would wait for its next job for ever.

    SIGTERM again and again: a run saves at the first, and between two runs the next one ends the process.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    while True:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1.0)


def _train(config: Mapping[str, Any]) -> str:
    """Train one run, its output in its log: the outcome's kind, and the error in one line."""
    from tools.train import train_one

    folder = Path(config["folder"])
    with _output_to(folder / LOG):
        try:
            return "finished" if train_one(dict(config), bar=False) else "stopped"
        except FloatingPointError as error:
            return f"diverged {_one_line(error)}"
        except Exception as error:
            traceback.print_exc()
            return f"failed {_one_line(error)}"


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


@contextlib.contextmanager
def _output_to(path: Path) -> Iterator[None]:
    """Append standard output and error to a file, that of C libraries included; an empty file is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = [os.dup(number) for number in (1, 2)]
    with open(path, "ab", buffering=0) as file:
        for number in (1, 2):
            os.dup2(file.fileno(), number)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        for number, descriptor in zip((1, 2), kept, strict=True):
            os.dup2(descriptor, number)
            os.close(descriptor)
        if path.exists() and path.stat().st_size == 0:
            path.unlink()
