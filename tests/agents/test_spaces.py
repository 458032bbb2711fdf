"""Spaces of all kinds: what the environment gets and what the agent sees, by hand."""

import re
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.wrappers import RescaleAction

from continual_agents.agents import fit_spaces
from continual_agents.agents.spaces import lost_by_clipping
from tests.agents.test_collector import collecting
from tools.agent import AgentJob
from tools.command_line import compose_config, plain_config


class Any_(gymnasium.Env[Any, Any]):
    """Observes samples of its space, and notes its actions."""

    def __init__(self, observation: Any = None, action: Any = None):
        self.observation_space = spaces.Box(-1, 1, (2,)) if observation is None else observation
        self.action_space = spaces.Discrete(2) if action is None else action
        self.actions: list[Any] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.observation_space.seed(0)
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action), action
        self.actions.append(action)
        return self.observation_space.sample(), 1.0, False, False, {}


@pytest.mark.parametrize(
    ("space", "size"),
    [
        (spaces.Discrete(4), 4),
        (spaces.MultiDiscrete([2, 3]), 5),
        (spaces.MultiBinary(3), 3),
        (spaces.Box(-1, 1, ()), 1),
        (spaces.Box(-1, 1, (2, 3)), 6),
        (spaces.Box(0, 9, (3,), np.int64), 3),
        (spaces.Dict(a=spaces.Box(-1, 1, (2,)), b=spaces.Discrete(3)), 5),
        (spaces.Tuple((spaces.Box(-1, 1, (2,)), spaces.Discrete(3))), 5),
    ],
    ids=str,
)
def test_observations_stand_in_a_row(space: Any, size: int) -> None:
    batch = collecting(fit_spaces(Any_(observation=space)), 6).collect()
    assert batch["observation"].shape == (6, size)
    space.seed(0)
    expected = [spaces.flatten(space, space.sample()) for _ in range(6)]
    np.testing.assert_allclose(batch["observation"].numpy(), np.array(expected).reshape(6, size), rtol=1e-6)


@pytest.mark.parametrize(
    ("space", "count", "third"),
    [
        (spaces.Discrete(4, start=-1), 4, 1),
        (spaces.MultiDiscrete([2, 3]), 6, [0, 2]),
        (spaces.MultiDiscrete([2, 3], start=[5, 7]), 6, [5, 9]),
        (spaces.MultiBinary(3), 8, [0, 1, 0]),
        (spaces.Box(np.array([0, -1]), np.array([1, 1]), dtype=np.int64), 6, [0, 1]),
    ],
    ids=str,
)
def test_choices_are_numbered_from_0(space: Any, count: int, third: Any) -> None:
    inner = Any_(action=space)
    environment = fit_spaces(inner)
    assert environment.action_space == spaces.Discrete(count)
    environment.reset(seed=0)
    for action in range(count):
        environment.step(np.int64(action))
    assert len({str(action) for action in inner.actions}) == count
    assert np.asarray(inner.actions[2]).tolist() == third
    collecting(environment, 6).collect()


@pytest.mark.parametrize("shape", [(), (2, 2)])
def test_numbers_of_any_shape_reach_the_environment(shape: Any) -> None:
    inner = Any_(action=spaces.Box(-100, 100, shape))
    batch = collecting(fit_spaces(inner), 4).collect()
    assert batch["action"].shape == (4, int(np.prod(shape)))
    np.testing.assert_array_equal(np.array(inner.actions).reshape(4, -1), batch["action"].numpy())


def test_what_fits_is_left_alone() -> None:
    for space in (spaces.Box(-1, 1, (2,)), spaces.Box(0, 255, (8, 8, 3), np.uint8)):
        environment = Any_(observation=space)
        assert fit_spaces(environment) is environment


@pytest.mark.parametrize(
    ("spaces_", "message"),
    [
        ({"observation": spaces.Box(-1, 1, (0,))}, r"observation space Box\(shape=\(0,\), float32\) is empty"),
        ({"observation": spaces.Sequence(spaces.Discrete(2))}, "has no fixed length"),
        ({"action": spaces.Box(-1, 1, (0,))}, "is empty: there is nothing to do"),
        ({"action": spaces.MultiDiscrete([50, 50])}, "has 2,500 combinations, more than 1,000 cannot be one choice"),
        ({"action": spaces.Box(-9, 9, (40,), np.int8)}, "combinations, more than 1,000"),
        (
            {"action": spaces.Dict(a=spaces.Discrete(2))},
            "is none that these agents act in: wrap the environment in gymn",
        ),
    ],
)
def test_the_rest_is_refused_with_a_remedy(spaces_: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit_spaces(Any_(**spaces_))


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (-1.0, 1.0, None),  # 32% of a standard normal's draws lie outside
        (-2.0, 2.0, None),
        (-0.1, 0.1, "actions from -0.1 to 0.1: 92% of the first actions lie outside"),
        (0.0, 10.0, "actions from 0 to 10: 80% of that range lie beyond the reach"),
        (-100.0, 100.0, "98% of that range lie beyond the reach"),
    ],
)
def test_what_clipping_alone_would_lose(low: float, high: float, said: str | None) -> None:
    found = lost_by_clipping(spaces.Box(low, high, (2,)))
    assert (found is None) if said is None else re.search(said, found or "")
    assert lost_by_clipping(spaces.Discrete(3)) is None
    assert lost_by_clipping(spaces.Box(-np.inf, np.inf, (2,))) is None


def test_a_run_says_so(tmp_path: Path) -> None:
    words = ["experiment=gymnasium", "experiment.environment.id=MountainCarContinuous-v0", "scale=smoke"]
    config = plain_config(compose_config([*words, "method=backprop", f"folder={tmp_path}"]))
    AgentJob(config).close()  # from -1 to 1: nothing to say
    config["experiment"]["environment"]["id"] = "Narrow-v0"
    gymnasium.register(
        "Narrow-v0", lambda: RescaleAction(gymnasium.make("Pendulum-v1"), np.float32(-0.1), np.float32(0.1))
    )
    with pytest.warns(UserWarning, match="92% of the first actions lie outside.*environment.rescale_actions=true"):
        AgentJob(config).close()
    config["experiment"]["environment"]["rescale_actions"] = True
    AgentJob(config).close()
