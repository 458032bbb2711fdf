"""An append-only columnar table on disk that survives a kill and continues without overlap."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any


class Table:
    """CSV file with fixed columns; memory does not grow with its length.

    The first row fixes the columns. Floats are written so that they read back bit for bit (`repr`), missing values
    as `nan`. A resumed run opens the table with the number of rows that its checkpoint counted; what a killed process
    wrote after that is cut off, and the run writes the same rows again.

    Args:
        path: file to write.
        rows: rows to keep; 0 starts an empty table.

    Raises:
        ValueError: the file holds fewer than `rows` rows.

    Example:
        >>> table = Table(folder / "metrics.csv")
        >>> table.append({"step": 2048, "return/mean": 12.5})
    """

    def __init__(self, path: Path, *, rows: int = 0):
        self.path = Path(path)
        self.rows = rows
        self.columns: tuple[str, ...] = ()
        if rows:
            self._keep(rows)
        self._file: IO[str] = open(self.path, "a" if rows else "w", newline="", encoding="utf-8")  # noqa: SIM115

    def _keep(self, rows: int) -> None:
        with open(self.path, "rb+") as file:
            header = file.readline().decode("utf-8")
            for row in range(rows):
                if not file.readline().endswith(b"\n"):
                    raise ValueError(
                        f"{self.path} has {row} whole rows but the checkpoint counted {rows}: "
                        "the file was edited; start in a new folder"
                    )
            file.truncate(file.tell())
        self.columns = tuple(next(csv.reader([header])))

    def append(self, row: Mapping[str, Any]) -> None:
        """Write one row. Columns it lacks become `nan`; a column that the first row did not have is an error."""
        self.extend({key: [value] for key, value in row.items()})

    def extend(self, columns: Mapping[str, Sequence[Any]]) -> None:
        """Write many rows given as columns of equal length.

        Raises:
            ValueError: the columns differ in length or were not in the first row.
        """
        lengths = {len(values) for values in columns.values()}
        if len(lengths) != 1:
            raise ValueError(f"columns of {self.path.name} differ in length: {sorted(lengths)}")
        if not self.columns:
            self.columns = tuple(columns)
            csv.writer(self._file, lineterminator="\n").writerow(self.columns)
        unknown = set(columns) - set(self.columns)
        if unknown:
            raise ValueError(
                f"{self.path.name} has no column {sorted(unknown)}: give every column from the first row on"
            )
        (count,) = lengths
        missing = ["nan"] * count
        values = zip(*(columns.get(name, missing) for name in self.columns), strict=True)
        csv.writer(self._file, lineterminator="\n").writerows([_text(value) for value in row] for row in values)
        self._file.flush()
        self.rows += count

    def sync(self) -> None:
        """Return when everything written so far is on the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _text(value: Any) -> str:
    # NumPy and torch scalars repr with their type name; .item() gives the Python number that repr round-trips.
    if hasattr(value, "item"):
        value = value.item()
    return repr(value) if isinstance(value, float) else str(value)
