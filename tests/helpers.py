"""What tests of several rooms share: commands as processes, tables and curves of run folders, a gradient step."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

ROOT = Path(__file__).resolve().parents[1]
TABLES = ("metrics.csv", "episodes.csv")


def command(module: str, *words: str, timeout: float = 280, **how: Any) -> subprocess.CompletedProcess[str]:
    """`python -m MODULE WORDS`, ended; what it said is kept."""
    how = {"cwd": ROOT, "capture_output": True, "text": True, "timeout": timeout, **how}
    return subprocess.run([sys.executable, "-m", module, *words], **how)


def elsewhere(folder: Path, *words: str, path: str = str(ROOT), check: bool = True) -> subprocess.CompletedProcess[str]:
    """Python in a user's folder, with the project where `path` says and nothing else of this environment."""
    environment = {"PYTHONPATH": path, "PATH": "/usr/bin:/bin", "HOME": str(folder), "OMP_NUM_THREADS": "1"}
    how: dict[str, Any] = {"cwd": folder, "env": environment, "capture_output": True, "text": True, "timeout": 240}
    done = subprocess.run([sys.executable, *words], **how)
    assert done.returncode == 0 or not check, done.stderr
    return done


def begun(module: str, *words: str) -> subprocess.Popen[str]:
    """The same, on its way."""
    words = (sys.executable, "-m", module, *words)
    return subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_rows(table: Path, rows: int, process: subprocess.Popen | None = None) -> None:
    """Until a table has more rows than that; the process that writes it must not end before."""
    while not table.exists() or len(table.read_text().splitlines()) <= rows:
        assert process is None or process.poll() is None
        time.sleep(0.01)


def stopped(process: subprocess.Popen[str], number: signal.Signals) -> str:
    """What a command said that a signal stopped; it ends as a shell says of such."""
    process.send_signal(number)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 128 + number, errors
    return errors


def same_tables(one: Path, other: Path, names: tuple[str, ...] = TABLES) -> None:
    """Two runs wrote the same bytes."""
    for name in names:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


def events_of(folder: Path, **most: int) -> EventAccumulator:
    """What TensorBoard reads of a folder."""
    events = EventAccumulator(str(folder), size_guidance=most or None)
    events.Reload()
    return events


def photographed(folder: Path, address: str, size: str, *more: str) -> np.ndarray:
    """A page as chromium shows it, `[pixels, 3]`."""
    browse = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}"]
    picture = folder / "page.png"
    words = [*browse, f"--window-size={size}", *more, f"--screenshot={picture}", address]
    subprocess.run(words, check=True, capture_output=True, timeout=120)
    return np.asarray(Image.open(picture).convert("RGB")).reshape(-1, 3)


def refusal(error: type[Exception], call: Callable[..., object], *given: Any, **settings: Any) -> str:
    """The one line that a call is refused with."""
    with pytest.raises(error) as caught:
        call(*given, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def ended(capsys: pytest.CaptureFixture[str], main: Callable[..., object], *words: object, code: int = 2) -> str:
    """What standard error has of a command that ends with an exit code."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        main(list(map(str, words)))
    assert caught.value.code == code
    return capsys.readouterr().err


def descend(loss: torch.Tensor, optimizer: torch.optim.Optimizer, *after: Any) -> torch.Tensor:
    """One gradient step, and the steps of what comes after it; the loss."""
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    for one in after:
        one.step()
    return loss.detach()
