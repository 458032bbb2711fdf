"""A task without episodes has a curve and a table all the same."""

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pandas as pd
import pytest
import yaml
from gymnasium.spaces import Box

from continual_agents.agents import train
from continual_agents.runs import Run
from tests.agents.test_training import make
from tools.plot import draw_runs


class Endless(gymnasium.Env[np.ndarray, np.ndarray]):
    """The reward is 2 at every step; nothing ever ends."""

    observation_space, action_space = Box(-1.0, 1.0, (2,)), Box(-1.0, 1.0, (1,))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        return self.np_random.uniform(-1, 1, 2).astype(np.float32), 2.0, False, False, {}


def test_reward_per_step_takes_the_place_of_returns(tmp_path: Path) -> None:
    config = {"experiment": {"name": "endless", "kind": "agent"}, "method": {"name": "ppo"}, "seed": 0}
    collector, learner, _ = make(Endless(), batch=32, minibatch=16, epochs=1, hidden=[8])
    with Run.open(tmp_path / "run", config) as run:
        train(run, collector, learner, steps=320)
    assert yaml.safe_load((tmp_path / "run/config.yaml").read_text()) == config
    metrics = pd.read_csv(tmp_path / "run/metrics.csv")
    assert metrics["reward/mean"].tolist() == [2.0] * 10
    drawn = draw_runs([tmp_path / "run"], tmp_path)
    (row,) = drawn.table.to_dict("records")
    assert row["measure"] == "reward per step"
    assert row["overall"] == pytest.approx(2.0)
    assert drawn.figures[0].exists()
