"""Continual environments: walking robots on ground whose friction keeps changing.

Importing the package registers `SlipperyAnt-v0`, `SlipperyHalfCheetah-v0`, `SlipperyHopper-v0`, `SlipperyWalker2D-v0`
and `SlipperyHumanoid-v0` with gymnasium.
"""

from . import quiet as quiet  # isort: skip - before anything imports PyBullet
from gymnasium.envs.registration import register

from .changing import ChangingObservation as ChangingObservation
from .friction import FrictionSchedule as FrictionSchedule
from .robots import ROBOTS as ROBOTS
from .robots import Robot as Robot
from .slippery_ant import SlipperyAnt as SlipperyAnt
from .slippery_vector import SlipperyVectorEnv as SlipperyVectorEnv

for _robot in ROBOTS.values():
    register(
        id=f"Slippery{_robot.title}-v0", entry_point="envs.slippery_ant:SlipperyAnt", kwargs={"robot": _robot.name}
    )
