"""One robot on one floor in one PyBullet client, called with as few and as large calls as PyBullet allows."""

import contextlib
import os
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .merged import Group, merged, touches_itself, urdf
from .quiet import pybullet, pybullet_data
from .robots import Robot

TIME_STEP = 0.0165
"""Seconds per environment step, as PyBullet's own walkers have it: the original's 0.0165 / 4 times 4."""
SUBSTEPS = 4
FLOOR_FRICTION = 0.8
"""The original's floor."""


LOAD_FLAGS = (
    pybullet.URDF_USE_SELF_COLLISION
    | pybullet.URDF_USE_SELF_COLLISION_EXCLUDE_ALL_PARENTS
    | pybullet.URDF_GOOGLEY_UNDEFINED_COLORS
)


class World:
    """A floor and a robot with the physics of `pybullet_envs_gymnasium`.

    Bullet multiplies the frictions of two touching bodies. The effective friction is set through the floor alone, as
    all surfaces of the robot have the same one (`geom_friction`).

    Args:
        robot: Row of the table of robots.
        merge_fixed_links: Simulate links that are fixed to each other as one.

    Attributes:
        client: PyBullet's number of the client; -1 when closed.
        floor: Body number of the floor.
        body: Body number of the robot.
        joints: Numbers of the joints that have motors, in the model's order.
        joint_names: Their names.
        limits: Their lower and upper limits in rad.
        links: Numbers of all links.
        feet: Number of the link of each foot.
        torso: Number of the torso's link, -1 for the base.
        geom_friction: Friction of the robot's own surfaces.
        merged: Whether fixed links are simulated as one.
    """

    def __init__(self, robot: Robot, *, merge_fixed_links: bool = False) -> None:
        self.merged = merge_fixed_links
        self.client = pybullet.connect(pybullet.DIRECT)
        if self.client < 0:
            raise RuntimeError("PyBullet could not open another client: close environments that are no longer used")
        self._keep: dict[str, int] = {"physicsClientId": self.client}
        # an environment that is dropped without close() frees its client: 29 MB each
        self._free = weakref.finalize(self, _disconnect, self.client)
        self._free.atexit = False  # PyBullet may be gone by then
        # The pairs' order decides the contacts' order: without this flag a restored world may go another way.
        pybullet.setPhysicsEngineParameter(deterministicOverlappingPairs=1, **self._keep)
        pybullet.setGravity(0, 0, -9.8, **self._keep)
        pybullet.setDefaultContactERP(0.9, **self._keep)
        pybullet.setPhysicsEngineParameter(
            fixedTimeStep=TIME_STEP, numSolverIterations=5, numSubSteps=SUBSTEPS, **self._keep
        )
        self.floor = self._load_floor()
        self.body = self._load_robot(robot)
        self._name_parts(robot)
        # The models hold float32: 0.8 reads back as 0.800000011920929.
        self.geom_friction = round(pybullet.getDynamicsInfo(self.body, self.feet[0], **self._keep)[1], 6)
        self._start = pybullet.saveState(**self._keep)

    def _load_floor(self) -> int:
        (floor,) = pybullet.loadSDF(os.path.join(pybullet_data.getDataPath(), "plane_stadium.sdf"), **self._keep)
        pybullet.changeDynamics(floor, -1, lateralFriction=FLOOR_FRICTION, restitution=0.5, **self._keep)
        return floor

    def _load_robot(self, robot: Robot) -> int:
        path = os.path.join(pybullet_data.getDataPath(), "mjcf", robot.model)
        (body,) = pybullet.loadMJCF(path, flags=LOAD_FLAGS, **self._keep)
        self._weights: list[tuple[int, int]] | None = None
        self._base_weight = 1
        if not self.merged:
            return body
        groups = merged(robot, body, self.client)
        surface = pybullet.getDynamicsInfo(body, pybullet.getNumJoints(body, self.client) - 1, **self._keep)[1]
        pybullet.removeBody(body, **self._keep)
        self._weights = [(len(group.solids), group.massless) for group in groups[1:]]
        self._base_weight = len(groups[0].solids)
        return self._load_merged(groups, surface, self_collision=touches_itself(robot))

    def _load_merged(self, groups: list[Group], surface: float, *, self_collision: bool) -> int:
        flags = pybullet.URDF_USE_INERTIA_FROM_FILE | (LOAD_FLAGS if self_collision else 0)
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "robot.urdf")
            Path(path).write_text(urdf(groups))
            body = pybullet.loadURDF(
                path,
                basePosition=groups[0].frame[0],
                useFixedBase=groups[0].mass == 0,
                flags=flags,
                **self._keep,
            )
        for link in range(-1, len(groups) - 1):
            pybullet.changeDynamics(body, link, lateralFriction=surface, **self._keep)
        return body

    def _name_parts(self, robot: Robot) -> None:
        count = pybullet.getNumJoints(self.body, **self._keep)
        infos = [pybullet.getJointInfo(self.body, joint, **self._keep) for joint in range(count)]
        self.links = list(range(count))
        self._motors_off(self.links)
        link_of = {info[12].decode(): info[0] for info in infos}
        self.torso = link_of.get("torso", -1)
        self.feet = [link_of[foot] for foot in robot.feet]
        motors = [info for info in infos if not info[1].startswith((b"ignore", b"jointfix"))]
        self.joints = [info[0] for info in motors]
        self.joint_names = [info[1].decode() for info in motors]
        self.limits = [(info[8], info[9]) for info in motors]
        # The original counts the floor among the parts of the body.
        self._floor_position = pybullet.getBasePositionAndOrientation(self.floor, **self._keep)[0]
        links = count if self._weights is None else sum(map(sum, self._weights))
        self._parts = links + 1 + (self._base_weight if self.torso < 0 else 0)

    def _motors_off(self, joints: list[int]) -> None:
        # PyBullet's default velocity motors brake every joint until they are given no force.
        zeros, gains = [0.0] * len(joints), [0.1] * len(joints)
        pybullet.setJointMotorControlArray(
            self.body,
            joints,
            pybullet.POSITION_CONTROL,
            targetPositions=zeros,
            targetVelocities=zeros,
            positionGains=gains,
            velocityGains=gains,
            forces=zeros,
            **self._keep,
        )

    def reset(self, positions: list[float]) -> None:
        """Put the robot back where it was loaded, at rest, with these joint angles in rad. Friction stays."""
        pybullet.restoreState(self._start, **self._keep)
        for joint, position in zip(self.joints, positions, strict=True):
            pybullet.resetJointState(self.body, joint, position, 0, **self._keep)
        self._motors_off(self.joints)

    def step(self, joints: list[int], torques: list[float]) -> None:
        """Apply torques in N m for one environment step."""
        pybullet.setJointMotorControlArray(
            self.body, joints, pybullet.TORQUE_CONTROL, forces=torques, physicsClientId=self.client
        )
        pybullet.stepSimulation(self.client)

    def read(self) -> tuple[Any, Any, Any, Any, Any]:
        """PyBullet's joint states, link states, and position, orientation and velocity of the torso."""
        body, client = self.body, self.client
        joints = pybullet.getJointStates(body, self.joints, client)
        links = pybullet.getLinkStates(body, self.links, 0, 0, client)
        if self.torso < 0:
            position, orientation = pybullet.getBasePositionAndOrientation(body, client)
            return joints, links, position, orientation, pybullet.getBaseVelocity(body, client)[0]
        torso = pybullet.getLinkState(body, self.torso, 1, 0, client)
        return joints, links, torso[0], torso[1], torso[6]

    def middle(self, links: Any, position: Sequence[float]) -> tuple[float, float]:
        """Mean x and y in m of the parts of the body, from what `read` returned."""
        x, y, _ = self._floor_position
        if self.torso < 0:
            x += self._base_weight * position[0]
            y += self._base_weight * position[1]
        if self._weights is None:
            for link in links:
                part = link[0]
                x += part[0]
                y += part[1]
            return x / self._parts, y / self._parts
        # Where the parts were that are now merged: at the link's centre of mass or, the massless ones, at its joint.
        for link, (solid, massless) in zip(links, self._weights):  # noqa: B905  (a hot loop)
            centre, joint = link[0], link[4]
            x += solid * centre[0] + massless * joint[0]
            y += solid * centre[1] + massless * joint[1]
        return x / self._parts, y / self._parts

    def touching(self) -> set[int]:
        """Numbers of the links that touch the floor."""
        return {point[3] for point in pybullet.getContactPoints(self.body, self.floor, -2, -2, self.client)}

    def set_friction(self, friction: float) -> None:
        """Set the effective friction between floor and robot; acts from the next step on."""
        # Twelve digits: 1.2 / 1.5 is the original's 0.8 and not 0.7999999999999999.
        floor = float(f"{friction / self.geom_friction:.12g}")
        pybullet.changeDynamics(self.floor, -1, lateralFriction=floor, **self._keep)

    def get_friction(self) -> float:
        """Effective friction as the simulator has it: the product of the two bodies' values."""
        return pybullet.getDynamicsInfo(self.floor, -1, **self._keep)[1] * self.geom_friction

    def save(self) -> bytes:
        """The simulator's state, contact caches included, for `load` in any process.

        Raises:
            ValueError: the simulator was freed.
        """
        if self.client < 0:
            raise ValueError("the environment is closed: its simulator has no state any more")
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "state.bullet")
            pybullet.saveBullet(path, **self._keep)
            return Path(path).read_bytes()

    def load(self, state: bytes) -> None:
        """Go to a state that `save` gave for the same robot. Friction is not part of it.

        Raises:
            ValueError: PyBullet cannot read the state.
        """
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "state.bullet")
            Path(path).write_bytes(state)
            try:
                pybullet.restoreState(fileName=path, **self._keep)
            except pybullet.error as error:
                raise ValueError(
                    f"PyBullet cannot read the simulator's state of {len(state)} bytes ({error}): it is damaged or of "
                    "another robot; go back to an earlier checkpoint"
                ) from error

    def picture(self, width: int, height: int) -> np.ndarray:
        """The robot from behind and above, drawn on the CPU: uint8 of shape `[height, width, 3]`."""
        position = self.read()[2]
        view = pybullet.computeViewMatrixFromYawPitchRoll(position, 3, 0, -30, 0, 2)
        projection = pybullet.computeProjectionMatrixFOV(60, width / height, 0.1, 100.0)
        image = pybullet.getCameraImage(
            width, height, view, projection, renderer=pybullet.ER_TINY_RENDERER, **self._keep
        )
        return np.reshape(np.asarray(image[2], np.uint8), (height, width, 4))[:, :, :3].copy()

    def close(self) -> None:
        """Free the client; more than once does no harm."""
        self._free()
        self.client = -1


def _disconnect(client: int) -> None:
    with contextlib.suppress(pybullet.error):  # the simulator has died already
        pybullet.disconnect(client)
