"""Reading run folders: which there are, what they hold, how they are called."""

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from continual_agents.runs import read_configuration
from continual_agents.runs.configuration import flatten as pairs_of
from tools.text import visible_everywhere

from .tables import check_distinct, read_table, read_tables

IGNORED = (
    "seed",
    "folder",
    "joined",  # shards, of tools.join
    "threads",
    "device",
    "save_seconds",
    "progress",
    "logger",
    "experiment.steps",
    "experiment.fast",
    "experiment.probe",
    "experiment.on_not_finite",
    "experiment.agent.on_not_finite",
    "method.name",
    "code",  # runs.csv: what took the steps
)
"""Configuration keys (or their prefixes) that do not make a different setting of the same method."""

# with the dot: `experiment.steps` must not hide a key that only begins so
_IGNORED = tuple(f"{key}." for key in IGNORED)

COLUMNS = {"metrics": ("step",), "episodes": ("step", "return", "friction", "task"), "runs": ("run",)}
"""Columns that figures cannot do without."""

METHOD_NAMES = {
    "ppo": "PPO",
    "backprop": "backprop",
    "adam": "Adam",
    "tuned_adam": "tuned Adam",
    "l2": "L2",
    "l2_init": "L2 to initial weights",
    "shrink_and_perturb": "shrink and perturb",
    "redo": "ReDo",
    "churn": "C-CHAIN",
    "muon": "Muon",
    "trac": "TRAC",
    "regrama": "ReGraMa",
    "upgd": "UPGD",
    "self_normalized_resets": "self-normalised resets",
    "normalize_and_project": "normalise and project",
    "fourier": "deep Fourier features",
    "parseval": "Parseval regularisation",
    "spectral": "spectral regularisation",
    "online_norm": "online normalisation",
    "layer_norm": "layer norm",
    "crelu": "CReLU",
    "generate_and_test": "generate and test",
    "continual_backprop": "continual backprop",
    "continual_backprop_l2": "continual backprop + L2",
    "continual_backprop_adam": "continual backprop with Adam",
    "fresh": "fresh network",
    "task_shrink_and_perturb": "shrink and perturb at tasks",
}


class FolderError(ValueError):
    """A folder that is not, or holds not, a finished or running run."""


@dataclasses.dataclass(frozen=True, eq=False)
class RunFolder:
    """What one run folder holds.

    Attributes:
        path: the folder.
        config: config.yaml.
        metrics: metrics.csv.
        episodes: episodes.csv of a reinforcement learning run, else None.
        runs: runs.csv of a stack, one row per run with its settings, else None.
    """

    path: Path
    config: dict[str, Any]
    metrics: pd.DataFrame
    episodes: pd.DataFrame | None = None
    runs: pd.DataFrame | None = None

    @property
    def experiment(self) -> str:
        """Name of the experiment."""
        return _name(self.config.get("experiment"), self.path.name)

    @property
    def method(self) -> str:
        """Name of the method."""
        return _name(self.config.get("method"), "unnamed")

    @property
    def is_stream(self) -> bool:
        """Whether the rows of metrics.csv belong to the runs of a stack."""
        return "run" in self.metrics.columns


def find_folders(paths: Iterable[Path | str]) -> list[Path]:
    """Run folders in `paths`: those folders themselves, or every one below them.

    Raises:
        FolderError: a path that is no folder, or no run below any of them, naming what a run folder holds.
    """
    found: dict[Path, None] = {}
    given = [Path(path) for path in paths]
    for path in given:
        if not path.is_dir():
            raise FolderError(f"{path} is not a folder: give run folders, or a folder that holds some")
        candidates = [path] if (path / "config.yaml").exists() else sorted(p.parent for p in path.rglob("config.yaml"))
        found.update(dict.fromkeys(folder for folder in candidates if (folder / "metrics.csv").exists()))
    if not found:
        names = ", ".join(map(str, given)) or "nothing given"
        raise FolderError(f"no run in {names}: a run folder holds config.yaml and metrics.csv")
    return list(found)


def read_folder(path: Path, known: Mapping[Path, pd.DataFrame] | None = None) -> RunFolder:
    """Read one run folder; a half-written last line of a running or killed run is left out.

    Args:
        path: the folder.
        known: tables that were read already, of this folder or of others.

    Raises:
        FolderError: a file that cannot be read, or tables that are empty or lack a column.
    """
    try:
        config = visible_everywhere(read_configuration(path / "config.yaml"))
        metrics, episodes = (
            known[file] if known and file in known else read_table(file, COLUMNS[file.stem])
            for file in (path / "metrics.csv", path / "episodes.csv")
        )
        if metrics is None:
            raise FolderError(f"{path}/metrics.csv holds no whole row: nothing was logged yet")
        check_distinct(path / "metrics.csv", metrics)
        runs = read_table(path / "runs.csv", COLUMNS["runs"], words=True)
        if runs is not None:
            check_distinct(path / "runs.csv", runs)
    except ValueError as error:
        raise FolderError(str(error)) from error
    return RunFolder(path, config, metrics, episodes, runs)


def read_folders(paths: Iterable[Path | str]) -> list[RunFolder]:
    """Every run below `paths` that has logged something."""
    runs, problems = [], []
    found = find_folders(paths)
    known: dict[Path, pd.DataFrame] = {}
    for name in ("metrics", "episodes"):
        known |= read_tables((path / f"{name}.csv" for path in found), COLUMNS[name])
    for path in found:
        try:
            runs.append(read_folder(path, known))
        except FolderError as error:
            problems.append(str(error))
    if not runs:
        more = f" (and {len(problems) - 1} more folders like it)" if len(problems) > 1 else ""
        raise FolderError(problems[0] + more)
    return runs


def by_experiment(runs: list[RunFolder]) -> dict[str, list[RunFolder]]:
    """Runs grouped by experiment, in the order found."""
    experiments: dict[str, list[RunFolder]] = {}
    for run in runs:
        experiments.setdefault(run.experiment, []).append(run)
    return experiments


def setting_labels(runs: list[RunFolder]) -> list[str]:
    """A label per folder: the method, and whatever else differs among folders of the same experiment and method.

    Example: two runs of continual backprop with rates 1e-4 and 1e-5 become "continual backprop, rate 0.0001" and
    "continual backprop, rate 1e-05"; seeds never make a label.
    """
    flat = [flatten(run.config) for run in runs]
    alike: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for run, config in zip(runs, flat, strict=True):
        alike.setdefault((run.experiment, run.method), []).append(config)
    keys = {group: _telling_apart(configs) for group, configs in alike.items()}
    return [
        ", ".join(
            [
                method_label(run.method),
                *(f"{short(key)} {config.get(key)}" for key in keys[run.experiment, run.method]),
            ]
        )
        for run, config in zip(runs, flat, strict=True)
    ]


def _telling_apart(configs: list[dict[str, Any]]) -> list[str]:
    """Keys of the settings that differ; of two with one name and the same values everywhere, the first.

    A method reads its experiment's constants, so that a step size that differs does so in two places.
    """
    told: dict[tuple[str, ...], str] = {}
    for key in dict.fromkeys(key for config in configs for key in config if is_setting(key)):
        values = tuple(str(config.get(key)) for config in configs)
        if len(set(values)) > 1:
            told.setdefault((short(key), *values), key)
    return list(told.values())


def method_label(method: str) -> str:
    """How a method is called in figures."""
    return METHOD_NAMES.get(method, method.replace("_", " "))


def preference(label: str) -> int:
    """Where a setting stands: continual backprop first, the fresh network that all are held against last."""
    return 0 if label.startswith("continual") else 2 if label.startswith(METHOD_NAMES["fresh"]) else 1


def short(key: str) -> str:
    """Last part of a dotted key, with spaces."""
    return key.rsplit(".", 1)[-1].replace("_", " ")


def flatten(config: Mapping[str, Any]) -> dict[str, Any]:
    """Nested mapping as dotted keys; groups that hold nothing are left out."""
    return {key: value for key, value in pairs_of(config) if not isinstance(value, Mapping)}


def is_setting(key: str) -> bool:
    """Whether a configuration key says what was compared, not merely where, when or with which seed it ran."""
    return not f"{key}.".startswith(_IGNORED)


def _name(entry: Any, default: str) -> str:
    if isinstance(entry, Mapping):
        entry = entry.get("name")
    return str(entry) if entry else default
