"""One line about many runs: how many are done, running, left and failed, and the time left."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from tqdm import tqdm


class Overview:
    """A progress line on standard error; a log file gets one now and then, a terminal a living one.

    Args:
        title: what the runs are called.
        total: how many there are.
        shown: False draws nothing.
    """

    def __init__(self, title: str, total: int, *, shown: bool = True):
        self.done = self.failed = 0
        self._running: dict[int, tuple[Path, float]] = {}
        self._title, self._total = title, total
        self._bar = tqdm(
            total=total,
            disable=not shown,
            bar_format="{percentage:3.0f}%|{bar:20}| {desc} [{elapsed}<{remaining}]",
            dynamic_ncols=True,
            mininterval=0.5 if sys.stderr.isatty() else 30.0,
            smoothing=0.0,  # time left from the mean speed: runs end in bursts
        )
        self._first: float | None = None

    def __enter__(self) -> Overview:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.draw()
        self._bar.refresh()
        self._bar.close()

    def __str__(self) -> str:
        running = len(self._running)
        left = self._total - self.done - running - self.failed
        return f"{self._title}: {self.done} done, {running} running, {left} left, {self.failed} failed"

    def begin(self, number: int, config: Mapping[str, Any]) -> None:
        """A run starts or continues."""
        self._running[number] = Path(config["folder"]), float(config["experiment"].get("steps") or 0)

    def end(self, number: int, *, failed: bool = False) -> None:
        """A run ended."""
        del self._running[number]
        self.failed += failed
        self.done += not failed

    def draw(self) -> None:
        """Show how far they are, if it is time."""
        if self._bar.disable:
            return
        now = self.done + self.failed + sum(fraction(*one) for one in self._running.values())
        if self._first is None:  # what an earlier session did took no time in this one
            self._first = self._bar.initial = self._bar.n = now
        self._bar.set_description_str(str(self), refresh=False)
        self._bar.update(now - self._bar.n)


def fraction(folder: Path, steps: float) -> float:
    """How much of a run is done, by the last row of its metrics.csv; 0 where its length is not known."""
    path = folder / "metrics.csv"
    if not steps or not path.exists():
        return 0.0
    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - 65_536))
        rows = file.read().split(b"\n")[:-1]  # the last piece is empty, or a row half written
    step = rows[-1].split(b",")[0] if len(rows) > 1 else b""
    return min(1.0, int(step) / steps) if step.isdigit() else 0.0
