from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from envs import FrictionSchedule


def test_published_schedule_is_the_default() -> None:
    schedule = FrictionSchedule()
    assert [schedule.segment(step) for step in (0, 1_999_999, 2_000_000, 4_000_001)] == [0, 0, 1, 2]
    assert (schedule.low, schedule.high, schedule.at_episode_end) == (0.02, 2.0, True)


def test_draws_are_log_uniform() -> None:
    schedule = FrictionSchedule(change_every=1)
    logs = np.log([schedule.friction(k, seed=5) for k in range(3_000)])
    low, span = math.log(0.02), math.log(2.0) - math.log(0.02)
    assert stats.kstest(logs, "uniform", args=(low, span)).pvalue > 0.01


def test_a_draw_needs_no_draws_before_it() -> None:
    schedule = FrictionSchedule(low=0.02, high=2.0)
    # Written down once: a resumed run must draw these for ever.
    expected = math.exp(np.random.default_rng([7, 3]).uniform(math.log(0.02), math.log(2.0)))
    assert schedule.friction(3, seed=7) == expected
    assert schedule.friction(3, seed=7) != schedule.friction(4, seed=7)
    assert schedule.friction(3, seed=7) != schedule.friction(3, seed=8)


def test_a_seed_of_its_own_goes_before_the_environments() -> None:
    own = FrictionSchedule(seed=1)
    assert own.friction(2, seed=9) == own.friction(2, seed=10) == FrictionSchedule().friction(2, seed=1)


def test_lists_and_cycles() -> None:
    values = (0.02, 1.0, 0.5)
    assert [FrictionSchedule(values=values).friction(k) for k in range(5)] == [0.02, 1.0, 0.5, 0.02, 1.0]
    assert [FrictionSchedule(values=values, cycle=False).friction(k) for k in range(5)] == [0.02, 1.0, 0.5, 0.5, 0.5]


def test_constant() -> None:
    schedule = FrictionSchedule.constant(0.3)
    assert (schedule.segment(10**9), schedule.friction(0)) == (0, 0.3)


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"low": 0}, ValueError, r"low must be in \(0, 10\], got 0"),
        ({"low": -0.5}, ValueError, r"low must be in \(0, 10\], got -0.5"),
        ({"high": 10.5}, ValueError, r"high must be in \(0, 10\], got 10.5: Bullet caps the product at 10"),
        ({"high": math.nan}, ValueError, r"high must be in \(0, 10\], got nan"),
        ({"low": 2, "high": 1}, ValueError, r"low must not exceed high, got low=2 > high=1: swap them"),
        ({"low": "0.1"}, TypeError, r"low must be a number in \(0, 10\], got '0.1'"),
        ({"change_every": 0}, ValueError, r"change_every must be at least 1 \(or None\), got 0"),
        ({"change_every": 1.5}, TypeError, r"change_every must be a whole number or None, got 1.5"),
        ({"values": ()}, ValueError, r"values is empty: give at least one friction, or None to draw them"),
        ({"values": (1.0, 0.0)}, ValueError, r"values\[1\] must be in \(0, 10\], got 0.0"),
        ({"seed": -1}, ValueError, r"seed must be at least 0 \(or None\), got -1"),
    ],
)
def test_bad_input(arguments: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        FrictionSchedule(**arguments)
