"""Runs as jobs of a SLURM cluster, or of the same machinery on this machine, through submitit."""

import os
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Literal

from continual_agents.settings import check_counts

from .launcher import Config, Launcher, Outcome
from .worker import train


class Cluster(Launcher[Any]):
    """One job per run. A job that is preempted or out of time saves its run, is queued again, and continues it.

    Args:
        cluster: `slurm`, or `local`: processes of this machine that are watched as SLURM watches jobs.
        at_once: most jobs queued or running at a time.
        folder: for submitit's scripts and logs; the jobs must see it.
        timeout_min: minutes that a job may take before it is queued again.
        signal_delay_s: seconds before that at which the run is told to save.
        max_num_timeout: how often a job is queued again after a time-out.
        cpus_per_task: cores of a job.
        mem_gb: memory of a job, GB.
        gpus_per_node: GPUs of a job.
        partition, qos, account: SLURM's, if it wants them.
        additional_parameters: any other `sbatch` options by name.

    Raises:
        ValueError: a number out of range, or a cluster that is not there.
        ModuleNotFoundError: submitit is missing.
    """

    def __init__(
        self,
        *,
        cluster: Literal["slurm", "local"],
        at_once: int,
        folder: str,
        timeout_min: int,
        signal_delay_s: int,
        max_num_timeout: int = 100,
        cpus_per_task: int = 1,
        mem_gb: float | None = None,
        gpus_per_node: int = 0,
        partition: str | None = None,
        qos: str | None = None,
        account: str | None = None,
        additional_parameters: Mapping[str, Any] | None = None,
    ):
        try:
            import submitit
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                f"the package {error.name} is missing: pip install --constraint constraints.txt -e '.[slurm]'"
            ) from error
        check_counts("hydra.launcher", at_once=at_once, cpus_per_task=cpus_per_task)
        if not 0 < signal_delay_s < 60 * timeout_min:
            raise ValueError(
                f"hydra.launcher.signal_delay_s={signal_delay_s}: at least 1, and less than timeout_min={timeout_min}"
            )
        super().__init__(at_once)
        os.environ.setdefault("OMP_NUM_THREADS", str(cpus_per_task))  # the jobs get this environment
        try:
            self._executor = submitit.AutoExecutor(
                folder, cluster=cluster, **{f"{cluster}_max_num_timeout": max_num_timeout}
            )
        except RuntimeError as error:  # no sbatch here
            raise ValueError(f"hydra/launcher=submitit_{cluster}: {error}") from error
        own: dict[str, Any] = {"partition": partition, "qos": qos, "account": account, "signal_delay_s": signal_delay_s}
        own["additional_parameters"] = dict(additional_parameters or {}) or None
        if cluster == "local":
            own = {}
            self._executor._executor.parameters["signal_delay_s"] = signal_delay_s  # AutoExecutor has no name for it
        common = {"cpus_per_task": cpus_per_task, "mem_gb": mem_gb, "gpus_per_node": gpus_per_node}
        self._executor.update_parameters(
            name="continual_agents",
            timeout_min=timeout_min,
            **{key: value for key, value in common.items() if value is not None},
            **{f"slurm_{key}": value for key, value in own.items() if value is not None},
        )
        self._local = cluster == "local"
        self._stopped: set[str] = set()

    def start(self, config: Config) -> Any:
        """Queue a job."""
        return self._executor.submit(Preemptible(), dict(config))

    def outcome(self, started: Any, config: Config, *, stopping: bool) -> Outcome | None:
        """What the job has left behind."""
        if not started.done():
            return None
        folder = Path(config["folder"])
        if (error := started.exception()) is not None:
            if stopping:
                return Outcome(folder, "stopped")
            last = str(error).strip().splitlines()[-1:] or [type(error).__name__]
            return Outcome(folder, "failed", f"job {started.job_id}: {last[0]} (see {started.paths.stderr})")
        kind, _, problem = started.result().partition(" ")
        return Outcome(folder, kind, problem)

    def stop(self, started: Any) -> None:
        """Cancel it, once: SLURM and submitit send SIGTERM, at which a run saves, before they kill."""
        if started.job_id not in self._stopped:
            self._stopped.add(started.job_id)
            if self._local:
                started._process.send_signal(signal.SIGTERM)  # its cancel() would give the run a second
            else:
                started.cancel(check=False)

    def wait(self, started: Sequence[Any]) -> None:
        """Return after a moment."""
        time.sleep(1.0)


class Preemptible:
    """What a job does: train, and at submitit's signal save first and be queued again then.

    submitit by itself would queue the job again in the middle of a step, and the steps since the last checkpoint would
    be done twice.
    """

    def __call__(self, config: Config) -> str:
        """Train one run; as `tools.launchers.worker.train`."""
        import submitit

        number = submitit.JobEnvironment()._usr_sig()
        requeue: Any = signal.getsignal(number)
        told = threading.Event()

        def preempt(_: int, frame: FrameType | None) -> None:
            if not told.is_set():
                told.set()
                threading.Thread(target=self._end, daemon=True).start()

        signal.signal(number, preempt)
        outcome = train(config)
        signal.signal(number, requeue)
        if told.is_set() and outcome == "stopped":
            requeue(number, None)  # does not return
        return outcome

    def checkpoint(self, config: Config) -> Any:
        """What is queued: the same again, the run folder knows how far it is."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, config)

    def _end(self) -> None:
        """SIGTERM until the run has ended: before it has begun nobody hears the first."""
        while True:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1.0)
