"""Who trains the runs of `-m` and of a study: `hydra/launcher=NAME`, set up with `hydra.launcher.KEY=VALUE`."""

from collections.abc import Sequence
from typing import Any

from omegaconf import OmegaConf

from continual_agents.settings import check_settings
from tools.command_line import CONFIGS, LAUNCHER_WORDS, UsageError, group_options, parse_overrides, suggest

from .cluster import Cluster
from .launcher import Launcher as Launcher
from .launcher import Outcome as Outcome
from .on_ray import Ray
from .pool import Pool

GROUP = "hydra/launcher"
LAUNCHERS: dict[str, type[Launcher[Any]]] = {
    "pool": Pool,
    "ray": Ray,
    "submitit_local": Cluster,
    "submitit_slurm": Cluster,
}


def split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words that choose and set up a launcher, and the others."""
    own = [word for word in words if word.startswith(LAUNCHER_WORDS)]
    return own, [word for word in words if word not in own]


def make_launcher(words: Sequence[str] = ()) -> Launcher[Any]:
    """The launcher that these words choose.

    Raises:
        UsageError: no such launcher or setting, or a value out of range.
    """
    name, settings = "pool", {}
    for override in parse_overrides(words):
        if override.is_sweep_override():
            raise UsageError(f"{override.input_line}: one value is needed")
        key = override.key_or_group
        if key == GROUP:
            name = str(override.value())
        else:
            settings[key.split(".", 2)[2]] = override.value()
    options = group_options(GROUP)
    if name not in options:
        raise UsageError(f"{GROUP}={name}: no such launcher{suggest(name, options)}")
    launcher = LAUNCHERS[name]
    defaults = OmegaConf.to_container(OmegaConf.load(CONFIGS / GROUP / f"{name}.yaml"))
    try:
        check_settings("hydra.launcher", settings, launcher, given=("cluster",))
        return launcher(**{**defaults, **settings})  # type: ignore[dict-item]
    except (ValueError, ImportError) as error:
        raise UsageError(str(error)) from error
