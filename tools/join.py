"""Shards of a stream's runs as one folder: `python -m tools.join SHARD_FOLDER... --output FOLDER`.

A stream trains all its runs as one stack, on one core. Shards of it, with some of the seeds or some of the methods
each, train wherever a launcher puts them (`'seed=range(0,30,5)' experiment.seeds=5 -m`), and give the same bits: every
run has its own random numbers. Joined, metrics.csv and runs.csv are byte for byte those of the unsplit stack.
"""

import csv
import dataclasses
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from continual_agents.runs import RunError, read_configuration
from continual_agents.runs.checkpoint import write_atomically, write_bytes
from continual_agents.runs.configuration import configuration_text
from continual_agents.runs.files import StrangeFileError, open_file, read_file
from continual_agents.runs.folder import check_same
from continual_agents.runs.provenance import read_sessions
from tools.figures.tables import LARGEST
from tools.parser import Parser
from tools.text import visible

MAY_DIFFER = (
    "seed",
    "folder",
    "experiment.seeds",
    "experiment.methods",
    "method.of",
    "save_seconds",
    "progress",
    "logger",
)
"""What shards may have differently."""

OWN = ("run", "seed", "code")
"""Columns of runs.csv that are no settings of a run."""


class JoinError(ValueError):
    """Folders that are no shards of one stream; the message is all there is to say."""


@dataclasses.dataclass
class Shard:
    """A run folder with some of a stream's runs.

    Attributes:
        path: the folder.
        config: its configuration.
        columns: of runs.csv.
        runs: rows of runs.csv, in order.
    """

    path: Path
    config: dict[str, Any]
    columns: list[str]
    runs: list[dict[str, str]]

    def blocks(self, file: IO[str]) -> Iterator[tuple[str, list[list[str]]]]:
        """The rows of metrics.csv at each step, one per run, in order; a half-written last block is left out."""
        block: list[list[str]] = []
        for line in file:
            if not line.endswith("\n"):
                return
            block.append(line[:-1].split(","))
            if len(block) == len(self.runs):
                if {row[0] for row in block} != {block[0][0]} or [row[1] for row in block] != list(
                    map(str, range(len(block)))
                ):
                    raise JoinError(f"{self.path}/metrics.csv does not have a row per run at step {block[0][0]}")
                yield block[0][0], block
                block = []


def join(folders: Sequence[Path], output: Path) -> Path:
    """Write the tables and the configuration of all shards as those of one stack.

    Args:
        folders: shards with the same settings, and other seeds or methods; methods in the order of the figure.
        output: a new folder, or one that this has written before.

    Raises:
        JoinError: they are not shards of one stream, or not all of it.
    """
    shards = [_read(folder) for folder in folders]
    for shard in shards[1:]:
        try:
            check_same(shard.path, shards[0].config, MAY_DIFFER)
        except RunError as error:
            raise JoinError(
                f"{shards[0].path} is of another configuration: {str(error).split(': continue it')[0]}"
            ) from error
    config, order = _whole(shards)
    if (output / "checkpoints").exists() or (
        (output / "config.yaml").exists() and "joined" not in read_configuration(output / "config.yaml")
    ):
        raise JoinError(f"{output} holds a run: give a new --output")
    output.mkdir(parents=True, exist_ok=True)
    write_bytes(output / "runs.csv", _runs(shards, order).encode())
    write_atomically(output / "metrics.csv", lambda file: _metrics(shards, order, file))
    sessions = [session for shard in shards for session in read_sessions(shard.path / "environment.json")]
    write_bytes(output / "environment.json", json.dumps(sessions, indent=2).encode())
    write_bytes(output / "config.yaml", configuration_text(config).encode())
    return output


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    parser = Parser(prog="python -m tools.join", description=__doc__.split("\n")[0])
    parser.add_argument("shards", nargs="+", type=Path, metavar="SHARD_FOLDER", help="run folders of one stream's runs")
    parser.add_argument("--output", type=Path, required=True, help="the folder of all runs")
    given = parser.parse_args(arguments)
    with parser.refusing(ValueError, output=given.output):
        made = join(given.shards, given.output)
    print(visible(f"{made}: python -m tools.plot {made}"))


def _read(folder: Path) -> Shard:
    if not (folder / "config.yaml").exists():
        raise JoinError(f"{folder} is not a run folder: it has no config.yaml")
    config = read_configuration(folder / "config.yaml")
    experiment = config.get("experiment")
    if (
        not isinstance(experiment, dict)
        or experiment.get("kind") != "stream"
        or not isinstance(config.get("seed"), int)
    ):
        raise JoinError(f"{folder} is not the run of a stream: only stacks of runs have shards")
    try:
        text = read_file(folder / "runs.csv", most=LARGEST).decode("utf-8")
        rows = list(csv.DictReader(io.StringIO(text, newline="")))
    except (OSError, StrangeFileError, UnicodeDecodeError, csv.Error) as error:
        raise JoinError(f"{folder}/runs.csv cannot be read ({error})") from error
    if not rows or not {*OWN, "method"} <= rows[0].keys() or not all(row["seed"].isdigit() for row in rows):
        raise JoinError(f"{folder}/runs.csv is not the table of a stream's runs")
    return Shard(folder, config, list(rows[0]), rows)


def _whole(shards: Sequence[Shard]) -> tuple[dict[str, Any], list[tuple[int, int]]]:
    """The configuration of all runs, and where each of them is: shard and run number, in the order of one stack."""
    columns = _union(shard.columns for shard in shards)
    found: dict[tuple[str, ...], dict[int, tuple[int, int]]] = {}
    for number, shard in enumerate(shards):
        for run, row in enumerate(shard.runs):
            setting = tuple(row.get(name, "nan") for name in columns if name not in OWN)
            seeds, seed = found.setdefault(setting, {}), int(row["seed"])
            if seed in seeds:
                raise JoinError(
                    f"{row['method']} with seed {seed} is in {shards[seeds[seed][0]].path} and in {shard.path}"
                )
            seeds[seed] = number, run
    every = sorted({seed for seeds in found.values() for seed in seeds})
    for setting, seeds in found.items():
        missing = [seed for seed in range(every[0], every[-1] + 1) if seed not in seeds]
        if missing:
            raise JoinError(f"{', '.join(setting)} with seed {missing[0]} is in none of the folders")
    config = dict(shards[0].config)
    compared = [shard.config["method"] for shard in shards]
    experiment = config["experiment"] | {"seeds": len(every)}
    if all("of" in one for one in compared):
        config["method"] = compared[0] | {"of": {name: of for one in compared for name, of in one["of"].items()}}
        experiment["methods"] = list(config["method"]["of"])
    elif any(one != compared[0] for one in compared):
        raise JoinError("runs of one method each have no common configuration: plot their folders together")
    config |= {"seed": every[0], "experiment": experiment, "joined": [str(shard.path) for shard in shards]}
    return config, [place for seeds in found.values() for _, place in sorted(seeds.items())]


def _union(several: Iterable[Sequence[str]]) -> list[str]:
    return list(dict.fromkeys(name for names in several for name in names))


def _runs(shards: Sequence[Shard], order: Sequence[tuple[int, int]]) -> str:
    columns = _union(shard.columns for shard in shards)
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(columns)
    for number, (shard, run) in enumerate(order):
        row = shards[shard].runs[run] | {"run": str(number)}
        table.writerow([row.get(name, "nan") for name in columns])
    return text.getvalue()


def _metrics(shards: Sequence[Shard], order: Sequence[tuple[int, int]], output: IO[bytes]) -> None:
    """The rows of all runs, step by step, as far as all shards are."""
    files = [io.TextIOWrapper(open_file(shard.path / "metrics.csv"), encoding="utf-8", newline="") for shard in shards]
    try:
        headers = [file.readline().rstrip("\n").split(",") for file in files]
        columns = _union(headers)
        places = [[header.index(name) if name in header else None for name in columns] for header in headers]
        if not all(header[:2] == ["step", "run"] for header in headers):
            raise JoinError(f"{shards[0].path}/metrics.csv is not the table of a stream's runs")
        output.write((",".join(columns) + "\n").encode())
        for blocks in zip(*(shard.blocks(file) for shard, file in zip(shards, files, strict=True)), strict=False):
            if len({step for step, _ in blocks}) > 1:
                raise JoinError(
                    f"{shards[0].path} and the others have rows at other steps: give all the same row_steps"
                )
            for number, (shard, run) in enumerate(order):
                row = blocks[shard][1][run]
                cells = ["nan" if place is None else row[place] for place in places[shard]]
                cells[1] = str(number)
                output.write((",".join(cells) + "\n").encode())
    except (UnicodeDecodeError, IndexError) as error:
        raise JoinError(f"a metrics.csv was changed or damaged: {error}") from error
    finally:
        for file in files:
            file.close()


if __name__ == "__main__":
    main()
