"""What a process runs with: versions, machine, git state; and environment.json, which has that of a run's sessions."""

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import torch

from continual_agents.surgery.compiler import compiler

from .checkpoint import write_atomically
from .files import read_file

PACKAGES = (
    "continual-agents",
    "gymnasium",
    "hydra-core",
    "numpy",
    "pybullet",
    "scikit-learn",
    "tensordict",
    "torch",
    "torchrl",
)


LARGEST = 8 << 20
"""Bytes of environment.json; a session takes some 1,500."""

MOST_SESSIONS = 1000
"""Of more sessions the first one and the latest ones are kept."""

NUMERICAL = ("gymnasium", "numpy", "pybullet", "torch")
"""Packages whose other versions may round otherwise."""


def describe() -> dict[str, Any]:
    """Versions, machine, command and git state of this process, as JSON-ready values."""
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": [sys.executable, *sys.argv],
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": {
            "processor": _processor(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "compiler": "found" if compiler() else "none",  # without one surgery's steps on a CPU round otherwise
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        },
        "packages": {name: _version(name) for name in PACKAGES},
        "git": git_state(),
    }


def git_state() -> dict[str, Any] | None:
    """This project's commit, and whether tracked files differ from it; None where it is no checkout.

    The repository of the working folder is the user's, and so is one that an installed wheel happens to lie in.
    """
    package = Path(__file__).resolve().parent.parent

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(package.parent), *arguments],
            capture_output=True, text=True, timeout=10, check=True, stdin=subprocess.DEVNULL,
        ).stdout.strip()  # fmt: skip

    try:
        git("ls-files", "--error-unmatch", str(package / "__init__.py"))  # fails where it is not tracked
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.SubprocessError):
        return None


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


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
    pairs = [(name, "machine", name.lower()) for name in ("processor", "compiler", "GPU")]
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
