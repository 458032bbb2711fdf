"""The course of a study: tuning runs, the choice, fresh runs, figure and table."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from continual_agents.runs import Lock, Run, Table, read_configuration
from continual_agents.runs.checkpoint import write_atomically
from tools.figures.table import readable
from tools.launchers import Launcher, Outcome
from tools.plot import draw_runs
from tools.train import build, may_change

from .protocol import Candidate, Job, Protocol, jobs
from .scores import higher_is_better, scores

MAY_GROW = "fresh"
"""The part of a protocol that may be asked for differently later: it cannot change what was chosen."""


class StudyError(RuntimeError):
    """The study cannot go on in this folder; the message says why."""


class Study:
    """A study in its folder.

    ```
    protocol.yaml   what was asked for
    tuning/         run folders: METHOD/candidate_N/seed_N
    tuning.csv      every candidate and seed with its score
    frozen.yaml     the chosen settings
    fresh/          run folders: METHOD/seed_N
    results.csv     their scores
    figure.png, table.csv, table.md: of the fresh runs
    ```

    Args:
        protocol: what is asked for.
        launcher: who trains its runs.

    Raises:
        StudyError: the folder holds another study.
        RunError: another process works on it.
        UsageError, ValueError: settings that cannot be run.
    """

    def __init__(self, protocol: Protocol, launcher: Launcher[Any]):
        self.protocol, self.folder, self.launcher = protocol, protocol.folder, launcher
        self._tuning = jobs(protocol, "tuning", protocol.candidates)
        for stage, planned in (("tuning", self._tuning), ("fresh", jobs(protocol, "fresh", protocol.candidates))):
            for job in planned:
                if job.seeds[0] == min(getattr(protocol, stage)["seeds"]):  # the seed alone breaks nothing
                    build(job.config).close()
        self.folder.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as undo:
            undo.enter_context(Lock(self.folder))
            self._keep_protocol()
            self._undo = undo.pop_all()

    def __enter__(self) -> Study:
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()

    def run(self) -> int:
        """Do what is left of it; the exit code: 0 done, 1 runs failed, 128 + N: stopped by signal N."""
        print(self._budget(), flush=True)
        code = self._stage("tuning", self._tuning)
        if code:
            return code
        chosen = self._freeze()
        code = self._stage("fresh", jobs(self.protocol, "fresh", chosen))
        folders = [path for path in (self.folder / "fresh").glob("*") if any(path.rglob("metrics.csv"))]
        if folders and code < 128:
            drawn = draw_runs(folders, self.folder)
            drawn.log(self.folder / "fresh")
            print(f"\n{readable(drawn.table)}\nfigure:   {drawn.figures[0]}\nresults:  {self.folder / 'results.csv'}")
        return code

    def _keep_protocol(self) -> None:
        path, asked = self.folder / "protocol.yaml", self.protocol.described()
        if path.exists():
            there = read_configuration(path)
            for key in asked:
                if key != MAY_GROW and there.get(key) != asked[key]:
                    raise StudyError(
                        f"{self.folder} holds a study with another {key} (see {path}): give another --folder"
                    )
        _write_yaml(path, asked)

    def _budget(self) -> str:
        """What each method may spend on its settings, and what they are measured with."""
        protocol = self.protocol
        candidates = {name: len(group) for name, group in protocol.methods.items()}
        seeds, counts = len(protocol.tuning["seeds"]), set(candidates.values())
        each = ", ".join(f"{name} {count}" for name, count in candidates.items())
        how_many = f"equal: {counts.pop()} candidates" if len(counts) == 1 else f"UNEQUAL: candidates of {each};"
        steps = self._tuning[0].config["experiment"]
        length = f"{steps['steps']:,} steps" if steps.get("steps") else f"{steps.get('tasks')} tasks"
        return (
            f"tuning budget of the {len(candidates)} methods {how_many} x {seeds} seeds x {length} each; chosen by "
            f"{protocol.criterion}, then measured on {len(protocol.fresh['seeds'])} fresh seeds"
        )

    def _stage(self, name: str, planned: Sequence[Job]) -> int:
        """Train what is not in the stage's table yet; the exit code."""
        path = self.folder / ("tuning.csv" if name == "tuning" else "results.csv")
        with contextlib.closing(_reopened(path)) as table:
            known = _known(path)
            left = [job for job in planned if not {_key(job.candidate, seed) for seed in job.seeds} <= known]
            if not left:
                return 0
            for job in left:
                Run.check(job.config["folder"], job.config, may_change=may_change(job.config))

            def on_end(number: int, outcome: Outcome) -> None:
                if outcome.kind in ("finished", "diverged"):
                    table.extend(self._rows(left[number], outcome))
                    table.sync()

            outcomes = self.launcher.run([job.config for job in left], title=name, on_end=on_end)
        return self.launcher.tell(outcomes, len(left))

    def _rows(self, job: Job, outcome: Outcome) -> dict[str, list[Any]]:
        """Rows of a run that has ended, as columns."""
        count = len(job.seeds)
        values = [math.nan] * count if outcome.kind == "diverged" else scores(outcome.folder, self.protocol.criterion)
        experiment = job.config["experiment"]
        return {
            "method": [job.candidate.method] * count,
            "candidate": [job.candidate.number] * count,
            "settings": [job.candidate.settings] * count,
            "seed": list(job.seeds),
            "score": values,
            "steps": [experiment.get("steps") or math.nan] * count,
            "outcome": ["diverged" if math.isnan(value) else "finished" for value in values],
            "folder": [str(outcome.folder.relative_to(self.folder))] * count,
        }

    def _freeze(self) -> list[Candidate]:
        """The best candidate of each method, written down once."""
        path = self.folder / "frozen.yaml"
        # once: what was measured on fresh seeds has to be what is written down as chosen
        if not path.exists():
            _write_yaml(path, self._choose())
        frozen = read_configuration(path)["methods"]
        chosen = []
        for name, group in self.protocol.methods.items():
            number = frozen[name]["candidate"]
            chosen.append(group[number])
            print(f"{name}: {frozen[name]['settings']} (candidate {number}, {frozen[name]['score']:.6g})", flush=True)
        return chosen

    def _choose(self) -> dict[str, Any]:
        """Per method the candidate whose mean score over the tuning seeds is best; one that diverged comes last."""
        table = pd.read_csv(self.folder / "tuning.csv")
        ended = table[table["outcome"] == "finished"]
        best_is_highest = bool(len(ended) == 0 or higher_is_better(self.folder / ended["folder"].iloc[0]))
        scores = table.groupby(["method", "candidate"])["score"]
        means, lost = scores.mean(), scores.apply(lambda one: one.isna().sum())
        worth = (means if best_is_highest else -means).fillna(-math.inf)
        methods = {}
        for name, group in self.protocol.methods.items():
            # fewest diverged runs, then the best mean, then the earliest candidate
            number = max(range(len(group)), key=lambda k: (-lost[name, k], worth[name, k], -k))
            methods[name] = {
                "candidate": number, "settings": group[number].settings, "score": float(means[name, number]),
                "diverged": int(lost[name, number]),
            }  # fmt: skip
        best = "highest" if best_is_highest else "lowest"
        return {"criterion": f"{best} mean {self.protocol.criterion} over the tuning seeds", "methods": methods}


def _key(candidate: Candidate, seed: int) -> tuple[str, int, int]:
    return candidate.method, candidate.number, seed


def _known(path: Path) -> set[tuple[str, int, int]]:
    """The runs that a table has."""
    if not path.stat().st_size:
        return set()
    table = pd.read_csv(path)
    return set(zip(table["method"], table["candidate"], table["seed"], strict=True))


def _reopened(path: Path) -> Table:
    """A table to be continued; the row that a kill left half written is cut off."""
    rows = max(0, path.read_bytes().count(b"\n") - 1) if path.exists() else 0
    return Table(path, rows=rows)


def _write_yaml(path: Path, content: dict[str, Any]) -> None:
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120)
    write_atomically(path, lambda file: file.write(text.encode()))
