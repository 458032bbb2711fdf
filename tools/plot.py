"""Figures and a table from run folders: `python -m tools.plot runs/slippery_ant/demo [--output DIR]`.

For each experiment among the runs: one figure (PNG, and SVG beside it) of the performance beside a fresh network's,
with the network's dead units and rank below, one of the sweep where settings differ; and table.csv, table.md: each
method against a fresh network, first tasks against last tasks. The files are called figure.png, figure_sweep.png, or by
the experiment's name where the runs are of several. TensorBoard shows figures and table too, among the runs, as the run
"comparison".
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from continual_agents.runs import log_comparison
from continual_agents.runs.checkpoint import write_bytes
from continual_agents.runs.files import StrangeFileError
from tools.figures.agent import plot_agent
from tools.figures.folders import FolderError, RunFolder, by_experiment, read_folders
from tools.figures.records import check_records, write_records
from tools.figures.sentences import conclusion
from tools.figures.stream import plot_stream, plot_sweep
from tools.figures.table import legend, make_table, readable, rows_of
from tools.figures.tasks import sweep_of_agents
from tools.figures.tidy import tidy
from tools.parser import Parser, above
from tools.text import cell, visible


@dataclasses.dataclass(frozen=True)
class Drawn:
    """What was drawn of some runs.

    Attributes:
        runs: by experiment.
        figures: PNG files, each experiment's main figure before its sweep.
        table: one row per experiment and setting, the columns `tools.figures.table.COLUMNS`.
    """

    runs: dict[str, list[RunFolder]]
    figures: list[Path]
    table: pd.DataFrame

    @property
    def step(self) -> int:
        """How far the runs are."""
        return max(int(run.metrics["step"].max()) for runs in self.runs.values() for run in runs)

    def log(self, folder: Path, logger: Mapping[str, Any] | None = None) -> None:
        """Show figures and table in TensorBoard (and W&B, if `logger` says so) beside the runs below `folder`."""
        log_comparison(
            folder,
            self.step,
            {path.stem: path for path in self.figures},
            {"table": readable(self.table)},
            logger=logger,
        )

    def told(self, folder: Path) -> str:
        """What a command prints about the runs below `folder`: the table, its legend, and what it means."""
        return f"{readable(self.table)}{legend(self.table)}\n{conclusion(self.table, folder)}"


def draw_runs(folders: Iterable[Path | str], output: Path | str) -> Drawn:
    """Draw the figures of all runs below `folders` into `output` and write table.csv and table.md there.

    Args:
        folders: run folders, or folders that hold some at any depth.
        output: folder for the files; made if missing.

    Raises:
        FolderError: no run to be found, naming what a run folder holds.
    """
    experiments = by_experiment(read_folders(folders))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # intervals are many small computations: a second thread takes more than it gives
    try:
        figures, table = _draw(experiments, Path(output))
    finally:
        torch.set_num_threads(threads)
    return Drawn(experiments, figures, table)


def figures_of(runs: list[RunFolder], path: Path) -> dict[Path, str]:
    """Draw the main figure of one experiment's runs at `path`, and a sweep's beside it; each file and what it shows."""
    text = "Performance per task beside a fresh network's, with dead units, weights and rank below"
    main, data = (plot_stream, tidy(runs)) if runs[0].is_stream else (plot_agent, sweep_of_agents(runs))
    figures = {main(runs, path): text}
    if data.parameters and len(data.records):
        sweep = plot_sweep(data, path.with_name(f"{path.stem}_sweep.png"))
        figures[sweep] = f"Performance by {', '.join(data.parameters)}"
    return figures


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = Parser(prog="python -m tools.plot", description=__doc__.split("\n")[0])
    parser.add_argument("runs", nargs="+", metavar="RUN_FOLDER", help="run folders, or folders that hold some")
    parser.add_argument("--output", type=Path, help="where the files go (default: the folder above all the runs)")
    parser.add_argument(
        "--records", type=Path, help="also write every row of the runs as one table: a .csv or .parquet"
    )
    given = parser.parse_args(arguments)
    output = given.output or above(given.runs)
    with parser.refusing(FolderError, StrangeFileError, output=output):
        if given.records:
            check_records(given.records)
        drawn = draw_runs(given.runs, output)
        drawn.log(output)
        if given.records:
            write_records(drawn.runs, given.records)
    print(visible(drawn.told(output)))
    for path in drawn.figures:
        print(visible(str(path)))


def _draw(experiments: dict[str, list[RunFolder]], output: Path) -> tuple[list[Path], pd.DataFrame]:
    """All figures and both tables."""
    figures: list[Path] = []
    for name, runs in experiments.items():
        stem = "figure" if len(experiments) == 1 else re.sub(r"[^A-Za-z0-9_.-]+", "_", name)
        figures += figures_of(runs, output / f"{stem}.png")
    table = make_table([row for runs in experiments.values() for row in rows_of(runs)])
    cells = table.map(cell).to_csv(index=False)
    for name, text in (("table.csv", cells), ("table.md", readable(table))):
        write_bytes(output / name, text.encode())
    return figures, table


if __name__ == "__main__":
    main()
