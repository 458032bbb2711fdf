"""environment.json: what each session of a run was made with."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

from .checkpoint import write_atomically
from .files import read_file
from .provenance import describe

LARGEST = 8 << 20
"""Bytes of environment.json; a session takes some 1,500."""

MOST_SESSIONS = 1000
"""Of more sessions the first one and the latest ones are kept."""

NUMERICAL = ("gymnasium", "numpy", "pybullet", "torch")
"""Packages whose other versions may round otherwise."""


def record_session(folder: Path, step: int) -> None:
    """Add this process to environment.json; warn where it goes on with what may round otherwise.

    Args:
        folder: the run folder.
        step: where the session begins.
    """
    path = folder / "environment.json"
    try:
        sessions = read_sessions(path)
    except ValueError as error:  # a note: the run does not need it
        warnings.warn(f"{error}: it begins again with this session", stacklevel=3)
        sessions = []
    session = {"step": step, **describe()}
    if sessions and step and (changed := changes(sessions[-1], session)):
        warnings.warn(f"{folder} goes on with {changed}: numbers may differ in their last digits", stacklevel=3)
    text = json.dumps(keep_sessions([*sessions, session]), indent=2)
    write_atomically(path, lambda file: file.write(text.encode()))


def read_sessions(path: Path) -> list[dict[str, Any]]:
    """The sessions of an environment.json; none where there is no such file.

    Raises:
        ValueError: it is no ordinary file, or not what `describe` gives; in one line.
    """
    try:
        sessions = json.loads(read_file(path, most=LARGEST))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged") from error
    if not isinstance(sessions, list) or not all(map(_is_session, sessions)):
        raise ValueError(f"{path} is not the note of a run's sessions")
    return sessions


def keep_sessions(sessions: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """At most `MOST_SESSIONS` of them."""
    return sessions if len(sessions) <= MOST_SESSIONS else [sessions[0], *sessions[1 - MOST_SESSIONS :]]


def changes(before: dict[str, Any], now: dict[str, Any]) -> str:
    """What of a session may change the last digits of numbers, as `torch 2.12 (2.11 before)`; empty if nothing."""
    pairs = [("processor", "machine", "processor"), ("GPU", "machine", "gpu")]
    pairs += [(name, "packages", name) for name in NUMERICAL]
    found = []
    for name, group, key in pairs:
        old, new = ((session.get(group) or {}).get(key) for session in (before, now))
        if old is not None and old != new:
            found.append(f"{name} {new} ({old} before)")
    return ", ".join(found)


def _is_session(session: Any) -> bool:
    parts = ("machine", "packages", "git")
    return isinstance(session, dict) and all(isinstance(session.get(part) or {}, dict) for part in parts)
