from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from envs import SlipperyAnt


@pytest.fixture
def make() -> Iterator[Callable[..., SlipperyAnt]]:
    made = []

    def build(**arguments: object) -> SlipperyAnt:
        made.append(SlipperyAnt(**arguments))
        return made[-1]

    yield build
    for env in made:
        env.close()


def play(env: SlipperyAnt, steps: int, seed: int = 0) -> list[np.ndarray]:
    """Random actions; every number that the environment gives back, one row per step."""
    generator = np.random.default_rng(seed)
    rows = []
    for _ in range(steps):
        action = generator.uniform(-1.2, 1.2, env.action_space.shape).astype(np.float32)
        observation, reward, terminated, truncated, info = env.step(action)
        rows.append(np.array([*observation, reward, terminated, truncated, info["friction"], info["task"]]))
        if terminated or truncated:
            rows.append(env.reset()[0])
    return rows


def same(left: list[np.ndarray], right: list[np.ndarray]) -> bool:
    return len(left) == len(right) and all(np.array_equal(a, b) for a, b in zip(left, right, strict=True))
