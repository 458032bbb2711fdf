"""What `python -m tools.train --help` prints: a line per experiment, method and sweep, from their files' comments."""

import os
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import yaml

from tools.command_line import CONFIGS, UsageError, compose_config, group_options, own_folder, plain_config

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
  --config-dir mine                methods and experiments of your own: mine/method/NAME.yaml, mine/experiment/NAME.yaml
  folder=runs/mine                 the run folder; the same command on it continues where it stopped

Figures and a table from run folders:  python -m tools.plot runs/slippery_ant/demo
TensorBoard:                           tensorboard --logdir runs
--cfg job --resolve prints the configuration without running; --hydra-help lists Hydra's own options."""


def help_text(words: Sequence[str] = ()) -> str:
    """The page; the words beside --help choose the configuration that it shows, and the user's folder.

    Raises:
        UsageError: the words cannot be composed.
    """
    own, words = own_folder(words)
    words = [word for word in words if not word.startswith("-")]
    folders = [CONFIGS] if own is None else [CONFIGS, own]
    parts = [HEAD]
    for title, chosen in (("Experiments with agents", "agent"), ("Experiments with streams", "stream")):
        names = [one for one in _files("experiment", folders) if (kind(one, folders) == "agent") == (chosen == "agent")]
        parts.append(f"{title} (experiment=NAME):\n{_listed('experiment', names, folders)}\n")
    parts.append(f"Methods (method=NAME):\n{_listed('method', list(_files('method', folders)), folders)}\n")
    sweeps = _listed("sweep", list(_files("sweep", folders)), folders)
    parts.append(f"Sweeps of a stream, its settings side by side (sweep=NAME):\n{sweeps}\n")
    parts.append(f"scale: {', '.join(group_options('scale'))}\nlogger: {', '.join(group_options('logger'))}\n")
    config = yaml.safe_dump(plain_config(compose_config(words, own)), sort_keys=False, allow_unicode=True)
    parts.append(f"The configuration, with the values that are used when nothing is given:\n\n{config}")
    return "\n".join([*parts, FOOT])


def show(words: Sequence[str]) -> NoReturn:
    """Print the page and end the process."""
    try:
        print(help_text([word for word in words if word not in ("--help", "-h")]))
        sys.stdout.flush()
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except BrokenPipeError:  # head, less: what was wanted has been read
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise SystemExit(0)


def _files(group: str, folders: Sequence[Path]) -> dict[str, Path]:
    """The files of a group by name."""
    found = {path.stem: path for folder in folders for path in (folder / group).glob("*.yaml")}
    return dict(sorted(found.items()))


def purpose(path: Path) -> str:
    """The first sentence of a configuration's leading comment."""
    comment: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        if not line.startswith("# @package"):
            comment.append(line.lstrip("# "))
    text = " ".join(comment)
    for at, letter in enumerate(text):
        # a full stop in brackets is one of "et al."
        if letter == "." and text[at + 1 : at + 2] in ("", " ") and text.count("(", 0, at) == text.count(")", 0, at):
            return text[:at]
    return text


def kind(experiment: str, folders: Sequence[Path] = (CONFIGS,)) -> str:
    """`agent` or `stream`, its own or that of the experiment it builds on; empty where neither says."""
    file = _files("experiment", folders).get(experiment)
    content = yaml.safe_load(file.read_text(encoding="utf-8")) if file else None
    if not isinstance(content, dict):
        return ""
    if "kind" in content:
        return str(content["kind"])
    bases = [
        base for base in content.get("defaults", []) if isinstance(base, str) and base not in ("_self_", experiment)
    ]
    return next((found for base in bases if (found := kind(base, folders))), "")


def _listed(group: str, names: Sequence[str], folders: Sequence[Path]) -> str:
    width = max(map(len, names)) + 2
    files = _files(group, folders)
    lines = []
    for name in names:
        said = textwrap.wrap(purpose(files[name]), 118 - width) or [""]
        lines += [f"  {name if not n else '':{width}}{line}" for n, line in enumerate(said)]
    return "\n".join(lines)
