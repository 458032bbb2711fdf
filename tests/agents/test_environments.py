"""Seeds of members and runs, environments from the user's own module, and what is said of faulty ones."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

import envs
from continual_agents.agents import EnvironmentFault, make_environment
from tests.agents.test_collector import Counter, collecting

# not a function of this module: a process of its own would import torch for it
pendulum = functools.partial(gymnasium.make, "Pendulum-v1")

VECTORS: dict[str, Callable[[], Any]] = {
    "count": lambda: make_environment("Pendulum-v1", 4),
    "sync": lambda: SyncVectorEnv([pendulum] * 4, autoreset_mode=AutoresetMode.DISABLED),
    "async": lambda: AsyncVectorEnv([pendulum] * 4, autoreset_mode=AutoresetMode.DISABLED),
    "slippery": lambda: envs.SlipperyVectorEnv("hopper", 4),
}


@pytest.mark.parametrize("kind", VECTORS)
def test_members_and_runs_share_no_random_numbers(kind: str) -> None:
    """Member k of seed s was member k - 1 of seed s + 1: 9 of 12 frictions were shared."""
    vector = VECTORS[kind]()
    collector = collecting(vector, 4)
    firsts, frictions = [], []
    for seed in range(6):
        collector.set_seed(seed)
        firsts += [tuple(row) for row in collector._current.tolist()]
        frictions += collector.world("friction").tolist()
    assert len(set(firsts)) == 24
    if kind == "slippery":
        assert len(set(frictions)) == 24
    again = [tuple(row) for row in (collector.set_seed(2), collector._current)[1].tolist()]
    assert again == firsts[8:12]
    vector.close()


def test_a_single_environment_gets_the_runs_own_seed() -> None:
    assert collecting(pendulum(), 4, seed=7)._current[0].tolist() == pendulum().reset(seed=7)[0].tolist()


def test_vector_environment_that_takes_one_number_gets_one() -> None:
    vector = gymnasium.make_vec("CartPole-v1", 3, vectorization_mode="vector_entry_point")
    vector.unwrapped.metadata = {**vector.metadata, "autoreset_mode": AutoresetMode.DISABLED}
    assert len({tuple(row) for row in collecting(vector, 3, seed=1)._current.tolist()}) == 3


MODULE = """
import gymnasium, numpy as np
from gymnasium.spaces import Box, Discrete
class Mine(gymnasium.Env):
    observation_space, action_space = Box(-1, 1, (2,)), Discrete(2)
    def __init__(self, fail=False):  # takes no render_mode
        if fail: raise OSError("no license")
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}
    def step(self, action):
        return np.zeros(2, np.float32), np.array([1.0]), False, False, {}
gymnasium.register("MyOwn-v0", Mine)
gymnasium.register("Unlicensed-v0", Mine, kwargs={"fail": True})
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [path for path in __import__("sys").path if path])
    (tmp_path / "my_package.py").write_text(MODULE)
    (tmp_path / "my_broken.py").write_text("import nowhere_to_be_found")
    return tmp_path


@pytest.mark.parametrize("count", [1, 2])
def test_id_with_a_module_is_found_in_the_working_folder(folder: Path, count: int) -> None:
    collector = collecting(make_environment("my_package:MyOwn-v0", count), 6)
    batch = collector.collect()
    # a reward of shape [1] is accepted; no episode ends
    assert batch["next", "reward"].flatten().tolist() == [1.0] * 6
    assert collector.episodes == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Elsewhere-v0", "name the module that registers it, as mypackage:Mine-v0"),
        ("my_pakage:MyOwn-v0", r"the module 'my_pakage' cannot be imported \(ModuleNotFoundError.*run where it lies"),
        ("my_broken:MyOwn-v0", r"'my_broken' cannot be imported \(ModuleNotFoundError: No module named 'nowhere_to"),
        ("my_package:MyOwm-v0", "'my_package' registers no such id, did you mean 'MyOwn-v0'"),
        ("my_package:Unlicensed-v0", "environment.id='Unlicensed-v0' cannot be made: OSError: no license"),
    ],
)
def test_what_is_wrong_with_an_id_is_said(folder: Path, name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_environment(name)


class Old(Counter):
    def reset(self, **_: Any) -> Any:
        return super().reset()[0]


class OldStep(Counter):
    def step(self, action: np.ndarray) -> Any:
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, reward, terminated or truncated, info


class Wide(Counter):
    observation_space = Box(-1, 1, (3,))


class WideStep(Counter):
    def step(self, action: np.ndarray) -> Any:
        return (np.zeros(3), *super().step(action)[1:])


class Fails(Counter):
    def reset(self, **_: Any) -> Any:
        raise RuntimeError("no display")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (
            Old,
            r"the environment Old gave a ndarray from reset\(seed=0\): gymnasium's reset returns \(observation, info\)",
        ),
        (OldStep, r"OldStep gave something unfit from step \(not enough values to unpack"),
        (
            Wide,
            r"the environment Wide, reset\(seed=0\): an observation of shape \(2,\), its observation space says \(3,\)",
        ),
        (WideStep, r"WideStep gave something unfit from step .*\(observation of shape \(2,\), rew"),
        (Fails, r"the environment Fails failed in reset\(seed=0\): RuntimeError: no display"),
    ],
)
def test_what_an_environment_does_wrong_is_said_with_its_name_and_the_call(kind: Any, message: str) -> None:
    with pytest.raises(EnvironmentFault, match=message):
        collecting(kind(), 4).collect()


@pytest.mark.parametrize("kind", [Old, OldStep, Wide, WideStep, Fails])
def test_members_of_a_vector_are_told_too(kind: Any) -> None:
    with pytest.raises(EnvironmentFault, match=f"the environment {kind.__name__}(,| gave| failed)"):
        collecting(make_environment(kind, 2), 4).collect()
