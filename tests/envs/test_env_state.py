"""Saved and continued bit for bit, also in another process."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import envs
from envs import FrictionSchedule, SlipperyAnt
from tests.envs.playing import play

Make = Callable[..., SlipperyAnt]
SCHEDULE = FrictionSchedule(change_every=60)
ROOT = Path(__file__).resolve().parents[2]

CONTINUE = """
import json, sys, torch
from envs import FrictionSchedule, SlipperyAnt
from tests.envs.playing import play
stored = torch.load(sys.argv[1], weights_only=True)
stored["simulator"] = stored["simulator"].numpy()
env = SlipperyAnt(robot=sys.argv[2], friction=FrictionSchedule(change_every=60), time_limit=50)
env.load_state_dict(stored)
print(json.dumps(play(env, 150, seed=2)))
"""


def in_middle_of_an_episode(ant: Make, **arguments: Any) -> SlipperyAnt:
    env = ant(friction=SCHEDULE, time_limit=50, **arguments)
    env.reset(seed=5)
    play(env, 73, seed=1)
    return env


@pytest.mark.parametrize("robot", envs.ROBOTS)
def test_a_new_process_continues_bit_for_bit(ant: Make, robot: str, tmp_path: Path) -> None:
    env = in_middle_of_an_episode(ant, robot=robot)
    state = env.state_dict()
    state["simulator"] = torch.from_numpy(state["simulator"])
    torch.save(state, tmp_path / "state.pt")
    undisturbed = play(env, 150, seed=2)
    command = [sys.executable, "-c", CONTINUE, str(tmp_path / "state.pt"), robot]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    lines = [line for line in process.stdout.splitlines() if line.startswith("[")]
    assert json.loads(lines[-1]) == undisturbed
    assert undisturbed[-1][-1] == 3  # friction changed on the way


def test_another_environment_of_this_process_continues_whatever_it_did_before(ant: Make) -> None:
    env = in_middle_of_an_episode(ant)
    state = env.state_dict()
    expected = play(env, 100, seed=2)
    for seed in range(3):
        other = ant(friction=SCHEDULE, time_limit=50)
        other.reset(seed=seed)
        play(other, 20 * seed, seed=seed)
        other.load_state_dict(state)
        assert play(other, 100, seed=2) == expected


def test_saving_changes_nothing(ant: Make) -> None:
    env, plain = in_middle_of_an_episode(ant), in_middle_of_an_episode(ant)
    env.state_dict()
    assert play(env, 60) == play(plain, 60)


def test_a_state_from_before_the_first_reset_and_after_the_last_step(ant: Make) -> None:
    fresh, other = ant(friction=SCHEDULE), ant(friction=SCHEDULE)
    other.reset(seed=1)
    other.load_state_dict(fresh.state_dict())
    assert other.reset(seed=2)[0].tolist() == fresh.reset(seed=2)[0].tolist()
    for env in (fresh, other):
        env.load_state_dict(env.state_dict() | {"needs_reset": True})
    with pytest.raises(Exception, match="call reset before step"):
        fresh.step(np.zeros(8, np.float32))


def test_the_state_is_plain_and_small(ant: Make) -> None:
    state = in_middle_of_an_episode(ant).state_dict()

    def plain(value: Any) -> bool:
        if isinstance(value, dict):
            return all(isinstance(key, str) and plain(one) for key, one in value.items())
        if isinstance(value, list):
            return all(plain(one) for one in value)
        return value is None or type(value) in (bool, int, float, str)

    simulator = state.pop("simulator")
    assert plain(state)
    assert simulator.dtype == np.uint8
    assert simulator.nbytes < 100_000


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"version": 99},
            "state has version 99, this code reads 1: continue with the version of the project that wrote",
        ),
        ({"robot": "hopper"}, "state has robot='hopper', this environment robot='ant': make it with robot='hopper'"),
        ({"merge_fixed_links": True}, "state has merge_fixed_links=True, this environment merge_fixed_links=False"),
        ({"friction": -1.0}, r"friction must be in \(0, 10\], got -1.0"),
        ({"simulator": np.zeros(50, np.uint8)}, "cannot read the simulator's state of 50 bytes"),
        ({"simulator": np.zeros(0, np.uint8)}, "cannot read the simulator's state of 0 bytes"),
        ({"simulator": None}, "the environment's state lacks 'simulator'"),
    ],
)
def test_states_that_do_not_fit_are_refused_and_change_nothing(ant: Make, change: Any, message: str) -> None:
    env, untouched = in_middle_of_an_episode(ant), in_middle_of_an_episode(ant)
    state = {key: value for key, value in (env.state_dict() | change).items() if value is not None}
    with pytest.raises(ValueError, match=message):
        env.load_state_dict(state)
    assert play(env, 20) == play(untouched, 20)


def test_a_state_of_another_robots_simulator_is_refused(ant: Make) -> None:
    ours, theirs = in_middle_of_an_episode(ant).state_dict(), in_middle_of_an_episode(ant, robot="hopper").state_dict()
    with pytest.raises(ValueError, match="it is damaged or of another robot"):
        ant().load_state_dict(ours | {"simulator": theirs["simulator"]})
