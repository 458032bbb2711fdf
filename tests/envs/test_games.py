"""MinAtar's games in turn: the package's own numbers, tasks, seeds, and continued exactly."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

from continual_agents.agents import EnvironmentCollector, make_environment, make_q_network
from continual_agents.agents.draws import member_seeds
from continual_agents.agents.environment_state import environment_state, set_environment_state
from envs import MinAtar
from envs.games import CHANNELS, GAMES

minatar = pytest.importorskip("minatar", exc_type=ModuleNotFoundError)


def play(env: Any, count: int, seed: int = 0) -> list[Any]:
    """Random actions; everything that the environment gives back."""
    rows, generator = [], np.random.default_rng(seed)
    for _ in range(count):
        observation, reward, terminated, truncated, info = env.step(generator.integers(6))
        rows.append((observation.tobytes(), reward, terminated, truncated, int(info["task"])))
        if terminated:
            rows.append(env.reset()[0].tobytes())
    return rows


@pytest.mark.parametrize("game", GAMES)
def test_a_game_is_the_packages_own(game: str) -> None:
    ours, theirs = MinAtar(games=[game], change_every=10**6), minatar.Environment(game)
    ours.reset(seed=3)
    # theirs draws from the stream that the documentation names
    theirs.random = theirs.env.random = np.random.RandomState(np.random.MT19937(np.random.SeedSequence([3, 0])))
    theirs.reset()
    generator, ended, points = np.random.default_rng(0), 0, 0.0
    for _ in range(3_000):
        action = int(generator.integers(6))
        observation, reward, terminated, truncated, _ = ours.step(action)
        expected, over = theirs.act(action)
        assert (reward, terminated, truncated) == (expected, over, False)
        channels = theirs.state_shape()[2]
        np.testing.assert_array_equal(observation[..., :channels], theirs.state())
        assert not observation[..., channels:].any()
        points += reward
        if over:
            ended += 1
            theirs.reset()
            ours.reset()
    assert ended > 0
    assert points > 0 or game in ("freeway", "seaquest")


def test_it_is_a_gymnasium_environment() -> None:
    check_env(MinAtar(change_every=50), skip_render_check=True)
    assert make_environment("MinAtar-v0").observation_space.shape == (10, 10, CHANNELS)


def test_games_follow_each_other_at_the_first_episode_after_a_tasks_end() -> None:
    env = MinAtar(games=["asterix", "seaquest"], change_every=100)
    _, info = env.reset(seed=0)
    seen = [(info["task"], env.game, env.steps)]
    for _ in range(600):
        *_, terminated, _, info = env.step(env.action_space.sample())
        assert info["task"] == env.task == seen[-1][0], "within an episode the game stays"
        if terminated:
            before = env.steps
            _, info = env.reset()
            assert env.task == before // 100
            if env.task != seen[-1][0]:
                seen.append((int(info["task"]), env.game, before))
    assert len(seen) >= 4
    assert all(game == ("asterix", "seaquest")[task % 2] for task, game, _ in seen)


def test_seeds_decide_everything_and_tasks_draw_for_themselves() -> None:
    runs = []
    for seed in (1, 1, 2):
        env = MinAtar(games=["asterix"], change_every=10**6)
        env.reset(seed=seed)
        runs.append(play(env, 300))
    assert runs[0] == runs[1] != runs[2]
    # the second task is the same however the first one was played
    seconds = []
    for first in (0, 1):
        env = MinAtar(games=["space_invaders", "asterix"], change_every=500)
        env.reset(seed=1)
        played = np.random.default_rng(first)
        while env.task == 0:
            if env.step(int(played.integers(6)))[2]:
                env.reset()
        seconds.append(env._random.get_state()[1].tolist())
    assert seconds[0] == seconds[1]


def test_members_and_runs_share_no_stream() -> None:
    words = set()
    for seed in (0, 1, 2):
        for member in member_seeds(seed, 3):
            env = MinAtar(change_every=10)
            env.reset(seed=member)
            for task in range(3):
                env._task = task
                env._begin_task()
                words.add(tuple(env._random.randint(2**31, size=4)))
    assert len(words) == 27


@pytest.mark.parametrize("game", GAMES)
@pytest.mark.parametrize("before", [0, 7, 333])
def test_it_continues_bit_for_bit_from_a_file(tmp_path: Path, game: str, before: int) -> None:
    settings: dict[str, Any] = {"games": [game, "asterix"], "change_every": 200}
    env, other = MinAtar(**settings), MinAtar(**settings)
    env.reset(seed=5)
    play(env, before)
    torch.save(environment_state(env), tmp_path / "state.pt")
    other.reset(seed=9)
    play(other, 50)
    set_environment_state(other, torch.load(tmp_path / "state.pt", weights_only=True))
    assert play(other, 300, seed=1) == play(env, 300, seed=1)


def test_a_state_of_other_games_is_refused() -> None:
    with pytest.raises(ValueError, match=r"state is of games=\['asterix'\], this environment has games=\['seaquest'\]"):
        MinAtar(games=["seaquest"]).load_state_dict(MinAtar(games=["asterix"]).state_dict())


def test_several_of_them_in_a_vector() -> None:
    environment = make_environment(lambda: MinAtar(change_every=100), 2)
    networks = make_q_network(
        environment.single_observation_space,  # type: ignore[union-attr]
        environment.single_action_space,  # type: ignore[union-attr]
        generator=torch.Generator().manual_seed(0),
    )
    collector = EnvironmentCollector(environment, networks, frames=800)
    batch = collector.collect()
    assert batch["observation"].dtype == torch.uint8
    assert batch["observation"].shape == (2, 400, 10, 10, CHANNELS)
    assert not torch.equal(batch["observation"][0], batch["observation"][1])
    assert (collector.world("task") > 0).all()
    collector.shutdown()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"games": ["pong"]}, r"changing.games=\['pong'\]: 'pong' is none of asterix, breakout"),
        ({"games": []}, r"changing.games=\[\]: at least one game is needed"),
        ({"change_every": 0}, "changing.change_every=0: a whole number of at least 1 is needed"),
        ({"sticky_action_prob": 1.5}, r"changing.sticky_action_prob=1.5: a probability in \[0, 1\]"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        MinAtar(**settings)


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "minatar"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "minatar", None)
    with pytest.raises(ImportError, match=r"MinAtar-v0 needs the package minatar: pip install .* '.\[minatar\]'"):
        MinAtar()
