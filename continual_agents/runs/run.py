"""One run: its folder, and everything written into it."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from tqdm import tqdm

from .checkpoint import Checkpoints, damage_of_run, write_atomically
from .configuration import configuration_text
from .folder import check_contents, check_folder, check_same, check_tables
from .interrupt import StopSignal
from .lock import Lock
from .output import quiet_worker
from .records import Records
from .provenance import record_session
from .faults import storage_error, told_in_one_line


class Run(Records):
    """A run folder that is written as the run goes and continued by the same command.

    ```
    config.yaml        the resolved configuration
    environment.json   versions, machine, command and git state of every session
    metrics.csv        one row per logging step, bit-identical however often the run was interrupted
    timing.csv         speeds of this machine, never identical
    events.out.*       the same as curves, for TensorBoard; those of a stream's methods in a folder METHOD/ each
    checkpoints/       the last good states
    ```

    Attributes:
        step: of the last checkpoint.
        state: what it holds; None in a new run.
        finished: whether it is the end.
        save_cost: seconds that the last checkpoint of this session took, gathering the state included.

    Use `Run.open`, preferably in a `with` block: it holds the folder's lock and turns Ctrl-C and SIGTERM into
    `stop_requested`.
    """

    def __init__(
        self,
        folder: Path,
        config: Mapping[str, Any],
        lock: Lock,
        *,
        save_seconds: float,
        keep: int,
        bar_position: int | None,
        logger: Mapping[str, Any],
    ):
        self._checkpoints = Checkpoints(folder / "checkpoints", keep=keep)
        checkpoint = self._checkpoints.load(damage=damage_of_run)
        self.step = checkpoint["step"] if checkpoint else 0
        content = {"logged": self.step, **checkpoint["state"]} if checkpoint else None
        if content:
            check_tables(folder, content["rows"])
        super().__init__(folder, config, lock, logger=logger, counted=content)
        self.state: dict[str, Any] | None = content["run"] if content else None
        self.finished = bool(content and content["finished"])
        self._bar_position = bar_position
        self._save_seconds = save_seconds
        self._signal = StopSignal()
        self._quiet = quiet_worker()
        self._last_save = time.monotonic()
        self._due_since: float | None = None
        self.save_cost = 0.0

    @classmethod
    def open(
        cls,
        folder: str | Path,
        config: Mapping[str, Any],
        *,
        may_change: Sequence[str] = (),
        save_seconds: float = 60.0,
        keep: int = 2,
        bar_position: int | None = 0,
        logger: Mapping[str, Any] | None = None,
    ) -> Run:
        """Start a run in an empty folder, or continue the one that is there.

        Args:
            folder: the run folder; made if missing.
            config: resolved configuration, plain values only.
            may_change: dotted keys, or groups of them, that a continued run may give differently (its length, say).
            save_seconds: least time between periodic checkpoints, seconds; 0: at every chance, whatever it costs.
            keep: checkpoints to keep.
            bar_position: line of the progress bar when several runs share a terminal; None draws none.
            logger: where the curves go, as `check_logger` takes it; TensorBoard alone when None.

        Raises:
            RunError: another process uses the folder, or it belongs to another configuration.
            StorageError: the folder cannot be written.
        """
        folder = Path(folder)
        with contextlib.ExitStack() as undo, told_in_one_line(folder, "as it was"):
            folder.mkdir(parents=True, exist_ok=True)
            check_contents(folder)
            lock = undo.enter_context(Lock(folder))
            check_same(folder, config, may_change)
            write_atomically(folder / "config.yaml", lambda file: file.write(configuration_text(config).encode()))
            run = cls(
                folder, config, lock, save_seconds=save_seconds, keep=keep, bar_position=bar_position,
                logger=logger or {},
            )  # fmt: skip
            record_session(folder, run.step)
            undo.pop_all()
        return run

    @staticmethod
    def check(folder: str | Path, config: Mapping[str, Any], *, may_change: Sequence[str] = ()) -> None:
        """Whether `open` would accept the folder; touches nothing.

        Raises:
            RunError: another process uses it, it belongs to another configuration, it cannot be made, or its tables
                lack what was written.
            StorageError: it cannot be written.
            CheckpointError: its checkpoints cannot be continued from.
        """
        check_folder(Path(folder), config, may_change)
        content = Checkpoints.check(Path(folder) / "checkpoints")
        if content is not None:
            check_tables(Path(folder), content["state"]["rows"])

    def __enter__(self) -> Run:
        self._signal.__enter__()
        self._quiet.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._signal.__exit__(kind, error, traceback)
        try:
            self.close()
        except OSError as problem:
            if error is None:
                error = problem
            # else nothing is lost by it: what could not be written lies behind the last checkpoint
        self._quiet.__exit__(None, None, None)
        fault = storage_error(error, self.folder, self.last_checkpoint)
        if fault is not None:
            raise fault from error
        if kind is None and error is not None:
            raise error

    @property
    def stop_requested(self) -> bool:
        """Ctrl-C or SIGTERM came: finish the step, save, leave."""
        return self._signal.requested

    @property
    def stop_signal(self) -> int:
        """Number of the signal that asked for it; 0 if none did."""
        return self._signal.number

    @property
    def last_checkpoint(self) -> str:
        """The last good checkpoint in words, for messages."""
        return f"step {self.step}" if self.step else "none yet"

    def progress(self, *, total: int, initial: int = 0, unit: str = "steps", description: str = "") -> tqdm:
        """A bar on standard error that starts where the run continues, to be used in a `with` block."""
        return tqdm(
            total=total,
            initial=initial,
            unit=unit,
            unit_scale=True,
            desc=description,
            dynamic_ncols=True,
            # a log file gets a line now and then, a terminal a living bar
            mininterval=0.2 if sys.stderr is not None and sys.stderr.isatty() else 30.0,
            position=self._bar_position,
            disable=self._bar_position is None or sys.stderr is None,
        )

    def save_due(self) -> bool:
        """Whether a periodic checkpoint is due: after `save_seconds`, and so rarely that saving stays under 2%."""
        now = time.monotonic()
        if self._save_seconds > 0 and now - self._last_save < max(self._save_seconds, 50 * self.save_cost):
            return False
        self._due_since = now  # gathering the state is a part of the cost
        return True

    def save(
        self,
        step: int,
        state: Mapping[str, Any],
        *,
        finished: bool = False,
        mark: Mapping[str, Any] | None = None,
    ) -> None:
        """Write a checkpoint that the same command continues from. Tables and curves are made durable first."""
        self._lock.check()
        started = self._due_since or time.monotonic()
        self.sync()
        self._checkpoints.save(step, {"run": dict(state), **self.counts(mark), "finished": finished})
        self.step = step
        self.finished = finished
        self._last_save, self._due_since = time.monotonic(), None
        self.save_cost = self._last_save - started

    def finish(
        self,
        step: int,
        state: Mapping[str, Any],
        metrics: Mapping[str, float] | None = None,
        *,
        mark: Mapping[str, Any] | None = None,
    ) -> None:
        """Save the final state and write the final metrics, by which loggers compare runs.

        A run may end with a row that it would not have if it were longer: `state` and `mark` are then those before the
        row, which a longer run takes away again.

        A loop makes no periodic checkpoint at its very end: continued from there, the final metrics would stand twice.
        """
        final = dict(metrics) if metrics is not None else self._latest
        self.loggers.finish(step, final)
        self.save(step, state, finished=True, mark=mark)

    def close(self) -> None:
        """Close every file and release the folder."""
        try:
            super().close()
        finally:
            self._lock.close()
