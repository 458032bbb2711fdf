"""What several tests do with an environment."""

from __future__ import annotations

import numpy as np

from envs import SlipperyAnt


def play(env: SlipperyAnt, steps: int, seed: int = 0) -> list[list[float]]:
    """Random actions; every number that the environment gives back, one row per call."""
    generator = np.random.default_rng(seed)
    rows = []
    for _ in range(steps):
        action = generator.uniform(-1.2, 1.2, env.action_space.shape).astype(np.float32)
        observation, reward, terminated, truncated, info = env.step(action)
        told = [value.item() for value in (info["friction"], info["task"])]
        rows.append([*observation.tolist(), reward, terminated, truncated, *told])
        if terminated or truncated:
            rows.append(env.reset()[0].tolist())
    return rows
