"""The one entry: `python -m tools.train experiment=slippery_ant method=continual_backprop seed=0 scale=demo`."""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    from tools.starting import stop_while_starting

    stop_while_starting()
    if any(_word in ("--help", "-h") for _word in sys.argv[1:]):  # needs none of them
        from tools.help import show

        show(sys.argv[1:])

    from tools.jobs import jobs_or_exit  # what was mistyped is answered at once

    _configs = jobs_or_exit(sys.argv[1:])

import shlex
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
import torch
from omegaconf import DictConfig, OmegaConf

from continual_agents.methods import Method
from continual_agents.runs import CheckpointError, Fault, LoggerError, Run, RunError, check_logger, steady_output
from continual_agents.runs.files import StrangeFileError
from continual_agents.settings import check_types, shortened
from tools.command_line import CONFIGS, FLAGS, UsageError, hydra_words
from tools.jobs import asks_hydra
from tools.jobs import jobs as jobs
from tools.launchers import make_launcher, split
from tools.memory import available, check_device, gigabytes
from tools.text import message, visible, warning_line
from tools.unread import OWN

if TYPE_CHECKING:
    from tools.agent import AgentJob
    from tools.stream import StreamJob

MAY_CHANGE = (
    *("experiment.steps", "experiment.tasks", "folder", "save_seconds", "progress", "logger"),
    *("experiment.fast", "experiment.on_not_finite", "experiment.agent.on_not_finite", "experiment.stream.root"),
)
"""What a continued run may give differently: nothing that changes its numbers, except how long it is, where the same
data lies now, what becomes of numbers that are not finite, and `experiment.fast=false` where the code that took the
steps is gone (it is said and written down). Sums are added up otherwise with another number of threads."""


def may_change(config: Mapping[str, Any]) -> list[str]:
    """`MAY_CHANGE`, and the constants of methods: who reads one has its value among its own settings, which are
    compared; a constant that a later version adds to an experiment ends no run."""
    experiment = config["experiment"]
    return [*MAY_CHANGE, *(f"experiment.{key}" for key in experiment if key not in OWN[experiment["kind"]])]


TYPES = {"seed": int, "folder": str, "threads": int, "device": str, "save_seconds": float, "progress": bool}
"""What belongs to every run; each kind of experiment knows the rest."""

LOGGER_TYPES = {"kind": str, "layers": bool, "video": bool, "project": str, "entity": str | None, "mode": str}
"""What configs/logger holds."""


MOST_THREADS = 1024
"""Of one process; torch aborts, or takes gigabytes of stacks, where there are far more."""


def build(config: dict[str, Any]) -> AgentJob | StreamJob:
    """The job of a configuration, checked but not begun; no file is touched.

    Raises:
        UsageError: a value that cannot be run, or a package that is missing.
    """
    try:
        check_common(config)
        kind = config["experiment"]["kind"]
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
        raise UsageError(f"experiment.kind={kind}: agent or stream")
    except ModuleNotFoundError as error:
        raise UsageError(
            f"the package {error.name} is missing: pip install --constraint constraints.txt -e '.[rl]'"
        ) from error
    except (ValueError, TypeError, KeyError, ImportError) as error:
        raise UsageError(" ".join(str(error.args[0] if error.args else error).split())) from error
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and "memory" not in str(error):
            raise
        raise UsageError(
            f"this run does not fit into memory, {gigabytes(available())} are free on this machine: take smaller "
            f"layers, batches or data, or fewer runs ({shortened(' '.join(str(error).split()))})"
        ) from error


def seed_fits(seed: object) -> bool:
    """Whether it is a number that all generators take."""
    return type(seed) is int and 0 <= seed < 2**32


def check_common(config: Mapping[str, Any]) -> None:
    """Ranges of what belongs to every run.

    Raises:
        ValueError: a value of another type or out of range, or a device that is not there.
    """
    if not isinstance(config["experiment"], Mapping) or not isinstance(config["method"], Mapping):
        raise ValueError("experiment and method are chosen by name, and their keys set as experiment.KEY=VALUE")
    check_types("", config, TYPES)
    check_types("logger", config.get("logger", {}), LOGGER_TYPES)
    if not seed_fits(config["seed"]):
        raise ValueError(f"seed={config['seed']}: a whole number from 0 to {2**32 - 1} is needed")
    if config["threads"] < 1:
        raise ValueError(f"threads={config['threads']}: at least 1")
    if config["threads"] > MOST_THREADS:
        raise ValueError(f"threads={config['threads']}: at most {MOST_THREADS:,}, one per core is the most that helps")
    if config["save_seconds"] < 0:
        raise ValueError(f"save_seconds={config['save_seconds']}: must not be negative")
    if not config["folder"]:
        raise ValueError("folder is empty: give the folder that the run is written to, as folder=runs/mine")
    check_device(config["device"])


FAULTS = (FloatingPointError, Fault)
"""What ends a run in flight: divergence, a full disk, a failed environment; the message names the last checkpoint."""

RESOLVED = {"--cfg", "job", "--resolve"}
"""Words that show what a run reads; Hydra's own answer stumbles over a list as the default of an interpolation."""


@hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name="train")
def show_config(composed: DictConfig) -> None:
    """What Hydra shows of a configuration, for --cfg: nothing is run here."""


def train_one(config: dict[str, Any], *, quiet: bool = False) -> int:
    """Build the job, open its run folder, train.

    Args:
        config: resolved.
        quiet: one of many: no progress bar, and nothing is said of how it ends.

    Returns:
        0 if the run is finished; else the number of the signal that asked it to stop, and it is saved.
    """
    torch.set_num_threads(config["threads"])
    job = build(config)
    try:
        with Run.open(
            config["folder"],
            config,
            may_change=may_change(config),
            save_seconds=config["save_seconds"],
            bar_position=0 if config["progress"] and not quiet else None,
            logger=config["logger"],
        ) as run:
            if run.finished and run.step >= job.steps:
                if not quiet:
                    print(f"{run.folder} is finished ({run.step} steps): nothing to do", file=sys.stderr)
                return 0
            job.run(run)
            if run.finished and run.step >= job.steps:
                return 0
            said = f"stopped and saved at step {run.step}: the same command continues {run.folder}"
            if not quiet:
                print(f"\n{visible(said)}", file=sys.stderr)
            return run.stop_signal
    finally:
        job.close()


def idle(method: Method, steps: int) -> list[str]:
    """What of a method never happens in a run of so many gradient steps, in words."""
    said = []
    for name, settings in method.operations.items():
        for key, what in (("period", "it never acts"), ("maturity", "no unit grows old enough")):
            value = settings.get(key)
            if isinstance(value, int) and value > steps and not settings.get("at_task"):
                said.append(
                    f"method={method.name}: {name}.{key}={value:,}, and a run takes {steps:,} gradient steps: {what}"
                )
    return said


def check_builds(configs: Sequence[dict[str, Any]], *, pattern: bool) -> list[dict[str, Any]]:
    """Those of the jobs that can be built: all, or, where a pattern chose the methods, those that fit the experiment.

    Args:
        configs: resolved.
        pattern: `method=glob(...)` was given: a method that does not fit is left out with a warning.

    Raises:
        UsageError: one cannot be built, or none.
    """
    fit, left_out = [], {}
    idles: dict[str, None] = {}
    built: set[str] = set()
    for config in configs:
        # what differs in its seed and folder alone is built once: that takes 40 ms, and commands have hundreds of runs
        alike = repr({**config, "seed": seed_fits(config["seed"]), "folder": type(config["folder"])})
        if alike in built:
            fit.append(config)
            continue
        try:
            job = build(config)
            job.close()
        except UsageError as error:
            if not pattern:
                raise
            left_out[str(config["method"]["name"])] = error
        else:
            fit.append(config)
            built.add(alike)
            if config["scale"] != "smoke" and job.gradient_steps:  # smoke asks whether it runs, and no more
                idles |= dict.fromkeys(
                    said for method in job.methods.values() for said in idle(method, job.gradient_steps)
                )
    if not fit:
        raise next(iter(left_out.values()))
    for said in idles:
        print(f"note: {said}", file=sys.stderr)
    for name, why in left_out.items():
        warnings.warn(f"method={name} is left out: {why}", stacklevel=2)
    return fit


def main(words: Sequence[str], configs: list[dict[str, Any]] | None = None) -> None:
    """Check everything that was asked for, run it, draw it.

    Args:
        words: of the command line.
        configs: what `jobs` makes of them, where that is known.
    """
    resolved = set(words) >= RESOLVED
    if asks_hydra(words) and not resolved:
        sys.argv[1:] = hydra_words(words)
        show_config()
        return
    warnings.formatwarning = warning_line  # type: ignore[assignment]
    launcher_words, words = split(words)
    code = 0
    try:
        if resolved:
            print(OmegaConf.to_yaml(jobs([word for word in words if word not in RESOLVED])[0]), end="")
            return
        configs = jobs(words) if configs is None else configs
        many = any(word in FLAGS for word in words)
        if launcher_words and not many:
            raise UsageError(f"{launcher_words[0]}: add -m, a launcher trains in processes of its own")
        launcher = make_launcher(launcher_words)
        configs = check_builds(configs, pattern=any(word.startswith("method=glob(") for word in words))
        for config in configs:
            Run.check(config["folder"], config, may_change=may_change(config))
            check_logger(config["logger"])
        if many:
            with launcher:
                code = launcher.tell(launcher.run(configs), len(configs))
        elif stopped := train_one(configs[0]):
            code = 128 + stopped  # as a shell says of what a signal ended: to be continued
    except (UsageError, RunError, LoggerError, CheckpointError) as error:
        print(f"error: {message(str(error))}", file=sys.stderr)
        raise SystemExit(2) from None
    except FAULTS as error:
        print(f"error: {message(str(error))}", file=sys.stderr)
        raise SystemExit(1) from None
    draw([Path(config["folder"]) for config in configs], configs[0]["logger"])
    if code:
        raise SystemExit(code)


def draw(folders: Sequence[Path], logger: Mapping[str, Any]) -> None:
    """Figure and table of the runs, beside them and in their loggers."""
    from tools.figures.folders import FolderError
    from tools.plot import draw_runs

    if len({folder.is_absolute() for folder in folders}) > 1:  # which have nothing in common
        folders = [folder.absolute() for folder in folders]
    parent = Path(os.path.commonpath(folders))
    try:
        drawn = draw_runs([folder for folder in folders if folder.is_dir()], parent)  # of those that have begun
    except FolderError:  # stopped before anything was logged
        print("nothing to draw yet: no run has logged a row", file=sys.stderr)
        return
    try:
        drawn.log(parent, logger)
    except StrangeFileError as error:
        print(f"warning: {visible(str(error))}", file=sys.stderr)
    command = f"tensorboard --logdir {shlex.quote(str(parent))}"
    print(visible(f"\nfigure:      {drawn.figures[0]}\nTensorBoard: {command}\n\n{drawn.told(parent)}"), end="")


if __name__ == "__main__":
    steady_output()
    main(sys.argv[1:], _configs)
