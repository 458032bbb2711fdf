"""One robot on one floor in one PyBullet client, called with as few and as large calls as PyBullet allows."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pybullet
import pybullet_data

from .robots import Robot

TIME_STEP = 0.0165
"""Seconds per environment step, as PyBullet's own walkers have it: the original's 0.0165 / 4 times 4."""
SUBSTEPS = 4
FLOOR_FRICTION = 0.8
"""The original's floor."""


class World:
    """A floor and a robot with the physics of `pybullet_envs_gymnasium`.

    Bullet multiplies the frictions of two touching bodies; the effective friction is set through the floor alone, as every part of
    the robot that can touch it has the same one (`geom_friction`).

    Attributes:
        client: PyBullet's number of the client; -1 when closed.
        floor: Body number of the floor.
        body: Body number of the robot.
        joints: Numbers of the joints that have motors, in the model's order.
        limits: Lower and upper limit of those joints in rad, shape `[joints, 2]`.
        links: Numbers of the links that count as parts of the body.
        feet: Number of the link of each foot.
        torso: Number of the torso's link, -1 for the base.
        geom_friction: Friction of the robot's own surfaces.
        fixed_part: Position of the floor in m, which the original counts as a part of the body.
    """

    def __init__(self, robot: Robot) -> None:
        self.client = pybullet.connect(pybullet.DIRECT)
        if self.client < 0:
            raise RuntimeError("PyBullet could not open another client: close environments that are no longer used")
        self._keep: dict[str, int] = {"physicsClientId": self.client}
        pybullet.setPhysicsEngineParameter(deterministicOverlappingPairs=1, **self._keep)
        pybullet.setGravity(0, 0, -9.8, **self._keep)
        pybullet.setDefaultContactERP(0.9, **self._keep)
        pybullet.setPhysicsEngineParameter(
            fixedTimeStep=TIME_STEP / SUBSTEPS * SUBSTEPS, numSolverIterations=5, numSubSteps=SUBSTEPS, **self._keep
        )
        self.floor = self._load_floor()
        self.body = self._load_robot(robot)
        self._name_parts(robot)
        self.geom_friction = pybullet.getDynamicsInfo(self.body, self.feet[0], **self._keep)[1]
        self.fixed_part = pybullet.getBasePositionAndOrientation(self.floor, **self._keep)[0]
        self._start = pybullet.saveState(**self._keep)

    def _load_floor(self) -> int:
        (floor,) = pybullet.loadSDF(os.path.join(pybullet_data.getDataPath(), "plane_stadium.sdf"), **self._keep)
        pybullet.changeDynamics(floor, -1, lateralFriction=FLOOR_FRICTION, restitution=0.5, **self._keep)
        return floor

    def _load_robot(self, robot: Robot) -> int:
        flags = (
            pybullet.URDF_USE_SELF_COLLISION
            | pybullet.URDF_USE_SELF_COLLISION_EXCLUDE_ALL_PARENTS
            | pybullet.URDF_GOOGLEY_UNDEFINED_COLORS
        )
        path = os.path.join(pybullet_data.getDataPath(), "mjcf", robot.model)
        (body,) = pybullet.loadMJCF(path, flags=flags, **self._keep)
        return body

    def _name_parts(self, robot: Robot) -> None:
        infos = [
            pybullet.getJointInfo(self.body, j, **self._keep)
            for j in range(pybullet.getNumJoints(self.body, **self._keep))
        ]
        every = [info[0] for info in infos]
        self._motors_off(every)
        link_of = {info[12].decode(): info[0] for info in infos}
        motors = [info for info in infos if not info[1].startswith((b"ignore", b"jointfix"))]
        self.joints = [info[0] for info in motors]
        self.joint_names = [info[1].decode() for info in motors]
        self.limits = np.array([info[8:10] for info in motors])
        self.torso = link_of.get("torso", -1)
        self.links = every
        self.feet = [link_of[foot] for foot in robot.feet]

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
        links = pybullet.getLinkStates(body, self.links, physicsClientId=client)
        if self.torso < 0:
            position, orientation = pybullet.getBasePositionAndOrientation(body, client)
            return joints, links, position, orientation, pybullet.getBaseVelocity(body, client)[0]
        torso = pybullet.getLinkState(body, self.torso, computeLinkVelocity=1, physicsClientId=client)
        return joints, links, torso[0], torso[1], torso[6]

    def touching(self) -> set[int]:
        """Numbers of the links that touch the floor."""
        points = pybullet.getContactPoints(self.body, self.floor, physicsClientId=self.client)
        return {point[3] for point in points}

    def set_friction(self, friction: float) -> None:
        """Set the effective friction between floor and robot; acts from the next step on."""
        # Twelve digits: 1.2 / 1.5 is the original's 0.8 and not 0.7999999999999999.
        floor = float(f"{friction / self.geom_friction:.12g}")
        pybullet.changeDynamics(self.floor, -1, lateralFriction=floor, **self._keep)

    def get_friction(self) -> float:
        """Effective friction as the simulator has it: the product of the two bodies' values."""
        return pybullet.getDynamicsInfo(self.floor, -1, **self._keep)[1] * self.geom_friction

    def save(self) -> bytes:
        """The simulator's state, contact caches included, for `load` in any process."""
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "state.bullet")
            pybullet.saveBullet(path, **self._keep)
            return Path(path).read_bytes()

    def load(self, state: bytes) -> None:
        """Go to a state that `save` gave for the same robot. Friction is not part of it."""
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "state.bullet")
            Path(path).write_bytes(state)
            pybullet.restoreState(fileName=path, **self._keep)

    def close(self) -> None:
        """Free the client; more than once does no harm."""
        if self.client >= 0:
            pybullet.disconnect(self.client)
            self.client = -1
