"""Step by step against PyBullet's own walkers, the published environments."""

from __future__ import annotations

import numpy as np
import pytest
from pybullet_envs_gymnasium import gym_locomotion_envs as original

from envs import SlipperyAnt

ORIGINALS = {
    "ant": (original.AntBulletEnv, 1.2, 20_000),
    "half_cheetah": (original.HalfCheetahBulletEnv, 0.64, 3_000),
    "hopper": (original.HopperBulletEnv, 0.64, 3_000),
    "walker2d": (original.Walker2DBulletEnv, 0.64, 3_000),
    "humanoid": (original.HumanoidBulletEnv, 0.64, 2_000),
}


def actions(step: int, size: int, generator: np.random.Generator) -> np.ndarray:
    # Noise alone never throws the ant over: sometimes push hard, also beyond the limits, for a while.
    bias = np.sin(step / 7 + np.arange(size)) * (1.5 if step % 700 > 500 else 0.3)
    return (bias + generator.uniform(-1, 1, size)).astype(np.float32)


@pytest.mark.parametrize("robot", ORIGINALS)
def test_same_as_the_original(robot: str) -> None:
    kind, friction, steps = ORIGINALS[robot]
    theirs, ours = kind(), SlipperyAnt(robot=robot, friction=friction)
    theirs.reset(seed=0)  # its first episode alone does not count the floor as a part of the body
    generator = np.random.default_rng(1)
    expected, observation = theirs.reset(seed=3)[0], ours.reset(seed=3)[0]
    deaths = 0
    for step in range(steps):
        assert np.array_equal(expected, observation), f"observations differ at step {step}"
        action = actions(step, len(ours.action_space.low), generator)
        expected, their_reward, their_end, _, _ = theirs.step(action)
        observation, reward, terminated, truncated, _ = ours.step(action)
        # The original adds up float32 products: at the humanoid's rewards of 5 a millionth is 2 ulp.
        assert reward == pytest.approx(their_reward, rel=1e-6, abs=1e-6)
        assert terminated == their_end
        if terminated or truncated:
            expected, observation = theirs.reset()[0], ours.reset()[0]
            deaths += terminated
    assert deaths > 0 or robot == "half_cheetah"
    theirs.close()
    ours.close()
