"""Runs that a launcher trains: their processes are killed, the same runs are asked for again, all must end the same."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from continual_agents.runs.lock import born, holder, machine
from tools.launchers import Launcher
from tools.train import jobs

from .campaign import CampaignError, Kind
from .process import leftovers

COPIES = 2
"""Runs of each kind that are trained beside one another."""

MOST_TURNS = 50
"""How often the same runs are asked for before they count as hung."""


class Launched(Kind):
    """One kind of run, trained by a launcher; arguments as of `Kind`."""

    def configs(self, turn: int) -> list[dict[str, Any]]:
        """New copies of the run."""
        folders = [self.folder / f"run_{turn:03d}_{copy}" for copy in range(COPIES)]
        return [jobs([*self.words(folder), "progress=false"])[0] for folder in folders]


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


def campaign(launcher: Launcher[Any], kinds: Sequence[Launched], kills: int, draws: random.Random) -> Iterator[int]:
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
                one.count.runs += 1
                one.count.kills += killer.kills[folder]
                one.count.during_writes += killer.during_writes[folder]
                one.judge(folder, killer.kills[folder])
        done += sum(killer.kills.values())
        yield done
        if done >= kills:
            return
