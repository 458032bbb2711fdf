"""Values that were given and that no run of the command would read."""

import re
from collections.abc import Sequence

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from .overrides import UsageError, one_line

OWN = {
    "agent": ("name", "kind", "steps", "environment", "agent", "network", "probe"),
    "stream": (
        *("name", "kind", "methods", "seeds", "steps", "tasks", "row_steps", "fast", "on_not_finite", "stream"),
        *("network", "sweep", "probe"),
    ),
}
"""What each kind of experiment reads itself; its other keys are constants that methods may read."""


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
            raise UsageError(f"{error.full_key or 'experiment'}: {one_line(error)}") from error


def _reads(config: DictConfig, key: str) -> bool:
    group, _, rest = key.partition(".")
    experiment = config.get("experiment")
    if group not in ("experiment", "method") or not rest or not isinstance(experiment, DictConfig):
        return True
    kind, method = str(experiment.get("kind")), config.get("method")
    own = OWN.get(kind)
    if own is None or not isinstance(method, DictConfig):
        return True  # refused elsewhere
    compared = compared_of(config)
    if group == "method":
        name = rest.split(".")[1] if rest.startswith("of.") else None
        return name is None or name in compared
    if rest.split(".")[0] in own:
        return True
    parts, container = (OmegaConf.to_container(part, resolve=False) for part in (method, experiment))
    assert isinstance(parts, dict)
    assert isinstance(container, dict)
    if isinstance(parts.get("of"), dict):
        parts["of"] = {name: settings for name, settings in parts["of"].items() if name in compared}
    # the key itself, a part of it, or the group that it belongs to
    places = re.findall(r"\$\{(?:oc\.\w+:)?([\w.]+)", str([parts, [container[key] for key in own if key in container]]))
    return any(f"{place}.".startswith(f"{key}.") or f"{key}.".startswith(f"{place}.") for place in places)


def compared_of(config: DictConfig) -> list[str]:
    """What `experiment.methods` names."""
    names = config.experiment.get("methods")
    return [str(name) for name in names] if isinstance(names, ListConfig) else []


def _why_unread(config: DictConfig, key: str) -> str:
    if key.startswith("method.of."):
        return f"{key.split('.')[2]} is not among experiment.methods"
    names = compared_of(config) if "of" in config.method else [str(config.method.get("name"))]
    return f"not {' nor '.join(names)}"
