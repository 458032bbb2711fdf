"""The soak: what it reads of a process, the slopes it fits, and one short run of the real command."""

import gc
import mmap
import os
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from campaigns.soak import look, main, slope
from tests.helpers import ended


def test_a_slope_is_per_hour_and_its_interval_holds_the_truth() -> None:
    seconds = np.arange(0, 3600, 5.0)
    noise = np.random.default_rng(0).normal(size=len(seconds))
    growth, low, high = slope(seconds, 300 + 2 * seconds / 3600 + noise)
    assert low < 2 < high
    assert growth == pytest.approx(2, abs=0.5)
    assert low > 0
    _, low, high = slope(seconds, 300 + noise)
    assert low < 0 < high
    # by hand: a straight line has no spread
    assert slope([0, 1800, 3600], [5, 6, 7]) == pytest.approx((2, 2, 2))
    assert slope([0, 1800, 3600], [5, 5, 5]) == (0, 0, 0)
    assert np.isnan(slope([0, 5], [1, 2])).all()


def test_a_look_sees_files_threads_memory_and_the_table(tmp_path: Path) -> None:
    gc.collect()
    before = look(os.getpid(), tmp_path, 0)
    (tmp_path / "metrics.csv").write_bytes(b"x" * 1_000_000)
    # pages of its own: what an array takes may come from memory that earlier tests gave back
    held = mmap.mmap(-1, 80_000_000, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for page in range(0, len(held), mmap.PAGESIZE):
        held[page] = 1
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    with open(os.devnull), open(os.devnull):
        after = look(os.getpid(), tmp_path, 1)
    done.set()
    thread.join()
    assert after.files == before.files + 2
    assert after.threads == before.threads + 1
    assert after.resident_mb - before.resident_mb == pytest.approx(80, abs=20)
    assert (before.metrics_mb, after.metrics_mb) == (0, 1)
    with pytest.raises(ProcessLookupError):
        look(2**22 + 1, tmp_path, 0)  # beyond the greatest process number


def test_a_short_soak_stops_the_run_and_prints_the_slopes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["experiment=permuted_digits", "scale=smoke", "experiment.tasks=1000000", f"folder={tmp_path}"]
    main([*words, "--minutes", "0.1", "--every", "0.1", "--settle", "0.5"])
    printed = capsys.readouterr().out
    assert "| memory, MB" in printed
    assert "| threads" in printed
    samples = pd.read_csv(tmp_path / "soak.csv")
    assert samples["resident_mb"].iloc[-1] > 100
    assert samples["metrics_mb"].iloc[-1] > 0
    assert "stopped and saved at step" in (tmp_path / "soak.log").read_text()


def test_a_run_that_fails_is_said_with_its_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.yaml").write_text("seed: 7\n")
    words = ["experiment=permuted_digits", "scale=smoke", f"folder={tmp_path}"]
    assert "soak.log" in ended(capsys, main, *words, "--minutes", "1", "--every", "0.1", code=1)
    assert "holds a run of another configuration" in (tmp_path / "soak.log").read_text()
