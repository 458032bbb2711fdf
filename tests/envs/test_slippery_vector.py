from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode

from envs import FrictionSchedule, SlipperyAnt, SlipperyVectorEnv

Make = Callable[..., SlipperyVectorEnv]
SCHEDULES = [
    FrictionSchedule(change_every=40),
    FrictionSchedule(change_every=7, values=(0.1, 1.0), at_episode_end=False),
    0.7,
]


def actions(steps: int, n: int = 3, size: int = 8) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1.2, 1.2, (steps, n, size)).astype(np.float32)


def run(env: SlipperyVectorEnv, moves: np.ndarray) -> list[list[Any]]:
    """Steps and masked resets; per member every number that it gives back."""
    told: list[list[Any]] = [[] for _ in range(env.num_envs)]
    for move in moves:
        observations, rewards, terminated, truncated, infos = env.step(move)
        for index, log in enumerate(told):
            flags = [rewards[index], terminated[index], truncated[index]]
            log.append([*observations[index].tolist(), *flags, infos["friction"][index], infos["task"][index]])
        over = terminated | truncated
        if over.any():
            observations, infos = env.reset(options={"reset_mask": over})
            for index in np.flatnonzero(over):
                told[index].append([*observations[index].tolist(), infos["friction"][index], infos["task"][index]])
    return told


def run_alone(env: SlipperyAnt, moves: np.ndarray) -> list[Any]:
    told = []
    for move in moves:
        observation, reward, terminated, truncated, info = env.step(move)
        told.append([*observation.tolist(), reward, terminated, truncated, info["friction"], info["task"]])
        if terminated or truncated:
            observation, info = env.reset()
            told.append([*observation.tolist(), info["friction"], info["task"]])
    return told


def test_each_member_gives_what_it_gives_alone(vector: Make, ant: Callable[..., SlipperyAnt]) -> None:
    env, moves = vector("ant", 3, friction=SCHEDULES, time_limit=30), actions(100)
    first = env.reset(seed=11)[0]
    together = run(env, moves)
    for index, schedule in enumerate(SCHEDULES):
        alone = ant(friction=schedule, time_limit=30)
        assert np.array_equal(alone.reset(seed=11 + index)[0], first[index])
        assert run_alone(alone, moves[:, index]) == together[index]
    assert env.task.tolist() == [2, 14, 0]
    assert env.steps.tolist() == [100] * 3


def test_is_what_gymnasium_expects(vector: Make) -> None:
    env = vector("hopper", 4, friction=0.5)
    assert isinstance(env, gymnasium.vector.VectorEnv)
    assert env.metadata["autoreset_mode"] == AutoresetMode.DISABLED
    observations, infos = env.reset(seed=0)
    assert env.observation_space.contains(observations)
    assert env.observation_space.shape == (4, 15)
    assert env.action_space.shape == (4, 3)
    results = env.step(env.action_space.sample())
    assert env.observation_space.contains(results[0])
    assert [(one.dtype, one.shape) for one in results[1:4]] == [(np.float64, (4,)), (np.bool_, (4,)), (np.bool_, (4,))]
    assert set(infos) == {"friction", "_friction", "task", "_task"}


def test_works_under_gymnasiums_vector_wrappers(vector: Make) -> None:
    env = gymnasium.wrappers.vector.RecordEpisodeStatistics(vector("ant", 2, time_limit=5))
    env.reset(seed=0)
    for move in actions(5, n=2):
        infos = env.step(move)[4]
    assert infos["episode"]["l"].tolist() == [5, 5]


def test_what_is_returned_is_the_callers(vector: Make) -> None:
    env, moves = vector("ant", 2), actions(2, n=2)
    first = env.reset(seed=0)[0]
    kept = first.copy()
    results = env.step(moves[0])
    copies = [one.copy() for one in results[:4]]
    infos = {key: value.copy() for key, value in results[4].items()}
    env.step(moves[1])
    assert np.array_equal(first, kept)
    assert all(np.array_equal(a, b) for a, b in zip(results, copies, strict=False))
    assert all(np.array_equal(results[4][key], infos[key]) for key in infos)


def test_a_masked_reset_touches_only_the_masked(vector: Make) -> None:
    env, twin = vector("ant", 3, friction=0.5), vector("ant", 3, friction=0.5)
    env.reset(seed=0), twin.reset(seed=0)
    moves = actions(6)
    for move in moves[:3]:
        before = env.step(move)[0]
        twin.step(move)
    after = env.reset(options={"reset_mask": np.array([False, True, False])})[0]
    assert np.array_equal(after[[0, 2]], before[[0, 2]])
    assert not np.array_equal(after[1], before[1])
    for move in moves[3:]:
        assert np.array_equal(env.step(move)[0][[0, 2]], twin.step(move)[0][[0, 2]])


def test_seeds(vector: Make) -> None:
    env = vector("ant", 3, friction=1.0)
    one = env.reset(seed=5)[0]
    assert np.array_equal(one, env.reset(seed=[5, 6, 7])[0])
    assert not np.array_equal(one[0], one[1])
    assert not np.array_equal(env.reset()[0], one)
    partly = env.reset(seed=[5, None, None])[0]
    assert np.array_equal(partly[0], one[0])
    assert not np.array_equal(partly[1], one[1])


def test_a_saved_vector_continues_bit_for_bit(vector: Make) -> None:
    env = vector("ant", 3, friction=SCHEDULES, time_limit=30)
    env.reset(seed=2)
    moves = actions(120)
    run(env, moves[:50])
    state = env.state_dict()
    expected = run(env, moves[50:])
    other = vector("ant", 3, friction=SCHEDULES, time_limit=30)
    other.load_state_dict(state)
    assert run(other, moves[50:]) == expected


def test_torchrl_steps_it_and_resets_what_has_ended(vector: Make) -> None:
    from torchrl.envs.libs.gym import GymWrapper

    wrapped = GymWrapper(vector("half_cheetah", 2, friction=1.0, time_limit=10))
    wrapped.set_seed(0)
    rollout = wrapped.rollout(25, break_when_any_done=False)
    assert rollout.batch_size == (2, 25)
    assert rollout["next", "truncated"].squeeze(-1).nonzero().tolist() == [[0, 9], [0, 19], [1, 9], [1, 19]]
    # The same life without TorchRL gives the same numbers.
    twin = vector("half_cheetah", 2, friction=1.0, time_limit=10)
    twin.reset(seed=0)
    observations = twin.reset()[0]  # rollout began with a reset of its own
    for step in range(25):
        assert np.array_equal(rollout["observation"][:, step].numpy(), observations)
        observations, rewards, _, truncated, _ = twin.step(rollout["action"][:, step].numpy())
        assert np.array_equal(rollout["next", "observation"][:, step].numpy(), observations)
        assert np.allclose(rollout["next", "reward"][:, step, 0].numpy(), rewards)
        if truncated.any():
            observations = twin.reset(options={"reset_mask": truncated})[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 0}, "n must be at least 1 environment, got 0"),
        ({"n": 2, "friction": [0.1]}, r"friction must be one for all or one for each of the n=2 members, got 1"),
        ({"n": 2, "friction": [0.1, -1.0]}, r"friction must be in \(0, 10\], got -1.0"),
        ({"robot": "antelope"}, "unknown robot 'antelope'"),
        ({"render_mode": "human"}, "render_mode must be 'rgb_array' or None, got 'human'"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SlipperyVectorEnv(**arguments)


def test_bad_calls(vector: Make) -> None:
    env = vector("ant", 2, time_limit=1)
    move = np.zeros((2, 8), np.float32)
    with pytest.raises(ResetNeeded, match=r"no episode is running in members \[0, 1\]: call reset\(options"):
        env.step(move)
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"the actions must have shape \(2, 8\), got \(2, 7\)"):
        env.step(move[:, :7])
    with pytest.raises(ValueError, match="the action of member 1 must be finite"):
        env.step(np.array([[0] * 8, [0] * 7 + [np.nan]]))
    with pytest.raises(TypeError, match=r"options\['reset_mask'\] must be a NumPy array of bool, got list"):
        env.reset(options={"reset_mask": [True, False]})
    with pytest.raises(TypeError, match=r"must be a NumPy array of bool, got int64"):
        env.reset(options={"reset_mask": np.array([1, 0])})
    with pytest.raises(ValueError, match=r"must have shape \(2,\), got \(3,\)"):
        env.reset(options={"reset_mask": np.array([True, False, True])})
    with pytest.raises(ValueError, match="a list of seeds must have one for each of the 2 members, got 1"):
        env.reset(seed=[1])
    with pytest.raises(ValueError, match=r"the state is of 2 environments, this vector has n=1: make it with n=2"):
        vector("ant", 1).load_state_dict(env.state_dict())
    with pytest.raises(ValueError, match="the state is of 0 environments"):
        env.load_state_dict({})


def test_pictures(vector: Make) -> None:
    env = vector("ant", 2, render_mode="rgb_array", render_size=(40, 30))
    env.reset(seed=0)
    pictures = env.render()
    assert pictures is not None
    assert [picture.shape for picture in pictures] == [(30, 40, 3)] * 2
