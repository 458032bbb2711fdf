"""Command-line overrides checked before Hydra sees them: one clear line instead of a stack trace."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
GROUPS = ("experiment", "scale", "method", "logger")


class UsageError(Exception):
    """What the user typed cannot be run; the message is all there is to say."""


def compose_config(overrides: Sequence[str]) -> DictConfig:
    """The configuration that these overrides give.

    Args:
        overrides: `key=value` words; where a value is a sweep (`a,b`), its first choice is used.

    Raises:
        UsageError: an unknown group option or key, with the nearest known one, or a value that does not fit.
    """
    parsed = parse_overrides(overrides)
    groups = [override for override in parsed if override.key_or_group in GROUPS]
    for override in groups:
        options = group_options(override.key_or_group)
        for choice in choices(override):
            if choice not in options:
                raise UsageError(
                    f"{override.key_or_group}={choice}: no such {override.key_or_group}{suggest(choice, options)}"
                )
    try:
        with initialize_config_dir(str(CONFIGS), version_base="1.3"):
            config = compose("train", [f"{item.key_or_group}={choices(item)[0]}" for item in groups])
            known = _dotted(OmegaConf.to_container(config, resolve=False))
            for override in parsed:
                _check_key(override, known)
            return compose("train", [_first_choice(override) for override in parsed])
    except (HydraException, OmegaConfBaseException) as error:
        raise UsageError(_one_line(error)) from error


def parse_overrides(words: Sequence[str]) -> list[Override]:
    """Hydra's own reading of the words.

    Raises:
        UsageError: a word that is not key=value.
    """
    for word in words:
        if "=" not in word and not word.startswith("~"):
            raise UsageError(f"{word!r} is not an override: write key=value, or --help for what there is")
    try:
        return OverridesParser.create().parse_overrides(list(words))
    except HydraException as error:
        raise UsageError(_one_line(error)) from error


def choices(override: Override) -> list[str]:
    """The values that an override runs over; one unless it is a sweep."""
    if override.is_sweep_override():
        return [str(value) for value in override.sweep_string_iterator()]
    return [str(override.value())]


def group_options(group: str) -> list[str]:
    """Names of the files in a configuration group."""
    return sorted(path.stem for path in (CONFIGS / group).glob("*.yaml"))


def suggest(name: str, known: Iterable[str]) -> str:
    """`; did you mean x?`, or everything there is when nothing is near."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]}?"
    return f"; there are {', '.join(known)}" if len(known) <= 20 else "; see --help"


def _check_key(override: Override, known: list[str]) -> None:
    key = override.key_or_group
    if override.is_add() or override.is_force_add() or key in GROUPS or key in known or key.startswith("hydra"):
        return
    # the last part is what people mistype or misplace; compare with whole keys and with last parts
    by_last = {name.rsplit(".", 1)[-1]: name for name in reversed(known)}  # the first of equal ones
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.75)
    last = difflib.get_close_matches(key.rsplit(".", 1)[-1], list(by_last), n=1, cutoff=0.6)
    nearest = close[0] if close else by_last[last[0]] if last else None
    raise UsageError(f"{key}: no such key" + (f"; did you mean {nearest}?" if nearest else "; see --help"))


def _first_choice(override: Override) -> str:
    if not override.is_sweep_override():
        return str(override.input_line)
    prefix = "+" if override.is_add() else "++" if override.is_force_add() else ""
    return f"{prefix}{override.key_or_group}={choices(override)[0]}"


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
        UsageError: `experiment.methods` names no method, or a value that nothing resolves.
    """
    with open_dict(config):
        config.pop("hydra", None)
    try:
        container = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise UsageError(_one_line(error)) from error
    assert isinstance(container, dict)
    compared, names = container["method"].get("of"), container["experiment"].get("methods")
    if compared and names:  # the others were only offered
        for name in names:
            if name not in compared:
                raise UsageError(f"experiment.methods: no method {name}{suggest(str(name), compared)}")
        container["method"]["of"] = {name: compared[name] for name in names}
    return {str(key): value for key, value in container.items()}
