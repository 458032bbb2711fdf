"""Kill runs again and again, let them continue, and compare them with runs that nobody disturbed."""

from __future__ import annotations

import dataclasses
import random
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from .compare import differences
from .process import Forked, fresh, leftovers

OFF_POLICY = [
    "experiment.agent.init_random_frames=100", "experiment.agent.log_interval=50",
    "experiment.agent.replay_buffer.size=500",
]  # fmt: skip
"""A buffer that is overwritten in the middle of the run."""

RUNS: dict[str, list[str]] = {
    "slippery_ant": [
        "experiment=slippery_ant", "method=continual_backprop", "experiment.steps=8192",
        "experiment.agent.batch=256", "experiment.probe.every=4",
    ],
    "permuted_digits": [
        "experiment=permuted_digits", "experiment.methods=[backprop,continual_backprop_adam,dropout]",
        "experiment.tasks=20", "experiment.row_steps=150",
    ],
    "slowly_changing_regression": [
        "experiment=slowly_changing_regression", "experiment.methods=[continual_backprop,shrink_and_perturb]",
        "experiment.steps=12000",
    ],
    "dqn_cartpole": [
        "experiment=dqn_cartpole", "method=continual_backprop", "experiment.steps=2000",
        "experiment.replacement.maturity=50", "experiment.replacement.rate=1e-3", *OFF_POLICY,
    ],
    "minatar": [
        "experiment=minatar", "method=continual_backprop", "experiment.steps=1000",
        "experiment.agent.replay_buffer.storage=memmap", *OFF_POLICY,
    ],
    "sac_pendulum": [
        "experiment=sac_pendulum", "method=periodic_reset", "experiment.steps=1000", "experiment.reset.period=300",
        "experiment.agent.batch_size=64", *OFF_POLICY,
    ],
}  # fmt: skip
"""The runs that are killed: seconds long, with a checkpoint wherever one may be made."""

COMMON = ["scale=smoke", "save_seconds=0"]

MOST_KILLS_PER_RUN = 6

PATIENCE = 120.0
"""Seconds after which a run that does not end counts as hung."""


class CampaignError(RuntimeError):
    """The campaign itself cannot go on: an undisturbed run failed."""


@dataclasses.dataclass
class Count:
    """What happened to one kind of run."""

    runs: int = 0
    kills: int = 0
    during_writes: int = 0
    survived: int = 0


class Kind:
    """One kind of run and its undisturbed twin.

    Args:
        name: key of `RUNS`.
        folder: where the runs live; those that differ stay there.
        say: told of every difference.

    Attributes:
        whole: folder of the run that nobody disturbed.
        seconds: that it takes without the imports, where that is known.
    """

    seconds = float("nan")

    def __init__(self, name: str, folder: Path, say: Callable[[str], None]):
        self.name, self.folder, self.say, self.count = name, folder / name, say, Count()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.whole, log = self.folder / "undisturbed", self.folder / "undisturbed.log"
        if fresh(self.words(self.whole), log):
            raise CampaignError(f"the undisturbed run failed: see {log}")

    def words(self, folder: Path) -> list[str]:
        """The command line of the run in that folder."""
        return [*RUNS[self.name], *COMMON, f"folder={folder}"]

    def judge(self, folder: Path, kills: int, wrong: str = "") -> bool:
        """Whether a run that has ended after so many kills, with nothing `wrong`, is its twin; removed if it is."""
        if found := [wrong] if wrong else list(differences(self.whole, folder)):
            self.say(f"{folder}: {'; '.join(found[:5])}{' ...' if len(found) > 5 else ''}")
            return False
        self.count.survived += kills
        shutil.rmtree(folder)
        return True


class Campaign(Kind):
    """One kind of run, killed again and again.

    Args:
        name, folder, say: as of `Kind`.
        draws: of the moments.
    """

    def __init__(self, name: str, folder: Path, draws: random.Random, say: Callable[[str], None]):
        super().__init__(name, folder, say)
        self.draws = draws
        twin = self.folder / "forked"  # a new process gave the numbers, a forked one gives the time; both must agree
        started = time.monotonic()
        process = Forked(self.words(twin), self.folder / "forked.log")
        if not process.wait(PATIENCE) or process.status:
            raise CampaignError(f"the forked run failed: see {self.folder / 'forked.log'}")
        self.seconds = time.monotonic() - started
        for difference in differences(self.whole, twin):
            raise CampaignError(f"two undisturbed runs differ, so killed ones prove nothing: {difference}")

    def round(self, most: int) -> Iterator[None]:
        """One run to its end through up to `most` kills; yields after each kill."""
        number, self.count.runs = self.count.runs, self.count.runs + 1
        folder, log = self.folder / f"run_{number:03d}", self.folder / f"run_{number:03d}.log"
        kills, planned = 0, self.draws.randint(1, max(1, min(most, MOST_KILLS_PER_RUN)))
        while True:
            process = Forked(self.words(folder), log)
            if kills < planned and self._strike(process, folder):
                kills += 1
                yield
            elif not process.wait(PATIENCE):
                process.kill()
                self.judge(folder, kills, f"hung after {kills} kills")
                return
            else:
                break
        if process.status and not kills:
            raise CampaignError(f"a run failed that nobody had disturbed: see {log}")
        if self.judge(folder, kills, f"exit status {process.status}" if process.status else ""):
            log.unlink()

    def _strike(self, process: Forked, folder: Path) -> bool:
        """Kill at a random moment, or in the first checkpoint's write after it; False if the run was faster."""
        before = leftovers(folder)
        writing = self.draws.random() < 0.5
        moment = self.draws.uniform(0.0, self.seconds)
        if process.wait(moment):
            return False
        if writing and not process.wait_for_write(folder, self.seconds, before):
            return False
        process.kill()
        if process.status != -9:
            return False  # it ended just before
        self.count.kills += 1
        self.count.during_writes += bool(leftovers(folder) - before)
        return True
