"""Runs that a launcher trains: their processes are killed, the same runs are asked for again, all must end the same."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from continual_agents.runs.lock import born, holder, machine
from tools.launchers import Launcher
from tools.train import jobs

from .campaign import COMMON, RUNS, CampaignError, Count, Reference
from .compare import differences
from .process import fresh, leftovers

COPIES = 2
"""Runs of each kind that are trained beside one another."""

MOST_TURNS = 50
"""How often the same runs are asked for before they count as hung."""


class Launched:
    """One kind of run, trained by a launcher, against its undisturbed twin.

    Args:
        name: key of `RUNS`.
        folder: where the runs live; those that differ stay there.
    """

    def __init__(self, name: str, folder: Path):
        self.name, self.folder, self.count = name, folder / name, Count()
        self.folder.mkdir(parents=True, exist_ok=True)
        whole, log = self.folder / "undisturbed", self.folder / "undisturbed.log"
        if fresh([*RUNS[name], *COMMON, f"folder={whole}"], log):
            raise CampaignError(f"the undisturbed run failed: see {log}")
        self.reference = Reference(whole, float("nan"))

    def configs(self, turn: int) -> list[dict[str, Any]]:
        """New copies of the run."""
        folders = [self.folder / f"run_{turn:03d}_{copy}" for copy in range(COPIES)]
        return [jobs([*RUNS[self.name], *COMMON, "progress=false", f"folder={folder}"])[0] for folder in folders]

    def judge(self, folder: Path, kills: int, say: Callable[[str], None]) -> None:
        """Compare a run that has ended."""
        self.count.runs += 1
        self.count.kills += kills
        if found := list(differences(self.reference.folder, folder)):
            say(f"{folder}: {'; '.join(found[:5])}{' ...' if len(found) > 5 else ''}")
            return
        self.count.survived += kills
        shutil.rmtree(folder)


class Killer:
    """Kills processes that train one of these folders, at random moments, from a thread of its own.

    Whoever holds a folder's lock is its process, whatever launcher has started it.

    Args:
        folders: of the runs.
        most: kills.
        draws: of moments and victims.
    """

    def __init__(self, folders: Sequence[Path], most: int, draws: random.Random):
        self.kills = dict.fromkeys(folders, 0)
        self.during_writes = dict.fromkeys(folders, 0)
        self._most, self._draws = most, draws
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> Killer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _work(self) -> None:
        while sum(self.kills.values()) < self._most and not self._over.wait(self._draws.uniform(0.0, 3.0)):
            running = [(folder, pid) for folder in self.kills if (pid := process_of(folder)) is not None]
            if not running:
                continue
            folder, pid = self._draws.choice(running)
            before = leftovers(folder)
            if self._draws.random() < 0.5:  # in the middle of a checkpoint's write, if there is one soon
                for _ in range(5000):
                    if leftovers(folder) - before or self._over.wait(0.0002):
                        break
            if process_of(folder) == pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    self.kills[folder] += 1
                    self.during_writes[folder] += bool(leftovers(folder) - before)


def process_of(folder: Path) -> int | None:
    """The living process of this machine, other than this one, that trains a run."""
    claim = holder(folder) if folder.is_dir() else None
    if claim is None or claim.machine != machine() or claim.pid == os.getpid():
        return None
    return claim.pid if claim.born is not None and born(claim.pid) == claim.born else None


def campaign(
    launcher: Launcher[Any], kinds: Sequence[Launched], kills: int, draws: random.Random, say: Callable[[str], None]
) -> Iterator[int]:
    """Copies of every kind of run beside one another, again and again, until so many kills were made.

    Yields:
        how many kills there were.

    Raises:
        CampaignError: runs that do not end however often they are asked for.
    """
    done = 0
    for turn in range(kills):
        configs = {one: one.configs(turn) for one in kinds}
        asked = [config for some in configs.values() for config in some]
        with Killer([Path(config["folder"]) for config in asked], kills - done, draws) as killer:
            for _ in range(MOST_TURNS):
                ended = {outcome.folder for outcome in launcher.run(asked) if outcome.kind == "finished"}
                asked = [config for config in asked if Path(config["folder"]) not in ended]
                if not asked:
                    break
            else:
                raise CampaignError(f"{asked[0]['folder']} has not ended after {MOST_TURNS} turns: see its log.txt")
        for one, some in configs.items():
            for config in some:
                folder = Path(config["folder"])
                one.count.during_writes += killer.during_writes[folder]
                one.judge(folder, killer.kills[folder], say)
        done += sum(killer.kills.values())
        yield done
        if done >= kills:
            return
