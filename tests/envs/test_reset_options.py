"""`reset(options={"friction": ...})` puts the robot on ground of that friction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from envs import FrictionSchedule, SlipperyAnt, SlipperyVectorEnv

SCHEDULE = FrictionSchedule(change_every=10, values=(0.5, 1.5))


def test_it_acts_until_the_schedules_next_change(ant: Callable[..., SlipperyAnt]) -> None:
    env = ant(friction=SCHEDULE, time_limit=5)
    _, info = env.reset(seed=0, options={"friction": 0.1})
    assert (info["friction"], info["task"]) == (0.1, 0)
    assert env._walker.world.get_friction() == pytest.approx(0.1)  # what Bullet has
    seen = []
    for _ in range(15):
        info = env.step(np.zeros(8, np.float32))[4]
        seen.append(float(info["friction"]))
        if len(seen) % 5 == 0:
            env.reset()
    assert seen == [0.1] * 10 + [1.5] * 5


def test_members_of_a_vector_take_one_or_one_each(vector: Callable[..., SlipperyVectorEnv]) -> None:
    env = vector("ant", 3, friction=SCHEDULE)
    assert env.reset(seed=0, options={"friction": 0.2})[1]["friction"].tolist() == [0.2] * 3
    mask = np.array([True, False, True])
    given = np.array([0.3, 0.4, 0.6])
    assert env.reset(options={"reset_mask": mask, "friction": given})[1]["friction"].tolist() == [0.3, 0.2, 0.6]
    with pytest.raises(ValueError, match="one for each of the 3 members, got 2"):
        env.reset(options={"friction": [0.1, 0.2]})


@pytest.mark.parametrize(
    ("friction", "error", "message"),
    [(0.0, ValueError, r"options\['friction'\] must be in \(0, 10\], got 0.0"), ("ice", TypeError, "must be a number")],
)
def test_what_is_no_friction_is_refused_and_changes_nothing(
    ant: Callable[..., SlipperyAnt], friction: Any, error: type[Exception], message: str
) -> None:
    env = ant(friction=SCHEDULE)
    env.reset(seed=0)
    state = env.np_random.bit_generator.state
    with pytest.raises(error, match=message):
        env.reset(seed=1, options={"friction": friction})
    assert env.friction == 0.5
    assert env.np_random.bit_generator.state == state
