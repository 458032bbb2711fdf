"""Continual environments: walking robots on ground whose friction keeps changing.

Importing the package registers `SlipperyAnt-v0`, `SlipperyHalfCheetah-v0`, `SlipperyHopper-v0`, `SlipperyWalker2D-v0`
and `SlipperyHumanoid-v0` with gymnasium, `HiddenCartPole-v0`, which needs a memory, and `MinAtar-v0`, games seen as
pictures. PyBullet is loaded with the first walker, minatar with the first game: the rest works without them.
"""

import importlib
from typing import TYPE_CHECKING, Any

from gymnasium.envs.registration import register

from .changing import ChangingObservation as ChangingObservation
from .friction import FrictionSchedule as FrictionSchedule
from .games import MinAtar as MinAtar
from .robots import ROBOTS as ROBOTS
from .robots import Robot as Robot

if TYPE_CHECKING:
    from .slippery_ant import SlipperyAnt as SlipperyAnt
    from .slippery_vector import SlipperyVectorEnv as SlipperyVectorEnv

_WALKERS = {"SlipperyAnt": "slippery_ant", "SlipperyVectorEnv": "slippery_vector"}


def __getattr__(name: str) -> Any:
    if name not in _WALKERS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_WALKERS[name]}"), name)


for _robot in ROBOTS.values():
    register(
        id=f"Slippery{_robot.title}-v0",
        entry_point=f"{__name__}.slippery_ant:SlipperyAnt",
        kwargs={"robot": _robot.name},
    )

register(id="MinAtar-v0", entry_point=f"{__name__}.games:MinAtar")
register(id="HiddenCartPole-v0", entry_point=f"{__name__}.hidden:hidden_cartpole", max_episode_steps=500)
