"""An append-only columnar table on disk that survives a kill and continues without overlap."""

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from .files import check_in_place, open_file, open_in_place

LONGEST_LINE = 1 << 20
"""Bytes; a row of a table has some 500."""


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
            with os.fdopen(open_in_place(self.path, os.O_RDWR), "rb+") as file:
                end, self.columns = whole_rows(self.path, file, rows)
                file.truncate(end)
        flags = os.O_WRONLY | (os.O_APPEND if rows else os.O_TRUNC)
        self._file: IO[str] = os.fdopen(
            open_in_place(self.path, flags), "a" if rows else "w", newline="", encoding="utf-8"
        )

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


def check_table(path: Path, rows: int) -> None:
    """Whether a table has the rows that a checkpoint counted; writes nothing.

    Raises:
        ValueError: it is gone, it is no ordinary file, or it has fewer.
        OSError: it cannot be read.
    """
    if not os.path.lexists(path):
        raise ValueError(
            f"{path} is gone and the checkpoint counted {rows} rows of it: put it back, or start in a new folder"
        )
    check_in_place(path)
    with open_file(path) as file:
        whole_rows(path, file, rows)


def whole_rows(path: Path, file: IO[bytes], rows: int) -> tuple[int, tuple[str, ...]]:
    """Where the first `rows` rows end, and the columns.

    Raises:
        ValueError: there are fewer.
    """
    header = file.readline(LONGEST_LINE)
    found, end = 0, len(header)
    # in blocks, not line by line: a file from elsewhere may be one line without an end
    while header.endswith(b"\n") and found < rows:
        block = file.read(LONGEST_LINE)
        lines = block.count(b"\n")
        if not lines:
            break  # the rest of a line, or a hole of any size
        if found + lines < rows:
            found, end = found + lines, end + len(block)
            continue
        place = -1
        for _ in range(rows - found):
            place = block.index(b"\n", place + 1)
        found, end = rows, end + place + 1
    if found < rows:
        raise ValueError(
            f"{path} has {found} whole rows but the checkpoint counted {rows}: the file was edited; start in a new folder"
        )
    return end, tuple(next(csv.reader([header.decode("utf-8", "replace")]), []))


def _text(value: Any) -> str:
    # NumPy and torch scalars repr with their type name; .item() gives the Python number that repr round-trips.
    if hasattr(value, "item"):
        value = value.item()
    return repr(value) if isinstance(value, float) else str(value)
