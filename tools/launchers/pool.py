"""Worker processes on this machine that import torch once and outlive one another's deaths."""

from __future__ import annotations

import concurrent.futures
import contextlib
import faulthandler
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from .launcher import Config, Launcher, Outcome
from .worker import train


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Pool(Launcher[tuple["Worker", "Future[str]"]]):
    """Worker processes of this one; if it is killed, they save their runs and end by themselves.

    Args:
        n_jobs: processes at a time; -1: one per core.

    Raises:
        ValueError: `n_jobs` out of range.
    """

    def __init__(self, *, n_jobs: int = -1):
        if n_jobs < 1 and n_jobs != -1:
            raise ValueError(f"n_jobs={n_jobs}: at least 1, or -1 for one per core")
        super().__init__(cores() if n_jobs == -1 else n_jobs)
        self._idle: list[Worker] = []
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the workers: a core each

    def __exit__(self, *_: object) -> None:
        for worker in self._idle:
            worker.close()

    def start(self, config: Config) -> tuple[Worker, Future[str]]:
        """Give the run to a worker that is idle, or to a new one."""
        worker = self._idle.pop() if self._idle else Worker()
        return worker, worker.executor.submit(train, config)

    def outcome(self, started: tuple[Worker, Future[str]], config: Config, *, stopping: bool) -> Outcome | None:
        """What the worker says of it; one that died is replaced."""
        worker, future = started
        folder = Path(config["folder"])
        if not future.done():
            return None
        try:
            kind, _, error = future.result().partition(" ")
        except BrokenProcessPool:
            worker.close()
            if stopping:  # between two runs, or before it had opened its folder
                return Outcome(folder, "stopped")
            return Outcome(folder, "failed", "its process died (was it out of memory?); the same command continues it")
        self._idle.append(worker)
        return Outcome(folder, kind, error)  # type: ignore[arg-type]

    def stop(self, started: tuple[Worker, Future[str]]) -> None:
        """Send SIGTERM: a run saves and ends; outside of a run the process ends, and nothing is lost."""
        if not started[1].done():
            started[0].stop()

    def wait(self, started: Sequence[tuple[Worker, Future[str]]]) -> None:
        """Return when one of them has ended, or after half a second."""
        futures = [future for _, future in started]
        concurrent.futures.wait(futures, timeout=0.5, return_when=concurrent.futures.FIRST_COMPLETED)


class Worker:
    """A process that trains one run after the other.

    Each has an executor of its own: an executor whose process dies gives up all that it was asked for.

    Attributes:
        executor: takes what it has to do.
        pid: its process, once that is there.
    """

    def __init__(self) -> None:
        self.executor = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=_begin)
        self.pid = self.executor.submit(os.getpid)

    def stop(self) -> None:
        """Send it SIGTERM, once it is there."""
        if self.pid.done() and not self.pid.exception():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid.result(), signal.SIGTERM)

    def close(self) -> None:
        """Let the process go."""
        self.executor.shutdown(wait=False, cancel_futures=True)


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
