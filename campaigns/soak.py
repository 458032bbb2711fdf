"""Does a run grow? `python -m campaigns.soak --minutes 60 experiment=slippery_ant scale=paper folder=runs/soak`.

Starts `python -m tools.train` with the words given, looks at its process every few seconds for the given time from its
first row on, stops it with SIGTERM (the run saves and can be continued) and prints what grew, per hour. The samples
stay in FOLDER/soak.csv.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats
from tqdm import tqdm

from tools.command_line import UsageError
from tools.figures.table import markdown
from tools.parser import Parser
from tools.train import jobs

BLOCKS = 12
"""Neighbouring samples are alike: slopes are fitted to the means of this many blocks of them."""

MEASURES = {
    "resident_mb": "memory, MB",
    "files": "open files",
    "threads": "threads",
    "metrics_mb": "metrics.csv, MB",
    "folder_mb": "run folder, MB",
}
"""Columns of soak.csv and what the table calls them; the last two are meant to grow."""


@dataclasses.dataclass(frozen=True)
class Sample:
    """A process and its run folder at one moment; megabytes of 10^6 bytes."""

    seconds: float
    resident_mb: float
    files: int
    threads: int
    metrics_mb: float
    folder_mb: float


def look(process: int, folder: Path, seconds: float) -> Sample:
    """What /proc and the run folder say now.

    Raises:
        ProcessLookupError: the process has ended.
    """
    try:
        status = dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
        files = len(os.listdir(f"/proc/{process}/fd"))
        resident, threads = int(status["VmRSS"].split()[0]), int(status["Threads"])
    except (FileNotFoundError, KeyError) as error:  # a process that has ended has no memory
        raise ProcessLookupError(f"process {process} has ended") from error
    metrics = folder / "metrics.csv"
    return Sample(
        seconds=seconds,
        resident_mb=resident * 1024 / 1e6,
        files=files,
        threads=threads,
        metrics_mb=metrics.stat().st_size / 1e6 if metrics.exists() else 0.0,
        folder_mb=sum(size(path) for path in folder.rglob("*")) / 1e6,
    )


def size(path: Path) -> int:
    """Bytes of a file; 0 for one that has just been renamed or removed."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def slope(seconds: Sequence[float], values: Sequence[float]) -> tuple[float, float, float]:
    """Growth per hour with its 95% interval: least squares through the means of `BLOCKS` blocks, Student's t.

    Returns:
        Slope, low, high; nan with fewer than three samples.
    """
    if len(seconds) < 3:
        return math.nan, math.nan, math.nan
    blocks = np.array_split(np.arange(len(seconds)), min(BLOCKS, len(seconds)))
    x = np.array([np.asarray(seconds)[block].mean() / 3600 for block in blocks])
    y = np.array([np.asarray(values, float)[block].mean() for block in blocks])
    fit = stats.linregress(x, y)
    # a constant has no spread, and scipy no standard error for it
    half = 0.0 if np.ptp(y) == 0 else float(stats.t.ppf(0.975, len(blocks) - 2)) * fit.stderr
    return float(fit.slope), float(fit.slope - half), float(fit.slope + half)


def watch(words: Sequence[str], folder: Path, *, minutes: float, every: float) -> tuple[list[Sample], int]:
    """Run the command for that long after its first row, or to its end if it comes sooner; samples and exit status."""
    folder.mkdir(parents=True, exist_ok=True)
    samples: list[Sample] = []
    rows = size(folder / "metrics.csv")  # of an earlier session
    with open(folder / "soak.log", "w", encoding="utf-8") as log:
        command = [sys.executable, "-m", "tools.train", *words]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            with tqdm(total=round(60 * minutes), unit="s", desc="soak") as bar:
                while process.poll() is None and size(folder / "metrics.csv") == rows:
                    time.sleep(min(every, 0.1))  # however long imports take here
                started = time.monotonic()
                while process.poll() is None and (seconds := time.monotonic() - started) < 60 * minutes:
                    try:
                        samples.append(look(process.pid, folder, seconds))
                    except ProcessLookupError:
                        break
                    bar.update(int(seconds) - bar.n)
                    bar.set_postfix_str(f"{samples[-1].resident_mb:.0f} MB", refresh=False)
                    time.sleep(every)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            process.wait()  # it saves first, however long that takes
    return samples, process.returncode


def summary(samples: pd.DataFrame) -> str:
    """A table with a row per measure: first, last, greatest, and the slope per hour with its interval."""
    rows = []
    for column, label in MEASURES.items():
        values = samples[column].to_numpy()
        growth, low, high = slope(samples["seconds"].to_numpy(), values)
        ends = [f"{value:.4g}" for value in (values[0], values[-1], values.max())]
        rows.append([label, *ends, f"{growth:+.3g}", f"[{low:+.3g}, {high:+.3g}]"])
    return markdown(["", "first", "last", "greatest", "per hour", "95%"], rows)


def main(arguments: list[str] | None = None) -> None:
    """Watch one command and print the table."""
    parser = Parser(
        prog="python -m campaigns.soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("words", nargs="+", metavar="key=value", help="what tools.train is given")
    parser.add_argument("--minutes", type=float, default=60.0, help="how long to watch (default: 60)")
    parser.add_argument("--every", type=float, default=5.0, help="seconds between two samples (default: 5)")
    parser.add_argument(
        "--settle",
        type=float,
        default=0.1,
        help="share of the time at the beginning that slopes leave out (default: 0.1): imports, first buffers",
    )
    chosen = parser.parse_args(arguments)
    if chosen.minutes <= 0 or chosen.every <= 0 or not 0 <= chosen.settle < 1:
        parser.error("--minutes and --every are positive, --settle lies in [0, 1)")
    try:
        configs = jobs(chosen.words)
    except UsageError as error:
        parser.error(str(error))
    if len(configs) != 1:
        parser.error(f"{len(configs)} runs: give one value of each key")
    folder = Path(configs[0]["folder"])
    samples, status = watch(chosen.words, folder, minutes=chosen.minutes, every=chosen.every)
    if status not in (0, 128 + signal.SIGTERM) or not samples:
        print(f"the run ended with status {status}: see {folder / 'soak.log'}", file=sys.stderr)
        raise SystemExit(1)
    frame = pd.DataFrame([dataclasses.asdict(sample) for sample in samples])
    frame.to_csv(folder / "soak.csv", index=False)
    settled = frame[frame["seconds"] >= chosen.settle * frame["seconds"].iloc[-1]].reset_index(drop=True)
    steps = (folder / "metrics.csv").read_text().splitlines()[-1].split(",")[0]
    print(
        f"{frame['seconds'].iloc[-1] / 60:.1f} minutes, {len(frame)} samples, step {steps} reached; slopes from minute "
        f"{settled['seconds'].iloc[0] / 60:.1f} on\n\n{summary(settled)}"
    )


if __name__ == "__main__":
    main()
