"""The words of a command line, one by one: what is an override, which values it runs over, what files there are."""

import difflib
import itertools
import os
import re
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, IntervalSweep, Override
from hydra.errors import HydraException

from continual_agents.settings import shortened, written

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
GROUPS = ("experiment", "scale", "method", "sweep", "logger")
FLAGS = ("-m", "--multirun")
OWN_FOLDER = ("--config-dir", "-cd")
"""A folder of the user's with `method/mine.yaml`, `experiment/mine.yaml`, as Hydra's own flag."""
LAUNCHER_WORDS = ("hydra/launcher=", "hydra.launcher.")
LAUNCHER = "hydra/launcher and hydra.launcher.KEY"
"""What of Hydra itself may be set, read by tools.launchers: the rest names classes to build or files to log to."""

LONGEST_KEY = 200
"""Letters; Hydra asks whether a file is called as a key is, and file systems take at most 255."""

MOST_VALUES = 10_000
"""Of one key: a command has no more runs."""

RENAMED = {
    **{f"digits_{name}": ("permuted_digits", name) for name in ("step_sizes", "widths", "change_rates")},
    **{f"mnist_{name}": ("permuted_mnist", name) for name in ("step_sizes", "widths", "change_rates")},
    "digits_replacement_rates": ("permuted_digits", "replacement_rates"),
    "mnist_replacement_rates": ("permuted_mnist", "replacement_rates"),
    "imagenet_step_sizes": ("continual_imagenet", "step_sizes"),
    "texture_step_sizes": ("texture_pairs", "step_sizes"),
    "regression_sweep": ("slowly_changing_regression", "activations", "experiment.name=regression_sweep"),
    "regression_sweep_adam": (
        *("slowly_changing_regression", "activations", "experiment.name=regression_sweep_adam"),
        "experiment.optimizer.kind=adam",
    ),
}
"""Experiments of earlier versions: the experiment and the sweep that they are now, and what else they set."""


class UsageError(Exception):
    """What the user typed cannot be run; the message is all there is to say."""


def own_folder(words: Sequence[str]) -> tuple[Path | None, list[str]]:
    """The folder that `--config-dir` names, and the other words.

    Raises:
        UsageError: it is no folder, holds no group that could be chosen from, or is named twice.
    """
    folder, others, waiting = None, [], list(words)
    while waiting:
        flag, equals, value = waiting.pop(0).partition("=")
        if flag not in OWN_FOLDER:
            others.append(f"{flag}{equals}{value}")
            continue
        if not equals:
            value = waiting.pop(0) if waiting else ""
        if not value or folder is not None:
            raise UsageError(f"{flag}: one folder is needed, as --config-dir mine")
        folder = Path(value).expanduser().absolute()
        if not any((folder / group).is_dir() for group in GROUPS):
            raise UsageError(f"{flag} {value}: there is no {value}/method/ or {value}/experiment/ with files *.yaml")
        for group in GROUPS:
            if hidden := {path.stem for path in (folder / group).glob("*.yaml")} & set(group_options(group)):
                raise UsageError(
                    f"{flag} {value}: the project has a {group} {min(hidden)} of its own: give yours another name"
                )
    return folder, others


def renamed(words: Sequence[str]) -> list[str]:
    """The words with an experiment of an earlier version in its present spelling, which a warning tells."""
    current: list[str] = []
    for word in words:
        new = RENAMED.get(word.removeprefix("experiment=")) if word.startswith("experiment=") else None
        if new is None:
            current.append(word)
            continue
        experiment, sweep, *rest = new
        spelling = [f"experiment={experiment}", f"sweep={sweep}", *rest]
        warnings.warn(f"{word} is now written {' '.join(spelling)}", stacklevel=3)
        current += spelling
    return current


def parse_overrides(words: Sequence[str]) -> list[Override]:
    """Hydra's own reading of the words.

    Raises:
        UsageError: a word that is not key=value, or that adds or removes a key.
    """
    for word in words:
        said = written(word)
        if word.startswith("-"):
            raise UsageError(f"{said}: no such flag; there are {', '.join(FLAGS)}, --config-dir and --help")
        if word.startswith("~"):
            raise UsageError(f"{said}: no key can be left out; write key=value, null where nothing is wanted")
        if word.find("=") < 1:
            raise UsageError(f"{said!r} is not an override: write key=value, or --help for what there is")
        if word.index("=") > LONGEST_KEY:
            raise UsageError(f"{shortened(word.partition('=')[0])}: no such key")
        if word.startswith("+"):
            raise UsageError(f"{said}: no key can be added, nobody would read it; leave out the +, or see --help")
    return [_parsed(word) for word in words]


def _parsed(word: str) -> Override:
    parser = OverridesParser.create()
    try:
        return parser.parse_override(word)
    except (HydraException, ValueError) as error:  # Python reads no number of more than 4,300 digits
        key, _, value = word.partition("=")
        # a path in another alphabet, or one that a sweep made: .../step_size=0.001/seed_0
        plain = re.search(r"""["'\\\[\]{}()$]""", value) is None and value.isprintable()
        if plain and ("/" in value or not value.isascii()):
            return parser.parse_override(f"{key}='{os.path.expanduser(value)}'")
        raise UsageError(f"{written(word)}: Hydra cannot read this value; put quotes around it") from error


def choices(override: Override, own: Path | None = None) -> list[str]:
    """The values that an override runs over, as words; one unless it is a sweep."""
    if override.is_sweep_override():
        given = override.input_line
        sweep = override.value()
        if isinstance(sweep, IntervalSweep):
            raise UsageError(f"{given}: an interval has no values to run over; give a,b or range(a,b)")
        if isinstance(sweep, Glob):
            if override.key_or_group not in GROUPS:
                raise UsageError(f"{given}: glob() chooses among {', '.join(GROUPS)}; give a,b or range(a,b) here")
            found = sweep.filter(group_options(override.key_or_group, own))
            if override.key_or_group == "method":  # which is several methods, not one
                found = [name for name in found if name != "compared"]
            if not found:
                raise UsageError(f"{given}: no {override.key_or_group} is called so; see --help")
            return found
        try:
            # one more than may be tells that there are too many, of range(0,10**12) as well
            values = list(itertools.islice(override.sweep_string_iterator(), MOST_VALUES + 1))
        except (ValueError, ArithmeticError) as error:  # a range in steps of 0, or from nan
            raise UsageError(f"{given} cannot be counted: give finite numbers and a step that is not 0") from error
        if not values:
            raise UsageError(f"{given} has no values: give START below STOP, or a negative step")
        if len(values) > MOST_VALUES:
            raise UsageError(f"{given} has more than {MOST_VALUES:,} values: at most so many runs in one command")
        return values
    return [str(override.input_line).split("=", 1)[1]]


def single(override: Override, own: Path | None = None) -> list[str]:
    """The override once for each of its values, as `key=value` words."""
    return [f"{override.key_or_group}={choice}" for choice in choices(override, own)]


def group_options(group: str, own: Path | None = None) -> list[str]:
    """Names of the files in a configuration group, those in the user's folder included."""
    return sorted({path.stem for folder in (CONFIGS, own) if folder for path in (folder / group).glob("*.yaml")})


def suggest(name: str, known: Iterable[str]) -> str:
    """`; did you mean x?`, or everything there is when nothing is near."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]}?"
    return f"; there are {', '.join(known)}" if len(known) <= 20 else "; see --help"


def one_line(error: Exception) -> str:
    """An exception and its cause, the first line of each."""
    causes = [
        str(item).strip().splitlines()[0] for item in (error, error.__cause__) if item is not None and str(item).strip()
    ]
    return ": ".join(dict.fromkeys(causes)) or type(error).__name__
