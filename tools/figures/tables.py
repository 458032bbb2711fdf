"""The tables of a run folder that anybody may have made: bounded in size, numbers where numbers belong."""

import io
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from continual_agents.runs.files import StrangeFileError, read_file
from tools.text import visible, visible_everywhere

LARGEST = 128 << 20
"""Bytes of a table: some 10,000 rows of each of 100 runs."""

MOST_COLUMNS = 10_000

CHUNK = 50_000
"""Rows that are parsed at a time: text in place of numbers is found before it takes memory."""

COUNTS = {"step": 2.0**53, "run": 1e9}
"""Columns of whole numbers from 0, and their largest."""


TOGETHER = 8 << 20
"""Bytes of tables that are parsed as one text."""


class TableError(ValueError):
    """No table of a run; the message says where and why."""


def read_table(path: Path, columns: Iterable[str], *, words: bool = False) -> pd.DataFrame | None:
    """The whole rows of a table; None where there are none. A half-written last line is left out.

    Args:
        path: a CSV file.
        columns: what it has to have.
        words: its columns may hold text, but for `COUNTS`.

    Raises:
        TableError: no CSV, without one of `columns`, or with something else than numbers in them; too large.
    """
    try:
        content = read_file(path, most=LARGEST)
    except FileNotFoundError:
        return None
    except StrangeFileError as error:
        raise TableError(str(error)) from error
    except OSError as error:
        raise TableError(f"{path} cannot be read ({error.strerror}): check the path and its rights") from error
    whole = content[: content.rfind(b"\n") + 1]
    if whole.count(b"\n") < 2:
        return None
    # of the first row too: pandas makes an index of what it has beyond the header, column by column
    if any(line.count(b",") >= MOST_COLUMNS for line in whole.split(b"\n", 2)[:2]):
        raise TableError(f"{path} has more than {MOST_COLUMNS:,} columns: it is not the table of a run")
    chunks: list[pd.DataFrame] = []
    rows = 0
    try:
        for chunk in pd.read_csv(io.BytesIO(whole), chunksize=CHUNK, encoding="utf-8"):
            if not isinstance(chunk.index, pd.RangeIndex):  # pandas takes what is too much for names of the rows
                raise TableError(f"{path} has rows longer than its header: it was changed or damaged")
            if not chunks:
                _check_columns(path, chunk, columns)
            _check_numbers(path, chunk, words)
            rows += len(chunk)
            chunks.append(chunk)
    except TableError:
        raise
    except (ValueError, OverflowError, pd.errors.ParserError) as error:  # UnicodeDecodeError is a ValueError
        raise TableError(f"{path} is no table: it was changed or damaged") from error
    table = pd.concat(chunks, ignore_index=True) if len(chunks) > 1 else chunks[0]
    if not len(table):
        return None
    table.columns = [visible_everywhere(str(name)) for name in table.columns]
    if words:
        for name in table.columns:
            if table[name].dtype.kind not in "iuf":
                table[name] = table[name].map(visible_everywhere)
    return table


def read_tables(paths: Iterable[Path], columns: Iterable[str]) -> dict[Path, pd.DataFrame]:
    """Tables of numbers, many at once: those with one header are parsed as one text.

    Parsing a short table costs some 2 ms, whatever is in it; a thousand parsed as one cost 20 ms.

    Args:
        paths: CSV files.
        columns: what each has to have.

    Returns:
        By path what `read_table` gives. Left out is what needs a look of its own: files that are missing, empty, long
        or with quotes, and all that were parsed beside one that `read_table` may refuse.
    """
    alike: dict[bytes, dict[Path, bytes]] = {}
    found: dict[Path, pd.DataFrame] = {}
    size = 0
    for path in paths:
        try:
            content = read_file(path, most=TOGETHER)
        except (OSError, StrangeFileError):
            continue
        header, _, rows = content[: content.rfind(b"\n") + 1].partition(b"\n")
        if _is_plain(header, rows):
            alike.setdefault(header, {})[path] = rows
            size += len(rows)
        if size > TOGETHER:
            found |= _parse(alike, columns)
            alike, size = {}, 0
    return found | _parse(alike, columns)


def _is_plain(header: bytes, rows: bytes) -> bool:
    """Whether each line of `rows` is a row, and the first one as wide as the header."""
    width = header.count(b",")
    odd = any(sign in header or sign in rows for sign in (b'"', b"\r", b"\0")) or b"\n\n" in b"\n" + rows
    return bool(rows) and not odd and width < MOST_COLUMNS and rows[: rows.index(b"\n")].count(b",") == width


def _parse(alike: Mapping[bytes, Mapping[Path, bytes]], columns: Iterable[str]) -> dict[Path, pd.DataFrame]:
    """Tables by header, then by path, each group parsed as one text and cut apart."""
    found: dict[Path, pd.DataFrame] = {}
    for header, tables in alike.items():
        first = next(iter(tables))
        try:
            whole = pd.read_csv(io.BytesIO(b"\n".join([header, b"".join(tables.values())])), encoding="utf-8")
            _check_columns(first, whole, columns)
            _check_numbers(first, whole, words=False)
        except (ValueError, OverflowError, pd.errors.ParserError):  # `read_table` says in which file, and what
            continue
        ends = np.cumsum([rows.count(b"\n") for rows in tables.values()])
        if len(whole) != ends[-1]:
            continue
        whole.columns = [visible_everywhere(str(name)) for name in whole.columns]
        whole = whole.copy()  # one block per type, which makes cutting apart and joining ten times cheaper
        for path, start, end in zip(tables, [0, *ends], ends, strict=False):
            found[path] = whole.iloc[start:end].set_axis(pd.RangeIndex(end - start))
    return found


def check_distinct(path: Path, table: pd.DataFrame) -> None:
    """Whether each run has each step once; a table without steps, each run.

    Raises:
        TableError: one is there again; with the line.
    """
    keys = [name for name in ("run", "step") if name in table.columns]
    again = np.flatnonzero(table.duplicated(keys).to_numpy())
    if len(again):
        raise TableError(
            f"{path} has {keys[-1]} {table[keys[-1]].iloc[again[0]]:.0f} again in line {again[0] + 2}: "
            "it was changed or damaged"
        )


def _check_columns(path: Path, table: pd.DataFrame, columns: Iterable[str]) -> None:
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise TableError(f"{path} has no column {missing[0]!r}: it is not the table of a run")


def _check_numbers(path: Path, chunk: pd.DataFrame, words: bool) -> None:
    for name, dtype in zip(chunk.columns, chunk.dtypes, strict=True):
        if dtype.kind in "iuf" and name not in COUNTS:
            continue
        values = chunk[name]
        if dtype.kind not in "iuf" and (not words or name in COUNTS):
            wrong = np.flatnonzero(
                (pd.to_numeric(values.astype(str), errors="coerce").isna() & values.notna()).to_numpy()
            )
            place = int(wrong[0]) if len(wrong) else 0
            said = visible_everywhere(str(values.iloc[place]))
            raise TableError(
                f"{path} has text in its column {visible(str(name))!r}, {said!r} in line {chunk.index[place] + 2}: "
                "it was changed or damaged"
            )
        if name in COUNTS:
            numbers = values.to_numpy(float)
            with np.errstate(invalid="ignore"):
                wrong = np.flatnonzero(~((numbers >= 0) & (numbers <= COUNTS[str(name)]) & (numbers % 1 == 0)))
            if len(wrong):
                raise TableError(
                    f"{path} has {name} {numbers[wrong[0]]:g} in line {chunk.index[wrong[0]] + 2}: a whole number "
                    f"from 0 to {COUNTS[str(name)]:.0f} is needed, so it was changed or damaged"
                )
