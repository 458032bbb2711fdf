"""What a command line asks for, as a configuration for each run. Loads no torch: mistakes are answered at once."""

import copy
import itertools
import math
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from tools.command_line import (
    FLAGS,
    LAUNCHER_WORDS,
    UsageError,
    compose_config,
    keep_apart,
    own_folder,
    parse_overrides,
    plain_config,
    refuse_unread,
    single,
)
from tools.text import message, warning_line

MOST_RUNS = 10_000
"""Most runs of one command."""


def jobs(words: Sequence[str]) -> list[dict[str, Any]]:
    """The configuration of every job that these command-line words start; several under `-m`.

    Raises:
        UsageError: what cannot be read or composed, several values without -m, or two jobs in one folder.
    """
    own, words = own_folder(words)
    parsed = parse_overrides([word for word in words if word not in FLAGS])
    several = [item.input_line for item in parsed if item.is_sweep_override()]
    if several and not any(word in FLAGS for word in words):
        raise UsageError(f"{several[0]} are several values: add -m to run one process for each")
    words_of = [single(item, own) for item in parsed]
    begun: dict[tuple[str, ...], DictConfig] = {}
    # .3 s: to compose a configuration and to build its run
    if (count := math.prod(map(len, words_of))) > MOST_RUNS:
        raise UsageError(
            f"{count:,} runs: checking them alone would take {count * 0.3 / 3600:,.0f} hours; at most {MOST_RUNS:,} in "
            "one command"
        )
    composed = [_composed(combination, own, begun) for combination in itertools.product(*words_of)]
    refuse_unread(composed, parsed)
    keep_apart(composed, parsed)
    configs = [plain_config(one) for one in composed]
    if "of" not in configs[0]["method"] and any(item.key_or_group == "experiment.methods" for item in parsed):
        raise UsageError("experiment.methods is read by method=compared only: leave one of the two out")
    folders = [str(config["folder"]) for config in configs]
    if twice := [folder for folder in folders if folders.count(folder) > 1]:
        raise UsageError(f"two of the {len(folders)} runs would write to {twice[0]}: put what differs into folder=")
    return configs


def _composed(words: Sequence[str], own: Path | None, begun: dict[tuple[str, ...], DictConfig]) -> DictConfig:
    # Hydra takes 70 ms for one, a copy a tenth of it: what differs in its seed alone is composed once
    others = tuple(word for word in words if not word.startswith("seed="))
    if others not in begun:
        begun[others] = compose_config(words, own)
        return begun[others]
    config = copy.deepcopy(begun[others])
    for seed in parse_overrides([word for word in words if word.startswith("seed=")]):
        OmegaConf.update(config, "seed", seed.value(), merge=False)
    return config


def jobs_or_exit(words: Sequence[str]) -> list[dict[str, Any]] | None:
    """`jobs`; what is wrong ends the process with one line. None where Hydra itself is to answer."""
    if asks_hydra(words):
        return None
    warnings.formatwarning = warning_line  # type: ignore[assignment]
    try:
        return jobs([word for word in words if not word.startswith(LAUNCHER_WORDS)])
    except UsageError as error:
        print(f"error: {message(str(error))}", file=sys.stderr)
        raise SystemExit(2) from None


def asks_hydra(words: Sequence[str]) -> bool:
    """Whether this is for Hydra to show: the configuration, or its own help."""
    return any(word in ("--hydra-help", "--cfg", "-c", "--info", "-i") for word in words)
