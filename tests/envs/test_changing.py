"""Changing observations: what is shown, when it changes, and that it continues exactly."""

import gymnasium
import numpy as np
import pytest

from continual_agents.agents.environment_state import environment_state, set_environment_state
from envs import ChangingObservation, SlipperyAnt


def pair(name: str = "CartPole-v1", **settings: object) -> tuple[gymnasium.Env, ChangingObservation]:
    """An environment, and another one like it behind changing observations."""
    plain, inner = (gymnasium.make(name, disable_env_checker=True) for _ in range(2))
    return plain, ChangingObservation(inner, **settings)


def shown(
    settings: dict[str, object], steps: int, name: str = "CartPole-v1"
) -> list[tuple[int, np.ndarray, np.ndarray]]:
    """(task, plain observation, shown observation) of every step, both environments played alike."""
    plain, changing = pair(name, **settings)
    rows, generator = [], np.random.default_rng(0)
    observation, altered = plain.reset(seed=3)[0], changing.reset(seed=3)[0]
    rows.append((changing.task, observation, altered))
    for _ in range(steps):
        action = plain.action_space.sample() if name != "CartPole-v1" else int(generator.integers(2))
        observation, reward, *ended, _ = plain.step(action)
        altered, reward_too, *ended_too, _ = changing.step(action)
        assert (reward, ended) == (reward_too, ended_too)
        if any(ended):
            observation, altered = plain.reset()[0], changing.reset()[0]
        rows.append((changing.task, observation, altered))
    return rows


def test_an_offset_is_constant_within_a_task_and_drawn_anew_for_the_next() -> None:
    offsets: dict[int, list[np.ndarray]] = {}
    for task, observation, altered in shown({"change_every": 50}, 200):
        offsets.setdefault(task, []).append(altered - observation)
    assert sorted(offsets)[:3] == [0, 1, 2]
    for task, seen in offsets.items():
        expected = np.random.default_rng([3, task]).normal(0.0, 2.0, 4)
        np.testing.assert_allclose(seen, np.broadcast_to(expected, (len(seen), 4)), atol=1e-6)


def test_coordinates_are_permuted() -> None:
    for task, observation, altered in shown({"kind": "permute", "change_every": 40}, 120):
        np.testing.assert_array_equal(altered, observation[np.random.default_rng([3, task]).permutation(4)])


def test_drift_goes_from_one_offset_to_the_next_without_a_jump() -> None:
    rows = shown({"kind": "drift", "change_every": 100, "at_episode_end": False}, 300)
    draws = [np.random.default_rng([3, task]).normal(0.0, 2.0, 4) for task in range(5)]
    for step, (_, observation, altered) in enumerate(rows):
        task, part = divmod(step, 100)
        # a new episode begins at the step count of the last one's end
        np.testing.assert_allclose(
            altered - observation, draws[task] * (1 - part / 100) + draws[task + 1] * part / 100, atol=1e-5
        )


def test_tasks_change_at_the_first_episode_at_or_after_the_boundary() -> None:
    env = ChangingObservation(gymnasium.make("CartPole-v1"), change_every=5)
    env.reset(seed=0)
    ended = False
    while not ended:
        *_, ended, _, info = env.step(0)
        assert info["task"] == env.task == 0
    assert env.steps > 5
    assert env.reset()[1]["task"] == env.task == env.steps // 5


@pytest.mark.parametrize(
    "name", ["CartPole-v1", "Acrobot-v1", "Pendulum-v1", "MountainCar-v0", "MountainCarContinuous-v0"]
)
def test_a_saved_environment_continues_bit_for_bit(name: str) -> None:
    _, env = pair(name, change_every=30)
    actions = env.action_space
    actions.seed(0)
    env.reset(seed=1)
    play = [actions.sample() for _ in range(400)]

    def steps(env: ChangingObservation, some: list) -> list:
        seen = []
        for action in some:
            observation, reward, terminated, truncated, info = env.step(action)
            seen.append((*observation.tolist(), float(reward), terminated, truncated, int(info["task"])))
            if terminated or truncated:
                seen.append(env.reset()[0].tolist())
        return seen

    steps(env, play[:150])
    state = environment_state(env)
    assert state is not None
    expected = steps(env, play[150:])
    _, other = pair(name, change_every=30)
    other.reset(seed=9)
    set_environment_state(other, state)
    assert steps(other, play[150:]) == expected


def test_an_environment_with_a_state_of_its_own_is_saved_with_it() -> None:
    env = ChangingObservation(SlipperyAnt(friction=1.0), kind="permute", change_every=10)
    env.reset(seed=0)
    state = environment_state(env)
    assert state is not None
    expected = env.step(np.zeros(8))[0]
    env.step(np.ones(8))
    set_environment_state(env, state)
    np.testing.assert_array_equal(env.step(np.zeros(8))[0], expected)
    env.close()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"kind": "shift", "change_every": 5}, "changing.kind='shift': one of offset, permute, drift"),
        ({"change_every": 0}, "changing.change_every=0: a whole number of at least 1 is needed"),
        ({"change_every": 5, "scale": -1.0}, "changing.scale=-1.0: a finite standard deviation"),
    ],
)
def test_bad_settings_are_named(settings: dict, said: str) -> None:
    with pytest.raises(ValueError, match="^" + said.replace("[", r"\[")):
        ChangingObservation(gymnasium.make("CartPole-v1"), **settings)
