"""Runs of the real command in processes that start at once, to be killed at a chosen moment."""

from __future__ import annotations

import importlib
import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from tqdm import tqdm

WARM = (
    "tools.agent",
    "tools.command_line",
    "tools.plot",
    "tools.stream",
    "torch.utils.tensorboard",
)
"""What `tools.train` imports sooner or later; not `tools.train` itself, which each process runs anew as `__main__`."""


def warm_up() -> None:
    """Import what a run needs, so that a forked process need not; leaves no thread behind that a fork would lose."""
    torch.set_num_threads(1)
    tqdm.monitor_interval = 0
    for name in WARM:
        importlib.import_module(name)


def fresh(words: Sequence[str], log: Path) -> int:
    """`python -m tools.train WORDS` as a new process; its exit status."""
    with open(log, "a", encoding="utf-8") as file:
        command = [sys.executable, "-m", "tools.train", *words]
        return subprocess.run(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, check=False).returncode


class Forked:
    """`python -m tools.train WORDS` in a fork of this process: all but the imports happens as in a new one.

    Args:
        words: of the command line.
        log: what it prints is appended here.

    Attributes:
        status: exit status once it has ended; -9 when killed.
    """

    def __init__(self, words: Sequence[str], log: Path):
        self.status: int | None = None
        sys.stdout.flush()
        sys.stderr.flush()
        self.process = os.fork()
        if self.process == 0:
            _become_the_command(words, log)

    def wait(self, seconds: float) -> bool:
        """Whether it has ended within that time."""
        until = time.monotonic() + seconds
        while not self._ended():
            left = until - time.monotonic()
            if left <= 0:
                return False
            time.sleep(min(0.005, left))
        return True

    def wait_for_write(self, folder: Path, seconds: float, before: set[str]) -> bool:
        """Whether a checkpoint that is not among `before` is being written, within that time and before it ends."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self._ended():
            if leftovers(folder) - before:
                return True
            time.sleep(0.0002)  # a write takes milliseconds
        return False

    def kill(self) -> None:
        """SIGKILL; returns when it is gone."""
        os.kill(self.process, signal.SIGKILL)
        self.wait(60)

    def _ended(self) -> bool:
        if self.status is None:
            done, status = os.waitpid(self.process, os.WNOHANG)
            if done:
                self.status = os.waitstatus_to_exitcode(status)
        return self.status is not None


def leftovers(folder: Path) -> set[str]:
    """Names of temporary files among the checkpoints and the replay log: one is being written, or was when the process
    was killed."""
    return {path.name for part in ("checkpoints", "replay") for path in (folder / part).glob("*.tmp")}


def _become_the_command(words: Sequence[str], log: Path) -> None:
    status = 70
    try:
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        tqdm.monitor_interval = 10
        sys.argv = ["tools/train.py", *words]
        runpy.run_module("tools.train", run_name="__main__", alter_sys=True)
        status = 0
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else 1
    except BaseException:
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
