from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pybullet
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env

import envs
from envs import FrictionSchedule, SlipperyAnt
from tests.envs.playing import play

Make = Callable[..., SlipperyAnt]


@pytest.mark.parametrize("robot", envs.ROBOTS)
def test_registered_and_passes_gymnasiums_check(robot: str) -> None:
    env = gymnasium.make(f"Slippery{envs.ROBOTS[robot].title}-v0", render_mode="rgb_array", render_size=(32, 24))
    check_env(env.unwrapped)
    env.close()


def test_same_seed_same_life_other_seed_another(ant: Make) -> None:
    schedule = FrictionSchedule(change_every=40)
    env = ant(friction=schedule, time_limit=30)
    lives = []
    for seed in (3, 3, 4):
        observation, info = env.reset(seed=seed)
        lives.append([[*observation.tolist(), info["friction"]], *play(env, 100)])
    assert lives[0] == lives[1]
    assert lives[0] != lives[2]
    assert env.task == 2  # steps 90 to 99: the third episode began at 90, in segment 2


def test_another_environment_gives_the_same(ant: Make) -> None:
    first, second = ant(), ant()
    first.reset(seed=1), second.reset(seed=1)
    assert play(first, 50) == play(second, 50)


def test_unseeded_lives_differ(ant: Make) -> None:
    first, second = ant(), ant()
    first.reset(), second.reset()
    assert first.friction != second.friction


def test_friction_and_task_are_told(ant: Make) -> None:
    env = ant(friction=FrictionSchedule(change_every=3, values=(0.1, 0.2, 0.3), at_episode_end=False))
    assert math.isnan(env.friction)
    info = env.reset(seed=0)[1]
    assert info == {"friction": 0.1, "task": 0} == {"friction": env.friction, "task": env.task}
    told = [row[-2:] for row in play(env, 8)]
    assert told == [[0.1, 0]] * 3 + [[0.2, 1]] * 3 + [[0.3, 2]] * 2
    assert env.steps == 8


def test_steps_count_over_episodes_and_a_long_episode_skips_tasks(ant: Make) -> None:
    env = ant(friction=FrictionSchedule(change_every=4, values=(0.1, 0.2, 0.3, 0.4)), time_limit=10)
    env.reset(seed=0)
    tasks = [row[-1] for row in play(env, 20) if len(row) > 28]
    assert tasks == [0] * 10 + [2] * 10


def test_time_limit_truncates(ant: Make) -> None:
    env = ant(friction=1.0, time_limit=7)
    env.reset(seed=0)
    ends = [env.step(np.zeros(8, np.float32))[2:4] for _ in range(7)]
    assert ends == [(False, False)] * 6 + [(False, True)]


def test_step_outside_of_an_episode_is_refused(ant: Make) -> None:
    env = ant(time_limit=1)
    with pytest.raises(ResetNeeded, match="call reset before step"):
        env.step(np.zeros(8, np.float32))
    env.reset(seed=0)
    env.step(np.zeros(8, np.float32))
    with pytest.raises(ResetNeeded, match="call reset before step"):
        env.step(np.zeros(8, np.float32))


def test_a_picture_shows_the_robot_and_leaves_the_run_unchanged(ant: Make) -> None:
    plain, drawn = ant(), ant(render_mode="rgb_array", render_size=(80, 60))
    plain.reset(seed=0), drawn.reset(seed=0)
    rows = []
    for step in range(10):
        picture = drawn.render()
        rows += play(drawn, 1, seed=step)
    assert rows == [row for step in range(10) for row in play(plain, 1, seed=step)]
    assert picture is not None
    assert picture.shape == (60, 80, 3)
    assert picture.dtype == np.uint8
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 20


def test_a_step_pushed_to_infinity_ends_the_episode(ant: Make) -> None:
    env = ant(robot="half_cheetah")
    env.reset(seed=0)
    world = env._walker.world
    pybullet.resetJointState(world.body, world.joints[0], 0.0, math.inf, physicsClientId=world.client)
    assert env.step(np.zeros(6, np.float32))[2]


def test_close_frees_the_client_and_may_be_called_twice(ant: Make) -> None:
    env = ant()
    client = env._walker.world.client
    assert pybullet.isConnected(client)
    env.close()
    assert not pybullet.isConnected(client)
    env.close()


def test_resets_do_not_eat_memory(ant: Make) -> None:
    env = ant()
    env.reset(seed=0)

    def pages() -> int:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1])

    def spend(episodes: int) -> None:
        for _ in range(episodes):
            env.reset()
            env.step(np.zeros(8, np.float32))

    spend(300)
    before = pages()
    spend(3_000)
    assert (pages() - before) * 4096 < 3_000 * 100  # a leaked state is 11 KB


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"robot": "spider"}, ValueError, "unknown robot 'spider': there are ant, half_cheetah, hopper"),
        ({"robot": "Walker-2D"}, ValueError, "unknown robot 'Walker-2D': did you mean 'walker2d'"),
        ({"friction": 0.0}, ValueError, r"friction must be in \(0, 10\], got 0.0"),
        ({"friction": 11}, ValueError, r"friction must be in \(0, 10\], got 11: Bullet caps the product at 10"),
        ({"friction": "slippery"}, TypeError, "friction must be a number"),
        ({"time_limit": 0}, ValueError, r"time_limit must be at least 1 step \(None: no limit\), got 0"),
        ({"render_mode": "human"}, ValueError, "render_mode must be 'rgb_array' or None, got 'human'"),
        ({"render_size": (0, 5)}, ValueError, r"render_size must be .* at least 1 pixel, got \(0, 5\)"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        SlipperyAnt(**arguments)


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (np.zeros(7, np.float32), r"the action must have shape \(8,\), got \(7,\)"),
        (np.zeros((1, 8), np.float32), r"the action must have shape \(8,\), got \(1, 8\)"),
        (np.full(8, np.nan, np.float32), "the action must be finite"),
        (np.array([math.inf] + [0] * 7), "the action must be finite"),
    ],
)
def test_bad_actions_change_nothing(ant: Make, action: np.ndarray, message: str) -> None:
    env, untouched = ant(), ant()
    env.reset(seed=0), untouched.reset(seed=0)
    with pytest.raises(ValueError, match=message):
        env.step(action)
    assert play(env, 5) == play(untouched, 5)


def test_huge_finite_actions_are_clipped(ant: Make) -> None:
    env, other = ant(), ant()
    env.reset(seed=0), other.reset(seed=0)
    huge = env.step(np.full(8, 1e25, np.float32))[0]
    assert np.array_equal(huge, other.step(np.ones(8, np.float32))[0])
