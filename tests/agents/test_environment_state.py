"""Nothing that an environment or a wrapper remembers is forgotten when a run continues, or the run says so."""

import io
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import wrappers
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import vector as vector_wrappers

from continual_agents.agents import EnvironmentCollector, make_environment
from continual_agents.runs.checkpoint import plain
from tests.agents.test_collector import Walk, collecting, networks

Make = Callable[[], Any]


class Drift(gymnasium.Wrapper):
    """A user's wrapper: a counter, a generator of its own, a dictionary, an object; announces tasks."""

    class Memory:
        def __init__(self) -> None:
            self.total = np.float64(0.0)

    def __init__(self, env: Any):
        super().__init__(env)
        self.steps, self.seen, self.memory = 0, {}, self.Memory()
        self.draws = np.random.default_rng(0)

    @property
    def task(self) -> int:
        return self.steps // 10

    friction = 0.25

    def step(self, action: Any) -> Any:
        observation, reward, *rest = self.env.step(action)
        self.steps += 1
        self.memory.total += reward
        self.seen[("step", self.steps % 3)] = self.draws.normal()
        noise = self.draws.normal() + self.memory.total + sum(self.seen.values())
        return (observation + np.float32(noise), reward, *rest)


WRAPPED: dict[str, Callable[[Any], Any]] = {
    "normalised observation": wrappers.NormalizeObservation,
    "normalised reward": wrappers.NormalizeReward,
    "sticky": lambda env: wrappers.StickyAction(env, 0.4),
    "delayed": lambda env: wrappers.DelayObservation(env, 2),
    "stacked": lambda env: wrappers.FlattenObservation(wrappers.FrameStackObservation(env, 3)),
    "time": lambda env: wrappers.TimeAwareObservation(wrappers.TimeLimit(env, 17)),
    "statistics": wrappers.RecordEpisodeStatistics,
    "the user's own": Drift,
}
CLASSIC = ("CartPole-v1", "Pendulum-v1", "Acrobot-v1", "MountainCar-v0", "MountainCarContinuous-v0")


def stored(state: Any) -> Any:
    """As a checkpoint gives it back."""
    file = io.BytesIO()
    torch.save(plain(dict(state)), file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def continues_exactly(make: Make, frames: int = 24) -> None:
    def collector() -> EnvironmentCollector:
        return collecting(make(), frames, seed=1)

    whole = collector()
    batches = [whole.collect().clone() for _ in range(4)]
    first = collector()
    for _ in range(2):
        first.collect()
    second = collector()
    second.load_state_dict(stored(first.state_dict()))
    for expected in batches[2:]:
        batch = second.collect()
        assert all(torch.equal(batch[key], expected[key]) for key in batch.keys(True, True))
    assert repr(second.episodes) == repr(whole.episodes)  # nan is itself


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("name", WRAPPED)
def test_wrappers_around_an_environment_with_a_state(name: str, count: int) -> None:
    continues_exactly(lambda: make_environment(lambda: WRAPPED[name](Walk()), count))


@pytest.mark.parametrize("name", CLASSIC)
@pytest.mark.parametrize("count", [1, 3])
def test_gymnasiums_own_environments_continue_exactly(name: str, count: int) -> None:
    continues_exactly(lambda: make_environment(name, count), frames=120)


def test_wrappers_around_a_vector_environment() -> None:
    def make() -> Any:
        vector = SyncVectorEnv([Walk, Walk], autoreset_mode=AutoresetMode.DISABLED)
        return vector_wrappers.NormalizeReward(vector)

    continues_exactly(make)


class Ask(gymnasium.Wrapper):
    """A wrapper that speaks for itself."""

    def __init__(self, env: Any):
        super().__init__(env)
        self.hidden = object()
        self.count = 0

    def step(self, action: Any) -> Any:
        self.count += 1
        observation, *rest = self.env.step(action)
        return (observation + np.float32(self.count), *rest)

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count = state["count"]


def test_a_wrapper_may_speak_for_itself(recwarn: pytest.WarningsRecorder) -> None:
    continues_exactly(lambda: Ask(Walk()))
    assert not recwarn.list


class Pipe(gymnasium.Wrapper):
    def __init__(self, env: Any):
        super().__init__(env)
        self.pipe = io.StringIO()


def test_what_cannot_be_saved_is_named() -> None:
    collector = collecting(Pipe(Walk()), 4)
    with pytest.warns(
        UserWarning, match=r"Pipe.pipe \(StringIO\) could not be saved: the run continues, but not exact"
    ):
        collector.load_state_dict(stored(collector.state_dict()))


def test_state_of_other_wrappers_is_refused() -> None:
    state = collecting(Drift(Walk()), 4).state_dict()
    with pytest.raises(ValueError, match=r"had the wrappers \['Drift'\], now it has \[\]"):
        collecting(Walk(), 4).load_state_dict(state)


def test_half_a_state_is_refused_at_the_beginning() -> None:
    class Half(Walk):
        load_state_dict = property()  # type: ignore[assignment]

    with pytest.raises(ValueError, match="the environment Half has state_dict but no load_state_dict: give it both"):
        EnvironmentCollector(Half(), networks(Walk()), frames=4)
    with pytest.raises(ValueError, match="the environment Half has state_dict"):
        collecting(make_environment(Half, 2), 4)


@pytest.mark.parametrize("count", [1, 2])
def test_a_wrapper_that_announces_task_and_friction_is_heard(count: int) -> None:
    collector = collecting(make_environment(lambda: Drift(gymnasium.make("Pendulum-v1")), count), 40 * count)
    collector.collect()
    assert collector.world("task").tolist() == [4.0] * count
    assert collector.world("friction").tolist() == [0.25] * count


def test_a_task_that_is_no_number_is_not_known() -> None:
    environment = Walk()
    environment.task = "pick-place"  # type: ignore[assignment]
    assert np.isnan(collecting(environment, 4).world("task")).all()
