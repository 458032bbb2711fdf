"""One run: its folder, and everything written into it."""

from __future__ import annotations

import contextlib
import json
import math
import sys
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from tqdm import tqdm

from .checkpoint import Checkpoints, damage_of_run, write_atomically
from .configuration import configuration_text
from .provenance import changes, describe, keep_sessions, read_sessions
from .faults import Fault, RunError
from .folder import TIMING, check_contents, check_folder, check_same, check_tables
from .glance import Glance
from .interrupt import StopSignal
from .lock import Lock
from .logger import run_statistics
from .loggers import Loggers, open_loggers
from .output import quiet_worker
from .storage import storage_error, told_in_one_line
from .table import Table, check_table


class Run:
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
        self.folder = folder
        self._bar_position = bar_position
        self.config = config
        self._lock = lock
        self._save_seconds = save_seconds
        self._checkpoints = Checkpoints(folder / "checkpoints", keep=keep)
        checkpoint = self._checkpoints.load(damage=damage_of_run)
        if checkpoint:
            check_tables(folder, checkpoint["state"]["rows"])
        self.step = checkpoint["step"] if checkpoint else 0
        self.state: dict[str, Any] | None = checkpoint["state"]["run"] if checkpoint else None
        self.finished = bool(checkpoint and checkpoint["state"]["finished"])
        self._rows: dict[str, int] = checkpoint["state"]["rows"] if checkpoint else {}
        # the last step that curves and tables know; a checkpoint may lie behind it, in the middle of a row
        self._logged: int = checkpoint["state"].get("logged", self.step) if checkpoint else 0
        self._glance = Glance(checkpoint["state"].get("glance") if checkpoint else None)
        self._tables: dict[str, Table] = {}
        self._logger_settings = logger
        self._loggers: Loggers | None = None
        self._signal = StopSignal()
        self._quiet = quiet_worker()
        self._last_save = time.monotonic()
        self._due_since: float | None = None
        self.save_cost = 0.0
        # the last known value of each metric; what a run ends with must not depend on where it was continued
        self._latest: dict[str, float] = checkpoint["state"].get("latest", {}) if checkpoint else {}

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
            run._record_session()
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

    @property
    def loggers(self) -> Loggers:
        """Where the curves go, opened at the first use."""
        if self._loggers is None:
            # without a checkpoint, what a killed predecessor wrote is hidden from step 0 on
            first_step = 0 if self.state is None else self._logged + 1
            self._loggers = open_loggers(self.folder, self.config, self._logger_settings, first_step=first_step)
        return self._loggers

    @contextlib.contextmanager
    def continuing(self) -> Iterator[None]:
        """Say in one line what comes of a checkpoint or table that another version of the code wrote.

        Raises:
            RunError: instead of what is raised inside, if the run was begun in another session.
        """
        try:
            yield
        except (Fault, OSError):
            raise
        except Exception as error:  # whatever a state of another shape leads to
            if self.state is None:
                raise
            raise RunError(
                f"{self.folder} does not fit this version of the code ({' '.join(str(error).split())}): continue it with "
                "the version that wrote it (environment.json names it), or give another folder=..."
            ) from error

    def table(self, name: str) -> Table:
        """The table `NAME.csv` of this run, cut to what the last checkpoint counted.

        Raises:
            RunError: somebody has taken rows out of it.
        """
        if name not in self._tables:
            rows = self._rows.get(name, 0)
            try:
                if name == TIMING and rows:
                    rows = self._rows_of_timing(rows)
                self._tables[name] = Table(self.folder / f"{name}.csv", rows=rows)
            except ValueError as error:
                raise RunError(str(error)) from error
        return self._tables[name]

    def _rows_of_timing(self, rows: int) -> int:
        """As many rows as timing.csv keeps: nothing else depends on it, so a damaged one begins again."""
        try:
            check_table(self.folder / f"{TIMING}.csv", rows)
        except ValueError as error:
            warnings.warn(f"{error.args[0].split(':')[0]}: it begins again, the other tables are whole", stacklevel=4)
            return 0
        return rows

    def _log_timing(self, row: Mapping[str, Any]) -> None:
        table = self.table(TIMING)
        if table.columns and not set(row) <= set(table.columns):
            warnings.warn(f"{table.path} has other columns than this run: it begins again", stacklevel=4)
            table.close()
            table = self._tables[TIMING] = Table(table.path)
        table.append(row)

    def log(
        self,
        step: int,
        metrics: Mapping[str, Any],
        *,
        timing: Mapping[str, Any] | None = None,
        curves: Mapping[str, Any] | None = None,
        table: bool = True,
    ) -> None:
        """Write one row of metrics.csv and its curves.

        Args:
            step: position of the run (environment steps, examples).
            metrics: what must be identical in a repeated run; the first call fixes the columns, nan where unknown.
            timing: speeds and durations, kept apart from the metrics.
            curves: what is drawn only, because a table could not tell it from the configuration.
            table: False draws the curves only.
        """
        self._lock.check()
        if table:
            rows = self.table("metrics")
            with self.continuing():
                rows.append({"step": step, **metrics})
        self._latest.update({key: float(value) for key, value in metrics.items() if not math.isnan(float(value))})
        if timing:
            self._log_timing({"step": step, **timing})
        self.loggers.scalars(step, {**metrics, **self._glance(metrics), **(curves or {}), **(timing or {})})
        self._logged = step

    def log_runs(
        self,
        step: int,
        metrics: Mapping[str, Any],
        *,
        groups: Sequence[str] | None = None,
        timing: Mapping[str, Any] | None = None,
    ) -> None:
        """Write one row per run of a stack; the curves are mean and 95% interval of each group.

        Args:
            step: position of every run.
            metrics: name -> array `[runs]`.
            groups: label of each run's setting, `[runs]`.
            timing: scalars as in `log`.
        """
        self._lock.check()
        runs = len(next(iter(metrics.values())))
        values = {key: value.tolist() if hasattr(value, "tolist") else list(value) for key, value in metrics.items()}
        rows = self.table("metrics")
        with self.continuing():
            rows.extend({"step": [step] * runs, "run": range(runs), **values})
        if timing:
            self._log_timing({"step": step, **timing})
        self.loggers.groups(step, run_statistics(values, groups))
        self.loggers.scalars(step, timing or {})
        self._logged = step

    @contextlib.contextmanager
    def progress(self, *, total: int, initial: int = 0, unit: str = "steps", description: str = "") -> Any:
        """A tqdm bar on standard error that starts where the run continues."""
        # a log file gets a line now and then, a terminal a living bar
        interval = 0.2 if sys.stderr is not None and sys.stderr.isatty() else 30.0
        with tqdm(
            total=total,
            initial=initial,
            unit=unit,
            unit_scale=True,
            desc=description,
            dynamic_ncols=True,
            mininterval=interval,
            position=self._bar_position,
            disable=self._bar_position is None or sys.stderr is None,
        ) as bar:
            yield bar

    def save_due(self) -> bool:
        """Whether a periodic checkpoint is due: after `save_seconds`, and so rarely that saving stays under 2%."""
        now = time.monotonic()
        if self._save_seconds > 0 and now - self._last_save < max(self._save_seconds, 50 * self.save_cost):
            return False
        self._due_since = now  # gathering the state is a part of the cost
        return True

    def mark(self) -> dict[str, Any]:
        """How far tables and curves are now, for a `finish` that a longer run is to continue from here."""
        # a table that this session has not touched yet keeps the rows it had
        return {
            "rows": {**self._rows, **{name: table.rows for name, table in self._tables.items()}},
            "logged": self._logged,
        }

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
        for table in self._tables.values():
            table.sync()
        self.loggers.flush()
        logged = {**(mark or self.mark()), "latest": self._latest, "glance": self._glance.scale}
        self._checkpoints.save(step, {"run": dict(state), **logged, "finished": finished})
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
        with contextlib.ExitStack() as closing:  # all of them, whatever one says
            closing.callback(self._lock.close)
            if self._loggers is not None:
                closing.callback(self._loggers.close)
                self._loggers = None
            for table in self._tables.values():
                closing.callback(table.close)
            self._tables.clear()

    def _record_session(self) -> None:
        path = self.folder / "environment.json"
        try:
            sessions = read_sessions(path)
        except ValueError as error:  # a note: the run does not need it
            warnings.warn(f"{error}: it begins again with this session", stacklevel=3)
            sessions = []
        session = {"step": self.step, **describe()}
        if sessions and self.step and (changed := changes(sessions[-1], session)):
            warnings.warn(
                f"{self.folder} goes on with {changed}: numbers may differ in their last digits", stacklevel=3
            )
        sessions = keep_sessions([*sessions, session])
        write_atomically(path, lambda file: file.write(json.dumps(sessions, indent=2).encode()))
