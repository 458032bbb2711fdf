"""Published figures beside measured ones, with a mark where the two are not the same quantity."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from .comparison import Comparison
from .estimates import estimate_one
from .folders import flatten, method_label
from .tidy import Stream

DATA = Path(__file__).resolve().parent.parent / "published.yaml"


@dataclasses.dataclass(frozen=True)
class Beside:
    """One published number and what was measured at the same place.

    Attributes:
        method: label of the method, with the settings that were published.
        where: place on the stream, as text.
        published: the number.
        measured: mean over runs, nan if the runs do not reach that place.
        low: lower end of its 95% interval.
        high: upper end.
        n: number of runs.
        note: "" if the two compare, else "not comparable: " and why, or "not reached".
    """

    method: str
    where: str
    published: float
    measured: float
    low: float
    high: float
    n: int
    note: str


@dataclasses.dataclass(frozen=True)
class Published:
    """The published figures of one experiment."""

    title: str
    source: str
    rows: list[Beside]


def beside(data: Stream | Comparison) -> Published | None:
    """Set the published figures of an experiment beside what `data` measured; None where nothing was published.

    Methods that were not run are left out. A stand-in for the published data is compared at the first and the last
    place of each method only, figures that never compare at the last one, and both are marked.
    """
    known = yaml.safe_load(DATA.read_text())
    for name, entry in known.items():
        stand_in = entry.get("stand_ins", {}).get(data.experiment)
        if name == data.experiment or stand_in:
            why = stand_in or entry.get("never_comparable", "")
            rows = _ends_only(entry["rows"]) if why else entry["rows"]
            if why and not stand_in:  # another scale altogether: only where the published runs ended, and these do
                # a run that had collapsed says nothing on another scale
                rows = [row for row in {row[0]: row for row in rows}.values() if row[3]]
            found = [_row(data, entry, row, why, by_method_only=bool(why)) for row in rows]
            return Published(entry["title"], known["sources"][entry["source"]], [row for row in found if row])
    return None


def _row(
    data: Stream | Comparison, entry: dict[str, Any], row: list[Any], why: str, *, by_method_only: bool
) -> Beside | None:
    method, settings, where, value = row
    records, runs = _long(data)
    chosen = runs[runs["method"] == method_label(method)]
    if not by_method_only:
        chosen = chosen[
            [all(_same(run.get(key), wanted) for key, wanted in settings.items()) for _, run in chosen.iterrows()]
        ]
    if chosen.empty:
        return None
    found = _at(records, chosen, where, entry["window"], relative=by_method_only)
    if "minus" in entry:  # paired by seed
        others = runs[runs["method"] == method_label(entry["minus"])]
        reference = _at(records, others, where, entry["window"], relative=by_method_only)
        seeds = runs.set_index("replicate")["seed"]
        found = found.groupby(seeds).mean() - reference.groupby(seeds).mean()
    records = records[records["replicate"].isin(chosen["replicate"])]
    means = found.dropna().to_numpy(float)
    measured, low, high = estimate_one(means) if len(means) else (np.nan, np.nan, np.nan)
    different = [
        f"{key} {_text(run)}, published {_text(wanted)}"
        for key, wanted in entry.get("requires", {}).items()
        if not by_method_only and not _same(run := chosen.iloc[0].get(key), wanted)
    ]
    note = "; ".join(filter(None, [why, *different]))
    note = f"not comparable: {note}" if note else ("" if len(means) else "not reached")
    label = ", ".join([method_label(method), *(f"{key.replace('_', ' ')} {value}" for key, value in settings.items())])
    ((unit, place),) = where.items()
    text = f"{unit} {place:,}"
    if by_method_only:
        which = "first" if place <= entry["window"] else "last"
        here = "tasks" if unit == "task" else f"tenth of {int(records[unit].max()):,} {unit}s"
        text = f"{which} {here} (published: {text})"
    return Beside(label, text, float(value), measured, low, high, len(means), note)


def _at(records: pd.DataFrame, runs: pd.DataFrame, where: dict[str, int], window: int, *, relative: bool) -> pd.Series:
    """Mean performance of each of `runs` over the `window` up to `where`; of the first or last tenth for a stand-in."""
    ((unit, place),) = where.items()
    records = records[records["replicate"].isin(runs["replicate"])]
    position = records[unit]
    end = float(position.max())
    if relative:
        tenth = max(1.0, end // 10)
        inside = position <= tenth if place <= window else position > end - tenth
    elif end < place:
        return pd.Series(dtype=float)
    else:
        inside = (position > place - window) & (position <= place)
    return records[inside].groupby("replicate")["performance"].mean()


def _long(data: Stream | Comparison) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Records with `replicate`, `task`, `step`, `performance`; and runs with `replicate`, `method` and settings."""
    if isinstance(data, Stream):
        return data.records, data.runs
    rows = [
        {"replicate": number, "method": method_label(run.method)}
        | {key.rsplit(".", 1)[-1]: value for key, value in flatten(run.config).items() if key != "method.name"}
        for number, run in enumerate(data.folders)
    ]
    return data.episodes, pd.DataFrame(rows)


def _ends_only(rows: list[list[Any]]) -> list[list[Any]]:
    """First and last place of each method at the settings published first."""
    first: dict[str, list[list[Any]]] = {}
    for row in rows:
        same = first.setdefault(row[0], [])
        if not same or same[0][1] == row[1]:
            same.append(row)
    return [row for same in first.values() for row in ([same[0], same[-1]] if len(same) > 1 else same)]


def _same(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, float) and isinstance(value, int | float):
        return bool(np.isclose(value, wanted))
    return str(value) == str(wanted)


def _text(value: Any) -> str:
    return "unknown" if value is None else str(value)
