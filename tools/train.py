"""The one entry: `python -m tools.train experiment=slippery_ant method=continual_backprop seed=0 scale=demo`."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import hydra
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from continual_agents.runs import CheckpointError, LoggerError, Run, RunError, check_logger
from tools.command_line import UsageError, choices, compose_config, parse_overrides, plain_config

MAY_CHANGE = ("experiment.steps", "experiment.tasks", "folder", "threads", "save_seconds", "progress", "logger")
"""What a continued run may give differently: nothing that changes its numbers, except how long it is."""


class Job(Protocol):
    """What an experiment's kind has to offer.

    Attributes:
        steps: where the run ends.
    """

    steps: int

    def run(self, run: Run) -> None:
        """Do it, continuing what `run` holds."""

    def close(self) -> None:
        """Free what it holds."""


def build(config: dict[str, Any]) -> Job:
    """The job of a configuration, checked but not begun; no file is touched.

    Raises:
        UsageError: a value that cannot be run, or a package that is missing.
    """
    kind = config["experiment"]["kind"]
    try:
        if kind == "agent":
            from tools.agent import AgentJob

            if "of" in config["method"]:
                raise UsageError("method=compared is for streams: give one method, or several as method=a,b -m")
            return AgentJob(config)
        if config.get("logger", {}).get("video"):
            raise UsageError(f"logger.video=true films agents: there is nothing to film in experiment.kind={kind}")
        if kind == "stream":
            from tools.stream import StreamJob

            return StreamJob(config)
        if kind == "warm_start":
            from tools.warm_start import WarmStartJob

            return WarmStartJob(config)
        raise UsageError(f"experiment.kind={kind}: agent, stream or warm_start")
    except ModuleNotFoundError as error:
        raise UsageError(
            f"{error.name} is not installed: pip install --constraint constraints.txt -e '.[rl]'"
        ) from error
    except (ValueError, TypeError, KeyError) as error:
        raise UsageError(str(error.args[0] if error.args else error)) from error


@hydra.main(version_base="1.3", config_path="../configs", config_name="train")
def train(composed: DictConfig) -> None:
    """One job in its own process or in this one."""
    job_settings = HydraConfig.get().job
    position = 0 if OmegaConf.is_missing(job_settings, "num") else job_settings.num  # among the jobs of -m
    config = plain_config(composed)
    torch.set_num_threads(config["threads"])
    job = build(config)
    try:
        with Run.open(
            config["folder"],
            config,
            may_change=MAY_CHANGE,
            save_seconds=config["save_seconds"],
            bar_position=position if config["progress"] else None,
            logger=config["logger"],
        ) as run:
            if run.finished and run.step >= job.steps:
                print(f"{run.folder} is finished ({run.step} steps): nothing to do", file=sys.stderr)
                return
            job.run(run)
            if run.stop_requested:
                print(
                    f"\nstopped and saved at step {run.step}: the same command continues {run.folder}", file=sys.stderr
                )
    finally:
        job.close()


def jobs(words: Sequence[str]) -> list[dict[str, Any]]:
    """The configuration of every job that these command-line words start; several under `-m`."""
    overrides = [word for word in words if not word.startswith("-")]
    swept = [[f"{item.key_or_group}={value}" for value in choices(item)] for item in parse_overrides(overrides)]
    return [plain_config(compose_config(list(combination))) for combination in itertools.product(*swept)]


def main(words: Sequence[str]) -> None:
    """Check everything that was asked for, run it, draw it."""
    if any(word in ("--help", "-h", "--hydra-help", "--cfg", "-c", "--info", "-i") for word in words):
        train()
        return
    # Hydra would print its own version of an error and exit; the few that a user can mend are told in one line below
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    try:
        configs = jobs(words)
        for config in configs:
            check_logger(config["logger"])
            Run.check(config["folder"], config, may_change=MAY_CHANGE)
            build(config).close()
        train()
    except (UsageError, RunError, LoggerError, CheckpointError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except FloatingPointError as error:  # the learning diverged; the message names the last good checkpoint
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    draw([Path(config["folder"]) for config in configs])


def draw(folders: Sequence[Path]) -> None:
    """Figure and table of the runs, beside them."""
    from tools.figures.table import readable
    from tools.plot import plot_runs, summary_table

    parent = Path(os.path.commonpath(folders))
    figure = plot_runs(folders, parent)
    print(f"\n{readable(summary_table(folders))}\nfigure:      {figure}\nTensorBoard: tensorboard --logdir {parent}")


if __name__ == "__main__":
    main(sys.argv[1:])
