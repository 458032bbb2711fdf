"""The walking robots of PyBullet, one table row each."""

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Robot:
    """What tells one walker from another; everything else is read from its model file.

    Attributes:
        name: Key of the table.
        title: Name in the gymnasium id.
        model: MJCF file among PyBullet's data.
        feet: Links whose contact with the ground is observed, in this order.
        power: Factor of all torques.
        strength: Torque in N m per unit of action and of `power`, by joint; joints not named have 100.
        motors: Joints in the order of the action; empty: the model's order.
        single_precision_torque: Torques are rounded to float32, as the original does for the humanoid.
        alive_bonus: Reward per step while healthy; unhealthy costs 1 and ends the episode.
        least_height: Height of the torso in m below which the robot is unhealthy.
        greatest_pitch: Pitch of the torso in rad from which on the robot is unhealthy.
        forbidden_contacts: Indices into `feet`: contact makes unhealthy.
        terminates: Whether being unhealthy ends the episode.
        start_height: Height in m that the observed height is relative to; None: the height after the reset.
        cost_scale: Factor of the electricity costs.
    """

    name: str
    title: str
    model: str
    feet: tuple[str, ...]
    power: float
    strength: Mapping[str, float] = field(default_factory=dict)
    motors: tuple[str, ...] = ()
    single_precision_torque: bool = False
    alive_bonus: float = 1.0
    least_height: float = -math.inf
    greatest_pitch: float = math.inf
    forbidden_contacts: tuple[int, ...] = ()
    terminates: bool = True
    start_height: float | None = None
    cost_scale: float = 1.0


_HUMANOID_STRENGTH = {
    **dict.fromkeys(("abdomen_z", "abdomen_y", "abdomen_x"), 100.0),
    **{"right_hip_x": 100.0, "right_hip_z": 100.0, "right_hip_y": 300.0, "right_knee": 200.0},
    **{"left_hip_x": 100.0, "left_hip_z": 100.0, "left_hip_y": 300.0, "left_knee": 200.0},
    **dict.fromkeys(("right_shoulder1", "right_shoulder2", "right_elbow"), 75.0),
    **dict.fromkeys(("left_shoulder1", "left_shoulder2", "left_elbow"), 75.0),
}

ROBOTS: dict[str, Robot] = {
    robot.name: robot
    for robot in (
        Robot(
            name="ant",
            title="Ant",
            model="ant.xml",
            feet=("front_left_foot", "front_right_foot", "left_back_foot", "right_back_foot"),
            power=2.5,
            least_height=0.26,
        ),
        Robot(
            name="half_cheetah",
            title="HalfCheetah",
            model="half_cheetah.xml",
            feet=("ffoot", "fshin", "fthigh", "bfoot", "bshin", "bthigh"),
            power=0.9,
            strength={"bthigh": 120.0, "bshin": 90.0, "bfoot": 60.0, "fthigh": 140.0, "fshin": 60.0, "ffoot": 30.0},
            greatest_pitch=1.0,
            forbidden_contacts=(1, 2, 4, 5),
            terminates=False,
        ),
        Robot(
            name="hopper",
            title="Hopper",
            model="hopper.xml",
            feet=("foot",),
            power=0.75,
            least_height=0.8,
            greatest_pitch=1.0,
        ),
        Robot(
            name="walker2d",
            title="Walker2D",
            model="walker2d.xml",
            feet=("foot", "foot_left"),
            power=0.4,
            strength={"foot_joint": 30.0, "foot_left_joint": 30.0},
            least_height=0.8,
            greatest_pitch=1.0,
        ),
        Robot(
            name="humanoid",
            title="Humanoid",
            model="humanoid_symmetric.xml",
            feet=("right_foot", "left_foot"),
            power=0.41,
            strength=_HUMANOID_STRENGTH,
            motors=tuple(_HUMANOID_STRENGTH),
            single_precision_torque=True,
            alive_bonus=2.0,
            least_height=0.78,
            start_height=0.8,
            cost_scale=4.25,
        ),
    )
}


def find_robot(name: str) -> Robot:
    """The table row of that name.

    Raises:
        ValueError: there is none; says which is nearest.
    """
    if name in ROBOTS:
        return ROBOTS[name]
    near = difflib.get_close_matches(str(name).lower(), ROBOTS, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise ValueError(f"unknown robot {name!r}: {hint}there are {', '.join(ROBOTS)}")
