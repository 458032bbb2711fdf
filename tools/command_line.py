"""Command-line overrides checked before Hydra sees them: one clear line instead of a stack trace."""

from __future__ import annotations

import difflib
import itertools
import os
import re
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, IntervalSweep, Override
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from continual_agents.settings import written

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
GROUPS = ("experiment", "scale", "method", "sweep", "logger")
FLAGS = ("-m", "--multirun")
OWN_FOLDER = ("--config-dir", "-cd")
"""A folder of the user's with `method/mine.yaml`, `experiment/mine.yaml`, as Hydra's own flag."""
LAUNCHER_WORDS = ("hydra/launcher=", "hydra.launcher.")
LAUNCHER = "hydra/launcher and hydra.launcher.KEY"
"""What of Hydra itself may be set, read by tools.launchers: the rest names classes to build or files to log to."""


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

OWN = {
    "agent": ("name", "kind", "steps", "environment", "agent", "network", "probe"),
    "stream": (
        *("name", "kind", "methods", "seeds", "steps", "tasks", "row_steps", "fast", "on_not_finite", "stream"),
        *("network", "sweep", "probe"),
    ),
}
"""What each kind of experiment reads itself; its other keys are constants that methods may read."""


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


def compose_config(overrides: Sequence[str], own: Path | None = None) -> DictConfig:
    """The configuration that these overrides give.

    Args:
        overrides: `key=value` words; where a value is a sweep (`a,b`), its first choice is used.
        own: the user's folder of methods and experiments beside the project's.

    Raises:
        UsageError: an unknown group option or key, with the nearest known one, or a value that does not fit.
    """
    parsed = parse_overrides(renamed(overrides))
    for override in parsed:
        _check_choice(override, own)
    try:
        with initialize_config_dir(str(CONFIGS), version_base="1.3"):
            try:
                config, words = _first_composed(parsed, own)
                config = config if words is None else compose("train", [*_found_in(own), *words])
            except HydraException:  # which says less of a mistyped key
                chosen = (single(one, own)[0] for one in parsed if one.key_or_group in GROUPS)
                _check_keys(parsed, compose("train", [*_found_in(own), *chosen]), own)
                raise
        _check_keys(parsed, config, own)
    except OmegaConfBaseException as error:  # the methods are an interpolation that leads nowhere
        raise UsageError(f"{error.full_key or 'experiment'}: {_one_line(error)}") from error
    except HydraException as error:
        raise UsageError(_one_line(error)) from error
    return config


def _first_composed(parsed: Sequence[Override], own: Path | None) -> tuple[DictConfig, list[str] | None]:
    """The configuration, and the words that put what `method=compared` compares into it; None: it is complete.

    Hydra composes slowly, and forty methods that nobody asked for take it more than a second.
    """
    words = [(single(one, own)[0], _method_of(one.key_or_group)) for one in parsed]
    config = compose("train", [*_found_in(own), *(word for word, name in words if name is None)])
    _check_sweep(config)
    if "of" not in (config.get("method") or {}):
        return config, [word for word, _ in words] if any(name for _, name in words) else None
    options = group_options("method", own)
    compared = [name for name in dict.fromkeys(_compared_of(config)) if name in options]
    # settings of methods that are not compared: `refuse_unread` says so, unless another run of the command has them
    kept = [word for word, name in words if name is None or name in compared or name not in options]
    return config, [*(f"+method@method.of.{name}={name}" for name in compared), *kept]


def _method_of(key: str) -> str | None:
    """NAME of `method.of.NAME`, or of a setting below it."""
    return key.split(".")[2] if key.startswith("method.of.") else None


def hydra_words(words: Sequence[str]) -> list[str]:
    """The words with which Hydra's own command line, for --cfg, composes the same as `compose_config`."""
    overrides = [word for word in words if "=" in word and not word.startswith("-")]
    read, (own, _) = renamed(overrides), own_folder(words)
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        _, composed = _first_composed(parse_overrides(read), own)
    return [*(word for word in words if word not in overrides), *(read if composed is None else composed)]


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


def _found_in(own: Path | None) -> list[str]:
    return [] if own is None else [f"hydra.searchpath=['file://{own}']"]


def parse_overrides(words: Sequence[str]) -> list[Override]:
    """Hydra's own reading of the words.

    Raises:
        UsageError: a word that is not key=value, or that adds or removes a key.
    """
    for word in words:
        if word.startswith("-"):
            raise UsageError(f"{word}: no such flag; there are {', '.join(FLAGS)}, --config-dir and --help")
        if word.startswith("~"):
            raise UsageError(f"{word}: no key can be left out; write key=value, null where nothing is wanted")
        if "=" not in word:
            raise UsageError(f"{word!r} is not an override: write key=value, or --help for what there is")
        if word.startswith("+"):
            raise UsageError(f"{word}: no key can be added, nobody would read it; leave out the +, or see --help")
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
        raise UsageError(f"{word}: Hydra cannot read this value; put quotes around it") from error


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
            if not found:
                raise UsageError(f"{given}: no {override.key_or_group} is called so; see --help")
            return found
        try:
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


def _check_choice(override: Override, own: Path | None) -> None:
    key = override.key_or_group
    options = group_options(key, own) if key in GROUPS else []
    for choice in choices(override, own) if key in GROUPS else ():
        if choice not in options:
            raise UsageError(f"{key}={choice}: no such {key}{suggest(choice, options)}")


def _check_keys(parsed: Sequence[Override], config: DictConfig, own: Path | None) -> None:
    known = _dotted(OmegaConf.to_container(config, resolve=False))
    for override in parsed:
        if _method_of(override.key_or_group) not in group_options("method", own):
            _check_key(override, known)


def _check_key(override: Override, known: list[str]) -> None:
    key = override.key_or_group
    if key in GROUPS or key in known:
        return
    if key.startswith("hydra"):
        raise UsageError(f"{key}: of Hydra's own settings only {LAUNCHER} can be set")
    raise UsageError(f"{key}: no such key{_nearest_key(key, known)}")


def _check_sweep(config: DictConfig) -> None:
    sweep, experiment = config.get("sweep"), config.get("experiment")
    if sweep is None or not isinstance(experiment, DictConfig):
        return
    offered = [name for name in experiment.get("swept") or () if name != "name"]
    if sweep not in offered:
        known = f"has {', '.join(offered)}" if offered else "has none, for agents give several values and -m"
        raise UsageError(f"sweep={sweep}: this experiment {known}")


def _nearest_key(key: str, known: list[str]) -> str:
    # the last part is what people mistype or misplace; compare with its neighbours, whole keys and last parts in turn
    parent, _, name = key.rpartition(".")
    siblings = {one.rpartition(".")[2]: one for one in known if one.rpartition(".")[0] == parent}
    by_last = {one.rpartition(".")[2]: one for one in reversed(known)}  # the first of equal ones
    wholes = {} if siblings else {one: one for one in known}  # where the group itself is mistyped
    for part, table, cutoff in ((name, siblings, 0.6), (key, wholes, 0.75), (name, by_last, 0.6)):
        if close := difflib.get_close_matches(part, list(table), n=1, cutoff=cutoff):
            return f"; did you mean {table[close[0]]}?"
    return f"; {parent} has {', '.join(siblings)}" if parent and siblings else "; see --help"


def _dotted(value: Any, prefix: str = "") -> list[str]:
    if not isinstance(value, dict):
        return []
    keys = []
    for key, item in value.items():
        keys += [f"{prefix}{key}", *_dotted(item, f"{prefix}{key}.")]
    return keys


def _one_line(error: Exception) -> str:
    causes = [
        str(item).strip().splitlines()[0] for item in (error, error.__cause__) if item is not None and str(item).strip()
    ]
    return ": ".join(dict.fromkeys(causes)) or type(error).__name__


def plain_config(config: DictConfig) -> dict[str, Any]:
    """The configuration as plain values, every interpolation resolved, without Hydra's own part.

    Raises:
        UsageError: `experiment.methods` names no method, a value that nothing resolves, or one that names code to run.
    """
    with open_dict(config):
        for key in ("hydra", "sweep"):
            config.pop(key, None)
    try:
        container = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise UsageError(f"{error.full_key}: {_one_line(error)}") from error
    assert isinstance(container, dict)
    refuse_targets(container)
    chosen, names = container["method"], container["experiment"].get("methods")
    container["experiment"].pop("swept", None)  # what other sweeps would be
    if "of" in chosen and not isinstance(chosen["of"], dict):
        raise UsageError(
            f"method.of={written(chosen['of'])}: methods by name are needed, choose with experiment.methods"
        )
    if "of" in chosen and names is not None:  # the others were only offered
        chosen["of"] = {
            name: chosen["of"][name] for name in _compared(names, sorted({*group_options("method"), *chosen["of"]}))
        }
    return {str(key): value for key, value in container.items()}


def _compared(names: Any, offered: Iterable[str]) -> list[str]:
    if not isinstance(names, list) or not names:
        raise UsageError(f"experiment.methods={written(names)}: a list of at least one method, as [backprop,l2]")
    for name in names:
        if name not in offered:
            raise UsageError(f"experiment.methods: no method {name}{suggest(str(name), offered)}")
    return names


IN_FOLDER = ("experiment", "scale", "method", "sweep", "seed")
"""What the default run folder tells already."""


def keep_apart(configs: Sequence[DictConfig], overrides: Sequence[Override]) -> None:
    """Give each setting of a sweep its own folder, `.../ppo/step_size=0.001/seed_0`, unless `folder=` was given.

    Args:
        configs: every configuration of the command; their `folder` is changed.
        overrides: what was given.
    """
    if any(override.key_or_group == "folder" for override in overrides):
        return
    keys = [item.key_or_group for item in overrides if item.is_sweep_override() and item.key_or_group not in IN_FOLDER]
    if not keys:
        return
    lasts = [key.rpartition(".")[2] for key in keys]
    names = [last if lasts.count(last) == 1 else key for key, last in zip(keys, lasts, strict=True)]
    for config in configs:
        values = (re.sub(r"[^\w.,+-]+", "", str(OmegaConf.select(config, key))) for key in keys)
        told = ",".join(f"{name}={value}" for name, value in zip(names, values, strict=True))
        folder = Path(config.folder)
        config.folder = str(folder.parent / told / folder.name)


def refuse_unread(configs: Sequence[DictConfig], overrides: Sequence[Override]) -> None:
    """A value that no run of the command reads is a mistake, or wrong without anybody seeing it.

    Args:
        configs: every configuration of the command, its interpolations not resolved.
        overrides: what was given.

    Raises:
        UsageError: a constant that none of the methods reads, settings of a method that is not compared, or of one
            where the experiment has its own.
    """
    for override in overrides:
        key = override.key_or_group
        try:
            if not any(_reads(config, key) for config in configs):
                raise UsageError(f"{key}: nobody would read it, {_why_unread(configs[0], key)}; leave it out")
        except OmegaConfBaseException as error:  # the kind or the methods are an interpolation that leads nowhere
            raise UsageError(f"{error.full_key or 'experiment'}: {_one_line(error)}") from error


def _reads(config: DictConfig, key: str) -> bool:
    group, _, rest = key.partition(".")
    experiment = config.get("experiment")
    if group not in ("experiment", "method") or not rest or not isinstance(experiment, DictConfig):
        return True
    kind, method = str(experiment.get("kind")), config.get("method")
    own = OWN.get(kind)
    if own is None or not isinstance(method, DictConfig):
        return True  # refused elsewhere
    compared = _compared_of(config)
    if group == "method":
        name = rest.split(".")[1] if rest.startswith("of.") else None
        return name is None or name in compared
    if rest.split(".")[0] in own:
        return True
    parts = OmegaConf.to_container(method, resolve=False)
    assert isinstance(parts, dict)
    if isinstance(parts.get("of"), dict):
        parts["of"] = {name: settings for name, settings in parts["of"].items() if name in compared}
    # the key itself, a part of it, or the group that it belongs to
    places = re.findall(r"\$\{(?:oc\.\w+:)?([\w.]+)", str([parts, _own_part(experiment, own)]))
    return any(f"{place}.".startswith(f"{key}.") or f"{key}.".startswith(f"{place}.") for place in places)


def _own_part(experiment: DictConfig, own: Sequence[str]) -> list[Any]:
    container = OmegaConf.to_container(experiment, resolve=False)
    return [container[key] for key in own if key in container] if isinstance(container, dict) else []


def _compared_of(config: DictConfig) -> list[str]:
    names = config.experiment.get("methods")
    return [str(name) for name in names] if isinstance(names, ListConfig) else []


def _why_unread(config: DictConfig, key: str) -> str:
    if key.startswith("method.of."):
        return f"{key.split('.')[2]} is not among experiment.methods"
    names = _compared_of(config) if "of" in config.method else [str(config.method.get("name"))]
    return f"not {' nor '.join(names)}"


def refuse_targets(value: Any, place: str = "") -> None:
    """Hydra's `_target_` asks to import and call what it names; nothing here is built so.

    Raises:
        UsageError: there is one, with its place.
    """
    if isinstance(value, dict):
        for key, item in value.items():
            if key == "_target_":
                raise UsageError(f"{place}_target_={item}: a configuration here cannot name code to run; remove it")
            refuse_targets(item, f"{place}{key}.")
    elif isinstance(value, list):
        for number, item in enumerate(value):
            refuse_targets(item, f"{place}{number}.")
