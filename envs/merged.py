"""A robot's model with the links that are fixed to each other made one: less to simulate, the same body.

PyBullet reads every MJCF joint as a massless link with the real link fixed behind it, and its flag for merging fixed
links does nothing to MJCF files. So the loaded robot is measured and written anew as URDF.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

import numpy as np

from .quiet import pybullet, pybullet_data
from .robots import Robot

Pose = tuple[tuple[float, ...], tuple[float, ...]]
"""Position in m and quaternion (x, y, z, w)."""


@dataclass
class Group:
    """Links that are fixed to each other, to become one link. All poses are in the world, with all angles at zero.

    Attributes:
        name: Name of the merged link: that of its foot, or else of the first link with a mass.
        parent: The group it hangs on; None for the base.
        joint: What PyBullet tells about the joint in front of it; None for the base.
        frame: Pose of the link and of its joint.
        solids: Mass in kg, pose of the centre of mass, principal inertias in kg m^2 of every link with a mass.
        massless: Number of links without mass, all of them at `frame`.
        shapes: URDF geometry and pose of every surface.
    """

    name: str
    parent: Group | None
    joint: Any
    frame: Pose
    solids: list[tuple[float, Pose, tuple[float, ...]]] = field(default_factory=list)
    massless: int = 0
    shapes: list[tuple[Element, Pose]] = field(default_factory=list)

    @property
    def mass(self) -> float:
        """Mass in kg."""
        return sum(mass for mass, _, _ in self.solids)

    def centre(self) -> np.ndarray:
        """Centre of mass in m, shape `[3]`."""
        return sum((mass * np.array(pose[0]) for mass, pose, _ in self.solids), np.zeros(3)) / (self.mass or 1.0)

    def inertia(self) -> np.ndarray:
        """Inertia in kg m^2 about the centre of mass along the world's axes (parallel axes theorem), shape `[3, 3]`."""
        total = np.zeros((3, 3))
        for mass, (position, orientation), principal in self.solids:
            turn = np.array(pybullet.getMatrixFromQuaternion(orientation)).reshape(3, 3)
            arm = np.array(position) - self.centre()
            total += turn @ np.diag(principal) @ turn.T + mass * (arm @ arm * np.eye(3) - np.outer(arm, arm))
        return total


def _model(robot: Robot) -> Element:
    return ElementTree.parse(os.path.join(pybullet_data.getDataPath(), "mjcf", robot.model)).getroot()


def touches_itself(robot: Robot) -> bool:
    """Whether the parts of the robot collide with each other; an affinity of 0 means with other bodies only."""
    return all(geom.get("conaffinity") != "0" for geom in _model(robot).iterfind("default/geom"))


def merged(robot: Robot, body: int, client: int) -> list[Group]:
    """The groups of a robot that was loaded from its MJCF file and not moved yet, the base's first."""
    model = _model(robot)
    geoms = {item.get("name"): item.findall("geom") for item in model.iter("body")}
    compiler = model.find("compiler")
    in_world = compiler is not None and compiler.get("coordinate") == "global"
    drawn = pybullet.getVisualShapeData(body, physicsClientId=client)

    def add(group: Group, link: int, name: str, centre: Pose, frame: Pose) -> None:
        dynamics = pybullet.getDynamicsInfo(body, link, physicsClientId=client)
        if dynamics[0] == 0:
            group.massless += link >= 0
            return
        if name in robot.feet or not group.solids:
            group.name = name
        group.solids.append((dynamics[0], centre, dynamics[2]))
        shapes = [(one[5], one[6]) for one in drawn if one[1] == link]
        for geom, local in zip(geoms[name], shapes, strict=True):
            group.shapes.append(_shape(geom, local, frame, in_world))

    base: Pose = pybullet.getBasePositionAndOrientation(body, client)
    inertial = pybullet.getDynamicsInfo(body, -1, physicsClientId=client)[3:5]
    groups = [Group("base", None, None, base)]
    add(groups[0], -1, "torso", base, pybullet.multiplyTransforms(*base, *pybullet.invertTransform(*inertial)))
    group_of = {-1: groups[0]}
    for link in range(pybullet.getNumJoints(body, client)):
        joint = pybullet.getJointInfo(body, link, client)
        state = pybullet.getLinkState(body, link, physicsClientId=client)
        name, group = joint[12].decode(), group_of[joint[16]]
        frame: Pose = (state[4], state[5])
        if joint[2] != pybullet.JOINT_FIXED:
            group = Group(name, group, joint, frame)
            groups.append(group)
        group_of[link] = group
        add(group, link, name, (state[0], state[1]), frame)
    groups[0].frame = (tuple(groups[0].centre()), base[1])
    return groups


def _shape(geom: Element, local: Pose, frame: Pose, in_world: bool) -> tuple[Element, Pose]:
    """URDF geometry and pose in the world of an MJCF sphere or capsule; `local` is its pose where it has no ends."""
    sizes = [float(word) for word in geom.get("size", "").split()]
    if geom.get("type") == "sphere":
        place: Pose = (tuple(float(word) for word in geom.get("pos", "0 0 0").split()), (0.0, 0.0, 0.0, 1.0))
        return Element("sphere", radius=_words(sizes[0])), pybullet.multiplyTransforms(*frame, *place)
    if geom.get("fromto") is None:
        element = Element("capsule", radius=_words(sizes[0]), length=_words(2 * sizes[1]))
        return element, pybullet.multiplyTransforms(*frame, *local)
    ends = np.array([float(word) for word in geom.get("fromto", "").split()]).reshape(2, 3)
    along = ends[1] - ends[0]
    length = float(np.linalg.norm(along))
    element = Element("capsule", radius=_words(sizes[0]), length=_words(length))
    place = (tuple(ends.mean(axis=0)), _turn_from_z(along / length))
    return element, place if in_world else pybullet.multiplyTransforms(*frame, *place)


def _turn_from_z(direction: np.ndarray) -> tuple[float, ...]:
    """Quaternion of the shortest turn from the z axis to a unit vector."""
    x, y, z = (float(one) for one in direction)
    if z < -1 + 1e-9:
        return (1.0, 0.0, 0.0, 0.0)
    norm = math.sqrt(x * x + y * y + (1 + z) ** 2)
    return (-y / norm, x / norm, 0.0, (1 + z) / norm)


def urdf(groups: list[Group]) -> str:
    """The groups as a URDF file, every group one link."""
    root = Element("robot", name=groups[0].name)
    for group in groups:
        into = pybullet.invertTransform(*group.frame)
        link = SubElement(root, "link", name=group.name)
        _write_inertia(SubElement(link, "inertial"), group)
        for geometry, pose in group.shapes:
            for tag in ("visual", "collision"):
                item = SubElement(link, tag)
                _write_origin(item, pybullet.multiplyTransforms(*into, *pose))
                SubElement(item, "geometry").append(geometry)
        if group.parent is not None:
            _write_joint(root, group, group.parent)
    return ElementTree.tostring(root, encoding="unicode")


def _words(*numbers: float) -> str:
    return " ".join(f"{number:.17g}" for number in numbers)


def _write_origin(item: Element, pose: Pose) -> None:
    angles = pybullet.getEulerFromQuaternion(pose[1])
    SubElement(item, "origin", xyz=_words(*pose[0]), rpy=_words(*angles))


def _write_inertia(item: Element, group: Group) -> None:
    into = pybullet.invertTransform(*group.frame)
    turn = np.array(pybullet.getMatrixFromQuaternion(into[1])).reshape(3, 3)
    place, _ = pybullet.multiplyTransforms(*into, tuple(group.centre()), group.frame[1])
    _write_origin(item, (place if group.solids else (0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0)))
    SubElement(item, "mass", value=_words(group.mass))
    # Rounded: what is left of products that cancel would make PyBullet turn the link to other principal axes.
    inertia = np.round(turn @ group.inertia() @ turn.T, 9)
    names = {"ixx": (0, 0), "ixy": (0, 1), "ixz": (0, 2), "iyy": (1, 1), "iyz": (1, 2), "izz": (2, 2)}
    SubElement(item, "inertia", {name: _words(inertia[at]) for name, at in names.items()})


def _write_joint(root: Element, group: Group, parent: Group) -> None:
    info = group.joint
    low, high = info[8:10]
    kind = "prismatic" if info[2] == pybullet.JOINT_PRISMATIC else "revolute" if low <= high else "continuous"
    joint = SubElement(root, "joint", name=info[1].decode(), type=kind)
    _write_origin(joint, pybullet.multiplyTransforms(*pybullet.invertTransform(*parent.frame), *group.frame))
    SubElement(joint, "parent", link=parent.name)
    SubElement(joint, "child", link=group.name)
    SubElement(joint, "axis", xyz=_words(*info[13]))
    SubElement(joint, "limit", lower=_words(low), upper=_words(high), effort="0", velocity="0")
