"""What a study asks for: methods, each with candidates; tuning seeds; a criterion; fresh seeds."""

import dataclasses
import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from continual_agents.runs import read_configuration
from continual_agents.settings import check_type, nearest, written
from tools.command_line import UsageError, compose_config, own_folder, parse_overrides, plain_config
from tools.unread import OWN

from .scores import CRITERIA

KEYS = {
    "common": list[str],
    "methods": Mapping[str, Any],
    "tuning": Mapping[str, Any],
    "fresh": Mapping[str, Any],
    "criterion": str,
    "folder": str | None,
}
"""What a study file may hold; `common` are words of the command line, `--config-dir=mine` among them."""

STAGE = {"seeds": list[int], "overrides": list[str]}
"""What `tuning` and `fresh` may hold; the overrides hold for their runs alone."""


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A method with settings of its own.

    Attributes:
        method: its name in the study.
        number: of the candidate, from 0.
        words: overrides beside the study's common ones.
    """

    method: str
    number: int
    words: tuple[str, ...]

    @property
    def settings(self) -> str:
        """The overrides as one text."""
        return " ".join(self.words)


@dataclasses.dataclass(frozen=True)
class Protocol:
    """A study file, checked.

    Attributes:
        folder: where everything is written.
        common: overrides of every run.
        candidates: of all methods.
        tuning, fresh: each stage's `seeds` and `overrides`.
        criterion: key of `CRITERIA`.
    """

    folder: Path
    common: list[str]
    candidates: list[Candidate]
    tuning: dict[str, list[Any]]
    fresh: dict[str, list[Any]]
    criterion: str

    @property
    def methods(self) -> dict[str, list[Candidate]]:
        """Candidates by method, in the file's order."""
        return {name: list(group) for name, group in itertools.groupby(self.candidates, lambda one: one.method)}

    def described(self) -> dict[str, Any]:
        """What protocol.yaml holds: everything that the results depend on."""
        methods = {name: [one.settings for one in group] for name, group in self.methods.items()}
        return {
            "common": self.common, "methods": methods, "tuning": self.tuning, "criterion": self.criterion,
            "fresh": self.fresh,
        }  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Job:
    """One run of a study, or one stack of them.

    Attributes:
        candidate: what is run.
        seeds: one, or those of the stack.
        config: resolved.
    """

    candidate: Candidate
    seeds: tuple[int, ...]
    config: dict[str, Any]


def read_protocol(path: Path, *, folder: Path | None = None) -> Protocol:
    """Read and check a study file.

    Args:
        path: a YAML file with `KEYS`.
        folder: instead of the file's; runs/study/NAME where neither says.

    Raises:
        ValueError: unreadable, an unknown key, or a value that cannot be.
    """
    given = read_configuration(path)
    _check(str(path), given, KEYS, needed=("methods", "tuning", "fresh"))
    stages = {}
    for name in ("tuning", "fresh"):
        _check(f"{path}: {name}", given[name], STAGE, needed=("seeds",))
        seeds = given[name]["seeds"]
        if not seeds or len(set(seeds)) != len(seeds) or min(seeds) < 0:
            raise ValueError(f"{path}: {name}.seeds={written(seeds)}: at least one, none negative, none twice")
        stages[name] = {"seeds": seeds, "overrides": given[name].get("overrides", [])}
    if both := set(stages["tuning"]["seeds"]) & set(stages["fresh"]["seeds"]):
        raise ValueError(
            f"{path}: seed {min(both)} is a tuning seed and a fresh one: settings must be measured on seeds that did "
            "not choose them"
        )
    criterion = given.get("criterion", "all_tasks")
    if criterion not in CRITERIA:
        raise ValueError(f"{path}: criterion={criterion}{nearest(criterion, CRITERIA)}")
    candidates = [one for name, grid in given["methods"].items() for one in _candidates(path, str(name), grid)]
    if not candidates:
        raise ValueError(f"{path}: methods names none: write METHOD: {{KEY: [VALUES]}}")
    folder = folder or Path(given.get("folder") or Path("runs/study") / path.stem)
    return Protocol(folder, given.get("common", []), candidates, stages["tuning"], stages["fresh"], criterion)


def jobs(protocol: Protocol, stage: str, candidates: list[Candidate]) -> list[Job]:
    """The runs of a stage: every candidate with every seed, or one stack of all seeds where it is a stream.

    They are ordered by seed, so that every candidate has been seen once before any is seen twice.

    Args:
        protocol: the study.
        stage: `tuning` or `fresh`.
        candidates: what is run.

    Raises:
        UsageError: settings that cannot be composed, or candidates of a method that would be the same run.
    """
    asked = getattr(protocol, stage)
    made, seen = [], dict[str, Candidate]()
    for candidate in candidates:
        own, words = own_folder([*protocol.common, *candidate.words, *asked["overrides"]])
        if swept := [one.input_line for one in parse_overrides(words) if one.is_sweep_override()]:
            raise UsageError(f"{swept[0]}: several values belong under methods, as a list")
        config = plain_config(compose_config(words, own))
        _check_told_apart(candidate, config, seen)
        place = protocol.folder / stage / candidate.method
        if stage == "tuning":
            place /= f"candidate_{candidate.number}"
        if config["experiment"]["kind"] == "agent":
            made += [
                Job(candidate, (seed,), config | {"seed": seed, "folder": str(place / f"seed_{seed}")})
                for seed in asked["seeds"]
            ]
        else:
            made.append(_stack(candidate, config, asked["seeds"], place))
    order = {seed: number for number, seed in enumerate(asked["seeds"])}
    return sorted(made, key=lambda job: order[job.seeds[0]])


def _check_told_apart(candidate: Candidate, config: dict[str, Any], seen: dict[str, Candidate]) -> None:
    """Whether a candidate differs from all others in something that its runs read.

    A constant of one method hides the one of all: `experiment.optimizer.step_size` says nothing to PPO where there is
    an `experiment.ppo.step_size`.

    Args:
        candidate: one more.
        config: its configuration, resolved.
        seen: those before it, by what their runs read; this one is added.

    Raises:
        UsageError: one before it would be the same run.
    """
    experiment = config["experiment"]
    own = {key: experiment.get(key) for key in OWN.get(experiment["kind"], experiment)}
    other = seen.setdefault(json.dumps([candidate.method, config["method"], own], sort_keys=True), candidate)
    if other is not candidate:
        raise UsageError(
            f"{candidate.method}: the candidates {other.settings!r} and {candidate.settings!r} would be the same run: "
            f"give settings that it reads here; what it reads stands in the file of method={candidate.method}"
        )


def _stack(candidate: Candidate, config: dict[str, Any], seeds: list[int], place: Path) -> Job:
    """All seeds of a stream in one process: together they cost little more than one."""
    first = min(seeds)
    if sorted(seeds) != list(range(first, first + len(seeds))):
        raise UsageError(f"seeds={written(seeds)}: the seeds of a stream run as one stack and must follow each other")
    if config["experiment"].get("sweep") or "of" in config["method"]:
        raise UsageError(
            f"{candidate.method} makes runs of several settings: a study's candidates are written under methods"
        )
    experiment = config["experiment"] | {"seeds": len(seeds)}
    return Job(
        candidate, tuple(sorted(seeds)), config | {"seed": first, "folder": str(place), "experiment": experiment}
    )


def _candidates(path: Path, name: str, grid: Any) -> list[Candidate]:
    """Every combination of a method's values."""
    if grid is not None and not isinstance(grid, Mapping):
        raise ValueError(f"{path}: methods.{name}={written(grid)}: write KEY: [VALUES] below it, or nothing")
    values = {
        "method": [name],
        **{str(key): one if isinstance(one, list) else [one] for key, one in (grid or {}).items()},
    }
    if empty := [key for key, several in values.items() if not several]:
        raise ValueError(f"{path}: methods.{name}.{empty[0]}=[]: at least one value")
    combinations = itertools.product(*([_word(key, value) for value in several] for key, several in values.items()))
    return [Candidate(name, number, words) for number, words in enumerate(combinations)]


def _word(key: str, value: Any) -> str:
    """An override as the command line has it."""
    return f"{key}={value if isinstance(value, str) else json.dumps(value)}"


def _check(where: str, given: Any, known: Mapping[str, Any], *, needed: tuple[str, ...]) -> None:
    """Keys and types of a mapping."""
    if not isinstance(given, Mapping):
        raise ValueError(f"{where}: {written(given)} is no mapping: give {', '.join(known)}")
    for key, value in given.items():
        if key not in known:
            raise ValueError(f"{where}: {key} is unknown{nearest(str(key), known)}")
        check_type(f"{where}: {key}", value, known[key])
    if missing := [key for key in needed if key not in given]:
        raise ValueError(f"{where}: {missing[0]} is missing")
