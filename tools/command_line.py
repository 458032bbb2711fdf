"""The configuration that the words of a command line give: one clear line instead of a stack trace."""

import difflib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from continual_agents.settings import keywords, written

from .overrides import CONFIGS as CONFIGS
from .overrides import FLAGS as FLAGS
from .overrides import GROUPS, LAUNCHER, choices, one_line, renamed
from .overrides import LAUNCHER_WORDS as LAUNCHER_WORDS
from .overrides import UsageError as UsageError
from .overrides import group_options as group_options
from .overrides import own_folder as own_folder
from .overrides import parse_overrides as parse_overrides
from .overrides import single as single
from .overrides import suggest as suggest
from .unread import compared_of
from .unread import refuse_unread as refuse_unread


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
                config = _composed(parsed, own)
            except HydraException:  # which says less of a mistyped key
                chosen = (single(one, own)[0] for one in parsed if one.key_or_group in GROUPS)
                without = compose("train", [*_found_in(own), *chosen])
                added = [one.key_or_group for one in parsed if _leaves_to_its_default(one.key_or_group, without)]
                _check_keys([one for one in parsed if one.key_or_group not in added], without, own)
                if not added:
                    raise
                config = _composed(parsed, own, added)
        _check_keys(parsed, config, own)
    except OmegaConfBaseException as error:  # the methods are an interpolation that leads nowhere
        raise UsageError(f"{error.full_key or 'experiment'}: {one_line(error)}") from error
    except HydraException as error:
        raise UsageError(one_line(error)) from error
    return config


def _composed(parsed: Sequence[Override], own: Path | None, added: Sequence[str] = ()) -> DictConfig:
    config, words = _first_composed(parsed, own, added)
    return config if words is None else compose("train", [*_found_in(own), *words])


def _leaves_to_its_default(key: str, config: DictConfig) -> bool:
    """Whether it is an argument of one of the method's operations that the method's file does not mention."""
    operation, _, argument = key.rpartition(".")
    group, _, name = operation.rpartition(".")
    if group != "method.operations" or not isinstance(OmegaConf.select(config, operation), DictConfig):
        return False
    from continual_agents.methods import OPERATIONS  # which loads torch: nobody else waits for it

    if name not in OPERATIONS:
        return False
    known = {one for schema in OPERATIONS[name].schemas for one in keywords(schema)} - {"generator"}
    return argument in known and OmegaConf.select(config, key) is None


def _first_composed(
    parsed: Sequence[Override], own: Path | None, added: Sequence[str] = ()
) -> tuple[DictConfig, list[str] | None]:
    """The configuration, and the words that put what `method=compared` compares into it; None: it is complete.

    Hydra composes slowly, and forty methods that nobody asked for take it more than a second.
    """
    words = [("+" * (one.key_or_group in added) + single(one, own)[0], _method_of(one.key_or_group)) for one in parsed]
    config = compose("train", [*_found_in(own), *(word for word, name in words if name is None)])
    _check_sweep(config)
    if "of" not in (config.get("method") or {}):
        return config, [word for word, _ in words] if any(name for _, name in words) else None
    options = group_options("method", own)
    compared = [name for name in dict.fromkeys(compared_of(config)) if name in options]
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


def _found_in(own: Path | None) -> list[str]:
    return [] if own is None else [f"hydra.searchpath=['file://{own}']"]


def _check_choice(override: Override, own: Path | None) -> None:
    key = override.key_or_group
    options = group_options(key, own) if key in GROUPS else []
    for choice in choices(override, own) if key in GROUPS else ():
        if choice not in options:
            raise UsageError(f"{key}={choice}: no such {key}{suggest(choice, options)}")


def _check_keys(parsed: Sequence[Override], config: DictConfig, own: Path | None) -> None:
    known = _dotted(OmegaConf.to_container(config, resolve=False))
    for key in (override.key_or_group for override in parsed):
        if key in GROUPS or key in known or _method_of(key) in group_options("method", own):
            continue
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
        raise UsageError(f"{error.full_key}: {one_line(error)}") from error
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
