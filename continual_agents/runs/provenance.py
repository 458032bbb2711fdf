"""What a process runs with: versions, machine, git state."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

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
