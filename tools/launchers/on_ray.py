"""Runs as tasks of a Ray cluster, or of one that this command starts on its machine."""

import dataclasses
import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .launcher import Config, Launcher, Outcome
from .worker import train

ROOT = Path(__file__).resolve().parents[2]
"""The checkout, which every node must see under this name."""

STARTS = 5
"""How often Ray is started: it gives its own processes half a minute, which is little on a machine at work."""


@dataclasses.dataclass
class Task:
    """A run that was handed to Ray.

    Attributes:
        result: Ray's reference to how it ends.
        cancelled: it has been asked to stop.
    """

    result: Any
    cancelled: bool = False


class Ray(Launcher[Task]):
    """One task per run. Where its worker or node is lost, Ray starts it again elsewhere and it continues its run.

    Args:
        at_once: most tasks waiting or running at a time; -1: as many as the cluster has room for.
        address: of a cluster that is there (`auto` on one of its nodes, HOST:PORT, ray://HOST:PORT); null: one of this
            machine's cores, which ends with the command.
        num_cpus: cores of a task.
        num_gpus: GPUs of a task; Ray shows it no other ones.
        max_retries: how often a task whose worker was lost starts again; -1: always.

    Raises:
        ValueError: a number out of range, or a cluster that cannot be reached.
        ModuleNotFoundError: Ray is missing.
    """

    def __init__(
        self,
        *,
        at_once: int = -1,
        address: str | None = None,
        num_cpus: int = 1,
        num_gpus: float = 0.0,
        max_retries: int = -1,
    ):
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
        try:
            import ray
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                f"the package {error.name} is missing: pip install --constraint constraints.txt -e '.[ray]'"
            ) from error
        if at_once < 1 and at_once != -1:
            raise ValueError(f"hydra.launcher.at_once={at_once}: at least 1, or -1 for as many as there is room for")
        if num_cpus < 1:
            raise ValueError(f"hydra.launcher.num_cpus={num_cpus}: at least 1")
        if not 0 <= num_gpus < float("inf"):
            raise ValueError(f"hydra.launcher.num_gpus={num_gpus}: must not be negative")
        if max_retries < -1:
            raise ValueError(f"hydra.launcher.max_retries={max_retries}: at least 0, or -1 for always")
        self._ray, self._ours = ray, not ray.is_initialized()
        if self._ours:
            _begin(ray, address)
        super().__init__(max(1, int(ray.cluster_resources().get("CPU", 1)) // num_cpus) if at_once == -1 else at_once)
        variables = {"OMP_NUM_THREADS": str(num_cpus), "PYTHONPATH": str(ROOT)}
        self._train = ray.remote(train_in).options(
            num_cpus=num_cpus,
            num_gpus=num_gpus,
            max_retries=max_retries,
            runtime_env={"env_vars": variables},
        )

    def __exit__(self, *_: object) -> None:
        if self._ours:
            self._ray.shutdown()

    def start(self, config: Config) -> Task:
        """Hand it to Ray."""
        return Task(self._train.remote(dict(config), os.getcwd()))

    def outcome(self, started: Task, config: Config, *, stopping: bool) -> Outcome | None:
        """What its task says; one that was told to end by somebody else, as on a node that is drained, starts again."""
        if not self._ray.wait([started.result], timeout=0)[0]:
            return None
        folder = Path(config["folder"])
        try:
            kind, _, problem = self._ray.get(started.result).partition(" ")
        except self._ray.exceptions.TaskCancelledError:
            return Outcome(folder, "stopped")
        except self._ray.exceptions.RayError as error:
            if stopping:
                return Outcome(folder, "stopped")
            last = str(error).strip().splitlines()[-1:] or [type(error).__name__]
            return Outcome(folder, "failed", f"its task was lost ({last[0]}); the same command continues it")
        if kind == "stopped" and not stopping:
            started.result = self.start(config).result
            return None
        return Outcome(folder, kind, problem)

    def stop(self, started: Task) -> None:
        """Cancel it, once: Ray interrupts a task as Ctrl-C does, at which a run saves."""
        if not started.cancelled:
            started.cancelled = True
            self._ray.cancel(started.result, force=False)

    def wait(self, started: Sequence[Task]) -> None:
        """Return when one of them has ended, or after half a second."""
        if started:
            self._ray.wait([one.result for one in started], timeout=0.5)
        else:
            time.sleep(0.5)


def _begin(ray: Any, address: str | None) -> None:
    """Connect to a cluster, or start one.

    Raises:
        ValueError: it cannot be reached, or does not start.
    """
    for attempt in range(STARTS):
        try:
            ray.init(address=address, log_to_driver=False, include_dashboard=False, logging_level=logging.ERROR)
            return
        except Exception as error:  # what Ray raises where its processes were too slow is of no class of its own
            said = f"hydra.launcher.address={address}: {' '.join(str(error).split())}"
            refused = isinstance(error, ConnectionError | RuntimeError | ValueError)
            if refused or address is not None or attempt == STARTS - 1:
                raise ValueError(said) from error
            ray.shutdown()


def train_in(config: Config, place: str) -> str:
    """What a task does: train one run, from the folder in which the command was given."""
    os.chdir(place)
    return train(config)
