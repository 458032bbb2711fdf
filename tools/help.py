"""What `python -m tools.train --help` prints: one line per experiment and method, from the comments of their files."""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import yaml

from tools.command_line import CONFIGS, UsageError, compose_config, plain_config

HEAD = """\
Train a network on a stream of changing tasks, and watch it keep or lose its plasticity.

  python -m tools.train experiment=changing_cartpole method=continual_backprop seed=0 scale=demo
"""

FOOT = """\
Any value above can be given as key=value, and in another group as group=name:

  scale=smoke                      seconds, to see that it runs; demo: minutes; paper: the published sizes
  method=ppo,continual_backprop -m one process for each value; also seed=0,1,2
  method.operations.continual_backprop.rate=1e-5
  logger=wandb                     the curves go to Weights & Biases too; logger.mode=offline keeps them here
  logger.video=true                TensorBoard shows the ant at the end of every task
  folder=runs/mine                 the run folder; the same command on it continues where it stopped

Figures and a table from run folders:  python -m tools.plot runs/slippery_ant/demo
TensorBoard:                           tensorboard --logdir runs
--cfg job --resolve prints the configuration without running; --hydra-help lists Hydra's own options."""


def help_text(words: Sequence[str] = ()) -> str:
    """The page; the words beside --help choose the configuration that it shows.

    Raises:
        UsageError: the words cannot be composed.
    """
    parts = [HEAD]
    for title, chosen in (("Experiments with agents", "agent"), ("Experiments with streams", "stream")):
        names = [name for name in options("experiment") if (kind(name) == "agent") == (chosen == "agent")]
        parts.append(f"{title} (experiment=NAME):\n{_listed('experiment', names)}\n")
    parts.append(f"Methods (method=NAME):\n{_listed('method', options('method'))}\n")
    parts.append(f"scale: {', '.join(options('scale'))}\nlogger: {', '.join(options('logger'))}\n")
    config = yaml.safe_dump(plain_config(compose_config(words)), sort_keys=False, allow_unicode=True)
    parts.append(f"The configuration, with the values that are used when nothing is given:\n\n{config}")
    return "\n".join([*parts, FOOT])


def show(words: Sequence[str]) -> NoReturn:
    """Print the page and end the process."""
    try:
        print(help_text([word for word in words if not word.startswith("-")]))
        sys.stdout.flush()
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except BrokenPipeError:  # head, less: what was wanted has been read
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise SystemExit(0)


def options(group: str) -> list[str]:
    """The names that a group offers."""
    return sorted(path.stem for path in (CONFIGS / group).glob("*.yaml"))


def purpose(path: Path) -> str:
    """The first sentence of a configuration's leading comment."""
    comment: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        comment.append(line.lstrip("# "))
    text = " ".join(comment)
    for at, letter in enumerate(text):
        # a full stop in brackets is one of "et al."
        if letter == "." and text[at + 1 : at + 2] in ("", " ") and text.count("(", 0, at) == text.count(")", 0, at):
            return text[:at]
    return text


def kind(experiment: str) -> str:
    """`agent`, `stream` or `warm_start`, its own or that of the experiment it builds on."""
    content = yaml.safe_load((CONFIGS / "experiment" / f"{experiment}.yaml").read_text(encoding="utf-8"))
    if "kind" in content:
        return str(content["kind"])
    return next(kind(base) for base in content["defaults"] if isinstance(base, str) and base != "_self_")


def _listed(group: str, names: Sequence[str]) -> str:
    width = max(map(len, names)) + 2
    lines = []
    for name in names:
        said = textwrap.wrap(purpose(CONFIGS / group / f"{name}.yaml"), 118 - width)
        lines += [f"  {name if not n else '':{width}}{line}" for n, line in enumerate(said)]
    return "\n".join(lines)
