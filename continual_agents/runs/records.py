"""What a run writes as it goes: its tables, and the same numbers as curves."""

import contextlib
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .faults import Fault, RunError
from .folder import TIMING
from .lock import Lock
from .logger import run_statistics
from .loggers import Loggers, open_loggers
from .overview import Glance
from .table import Table, check_table


class Records:
    """Tables and curves of one run, continued where the last checkpoint counted them.

    Args:
        folder: the run folder.
        config: resolved configuration, which the loggers show.
        lock: of the folder; nothing is written once it is lost.
        logger: where the curves go, as `check_logger` takes it.
        counted: `counts` of the checkpoint that is continued; None in a new run.
    """

    def __init__(
        self,
        folder: Path,
        config: Mapping[str, Any],
        lock: Lock,
        *,
        logger: Mapping[str, Any],
        counted: Mapping[str, Any] | None,
    ):
        self.folder, self.config = folder, config
        self._lock = lock
        self._logger_settings = logger
        self._loggers: Loggers | None = None
        self._tables: dict[str, Table] = {}
        self._begun = counted is not None
        counted = counted or {}
        self._rows: dict[str, int] = counted.get("rows", {})
        # the last step that curves and tables know; a checkpoint may lie behind it, in the middle of a row
        self._logged: int = counted.get("logged", 0)
        self._glance = Glance(counted.get("glance"))
        # the last known value of each metric; what a run ends with must not depend on where it was continued
        self._latest: dict[str, float] = counted.get("latest", {})

    @property
    def loggers(self) -> Loggers:
        """Where the curves go, opened at the first use."""
        if self._loggers is None:
            # without a checkpoint, what a killed predecessor wrote is hidden from step 0 on
            first_step = self._logged + 1 if self._begun else 0
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
            if not self._begun:
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

    def mark(self) -> dict[str, Any]:
        """How far tables and curves are now, for a `finish` that a longer run is to continue from here."""
        # a table that this session has not touched yet keeps the rows it had
        return {
            "rows": {**self._rows, **{name: table.rows for name, table in self._tables.items()}},
            "logged": self._logged,
        }

    def counts(self, mark: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """What a checkpoint keeps to continue from: `mark`, or how far they are now, and what curves depend on."""
        return {**(mark or self.mark()), "latest": self._latest, "glance": self._glance.scale}

    def sync(self) -> None:
        """Return when everything written so far is on the disk."""
        for table in self._tables.values():
            table.sync()
        self.loggers.flush()

    def close(self) -> None:
        """Close every file, whatever one of them says."""
        with contextlib.ExitStack() as closing:
            if self._loggers is not None:
                closing.callback(self._loggers.close)
                self._loggers = None
            for table in self._tables.values():
                closing.callback(table.close)
            self._tables.clear()

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
