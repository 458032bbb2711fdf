"""Copies and pickles have a simulator of their own, and one that nobody holds any more is freed."""

from __future__ import annotations

import copy
import gc
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pybullet
import pytest

from envs import FrictionSchedule, SlipperyAnt, SlipperyVectorEnv
from tests.envs.playing import play

SCHEDULE = FrictionSchedule(change_every=60)
COPIES: list[Callable[[Any], Any]] = [copy.copy, copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))]


def connected(client: int) -> bool:
    return bool(pybullet.getConnectionInfo(client)["isConnected"])


@pytest.mark.parametrize("duplicate", COPIES)
def test_a_copy_goes_on_alone_from_the_same_state(duplicate: Callable[[Any], Any]) -> None:
    env = SlipperyAnt(friction=SCHEDULE, time_limit=50)
    env.reset(seed=5)
    play(env, 73, seed=1)
    other = duplicate(env)
    expected = play(env, 100, seed=2)
    assert play(other, 100, seed=2) == expected
    assert other.np_random is other._walker.generator is not env.np_random
    env.close()
    play(other, 3)
    other.close()


@pytest.mark.parametrize("duplicate", COPIES)
def test_a_copied_vector_goes_on_alone(duplicate: Callable[[Any], Any]) -> None:
    vector = SlipperyVectorEnv("ant", 2, friction=SCHEDULE)
    vector.reset(seed=5)
    other = duplicate(vector)
    moves = np.random.default_rng(0).uniform(-1, 1, (20, 2, 8)).astype(np.float32)
    expected = [vector.step(move)[0] for move in moves]
    assert all(np.array_equal(other.step(move)[0], e) for move, e in zip(moves, expected, strict=True))
    vector.close()
    other.close()


def test_an_environment_that_is_dropped_frees_its_simulator() -> None:
    clients = []
    for _ in range(3):
        env = SlipperyAnt()
        env.reset(seed=0)
        clients.append(env._walker.world.client)
    assert connected(clients[-1])
    del env
    gc.collect()
    assert not any(map(connected, clients))


def test_closing_twice_does_not_close_another_environment() -> None:
    first = SlipperyAnt()
    client = first._walker.world.client
    first.close()
    second = SlipperyAnt()  # takes the number that became free
    assert second._walker.world.client == client
    first.close()
    del first
    gc.collect()
    second.reset(seed=0)
    second.close()


def test_a_closed_environment_says_that_it_has_no_state() -> None:
    env = SlipperyAnt()
    env.close()
    with pytest.raises(ValueError, match="the environment is closed"):
        copy.copy(env)
