"""Merged links: the same body and, over a few steps, the same motion; over many, the same distribution."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pybullet
import pytest
from scipy import stats

import envs
from envs import SlipperyAnt
from envs.bullet import World
from tests.envs.playing import play

Make = Callable[..., SlipperyAnt]


def total_mass(world: World) -> float:
    bodies = range(-1, pybullet.getNumJoints(world.body, world.client))
    return sum(pybullet.getDynamicsInfo(world.body, link, physicsClientId=world.client)[0] for link in bodies)


@pytest.mark.parametrize("robot", envs.ROBOTS)
def test_the_same_body_with_fewer_links(ant: Make, robot: str) -> None:
    apart, merged = (ant(robot=robot, merge_fixed_links=flag)._walker.world for flag in (False, True))
    assert pybullet.getNumJoints(merged.body, merged.client) <= pybullet.getNumJoints(apart.body, apart.client) * 2 // 3
    assert total_mass(merged) == pytest.approx(total_mass(apart))
    assert merged.joint_names == apart.joint_names
    assert np.allclose(merged.limits, apart.limits)
    assert merged.geom_friction == apart.geom_friction
    assert merged._parts == apart._parts
    for world in (apart, merged):
        world.reset([0.05] * len(world.joints))
    poses = [world.read() for world in (apart, merged)]
    assert np.allclose(poses[0][2], poses[1][2], atol=1e-6)
    means = [world.middle(pose[1], pose[2]) for world, pose in zip((apart, merged), poses, strict=True)]
    # The humanoid's shin and foot are one: both count at their common centre.
    assert np.allclose(means[0], means[1], atol=2e-3 if robot == "humanoid" else 1e-6)


# The ant starts with a fall onto four feet and the humanoid onto one, which doubles differences within a step or two.
@pytest.mark.parametrize(
    ("robot", "steps", "tolerance"),
    [
        ("ant", 10, 1e-2),
        ("half_cheetah", 40, 1e-3),
        ("hopper", 8, 1e-3),
        ("walker2d", 15, 1e-3),
        ("humanoid", 3, 1e-2),
    ],
)
def test_the_same_motion_for_a_while(ant: Make, robot: str, steps: int, tolerance: float) -> None:
    runs = []
    for flag in (False, True):
        env = ant(robot=robot, friction=0.8, merge_fixed_links=flag, time_limit=None)
        env.reset(seed=0)
        rows = play(env, steps, seed=0)
        contacts = len(env._walker.robot.feet)
        runs.append(np.array(rows)[:, : env.observation_space.shape[0] - contacts])
    assert np.abs(runs[0] - runs[1]).max() < tolerance


def walk(env: SlipperyAnt, seed: int, steps: int = 150) -> float:
    """How far a fixed gait carries the ant, in m."""
    env.reset(seed=seed)
    phase = np.array([0, 1.5, 3.1, 4.6, 0, 1.5, 3.1, 4.6])
    for step in range(steps):
        env._walker.needs_reset = False
        env.step((0.6 * np.sin(step / 4 + phase)).astype(np.float32))
    return 1000.0 + env._walker._potential * 0.0165


@pytest.mark.parametrize("friction", [0.05, 1.2])
def test_the_same_gait_goes_as_far(ant: Make, friction: float) -> None:
    apart, merged = (ant(friction=friction, merge_fixed_links=flag, time_limit=None) for flag in (False, True))
    distances = np.array([[walk(env, seed) for env in (apart, merged)] for seed in range(24)])
    assert stats.ks_2samp(*distances.T).pvalue > 0.01
    assert abs(distances[:, 0].mean() - distances[:, 1].mean()) < 3 * distances.std() / np.sqrt(12)


def test_a_saved_state_continues(ant: Make) -> None:
    env, other = ant(merge_fixed_links=True), ant(merge_fixed_links=True)
    env.reset(seed=0)
    play(env, 30)
    other.load_state_dict(env.state_dict())
    assert play(env, 60) == play(other, 60)
