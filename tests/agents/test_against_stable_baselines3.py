"""DQN and SAC learn what stable-baselines3's learn at the same settings."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from stable_baselines3 import DQN as OtherDQN
from stable_baselines3 import SAC as OtherSAC
from stable_baselines3.common.monitor import Monitor

import envs  # noqa: F401  # registers SlipperyAnt-v0
from continual_agents.agents import train
from continual_agents.runs import Run
from tests.agents.test_off_policy import make

SEEDS = (0, 1)
MORE_SEEDS = (0, 1, 2, 3, 4, 5)
HIDDEN = [64, 64]


def ours(folder: Path, kind: str, seed: int, steps: int, whole: bool = False, **settings: Any) -> float:
    """Mean return of the last ten episodes; of all with `whole`."""
    collector, agent = make(kind, step_size=1e-3, seed=seed, hidden=HIDDEN, **settings)
    with Run.open(folder / f"{seed}", {"seed": seed}, bar_position=None) as run:
        train(run, collector, agent, steps=steps)
    rows = (folder / f"{seed}/episodes.csv").read_text().splitlines()[1:]
    return float(np.mean([float(row.split(",")[1]) for row in (rows if whole else rows[-10:])]))


def theirs(kind: Any, source: Any, seed: int, steps: int, whole: bool = False, **settings: Any) -> float:
    """The same of stable-baselines3."""
    environment = Monitor(source)
    kind(
        "MlpPolicy", environment, learning_rate=1e-3, learning_starts=1_000, seed=seed, device="cpu",
        policy_kwargs={"net_arch": HIDDEN}, **settings,
    ).learn(steps)  # fmt: skip
    returns = environment.get_episode_rewards()
    return float(np.mean(returns if whole else returns[-10:]))


SAME: dict[str, tuple[Any, dict[str, Any], dict[str, Any]]] = {
    "dqn": (
        OtherDQN,
        {"batch_size": 64, "hard_update_freq": 250, "double": False, "annealing_frames": 3_000, "eps_end": 0.04},
        {"batch_size": 64, "target_update_interval": 250, "exploration_final_eps": 0.04},
    ),
    "sac": (
        OtherSAC,
        {"batch_size": 128, "target_update_polyak": 0.995, "alpha_step_size": 1e-3},
        {"batch_size": 128, "tau": 0.005},
    ),
}
"""Their class, our settings and theirs, which say the same."""


def beside(
    folder: Path, kind: str, make_source: Callable[[], Any], steps: int, size: int, seeds: Sequence[int] = SEEDS,
    whole: bool = False, **other: Any,
) -> tuple[list[float], list[float], str]:  # fmt: skip
    """Ours and theirs, and both in words, a number a seed: `pytest -rP` shows them where the test passes."""
    torch.set_num_threads(1)
    agent, own, same = SAME[kind]
    own = own | {"init_random_frames": 1_000, "replay_buffer": {"size": size}, "log_interval": 1_000}
    other |= same | {"buffer_size": size, "train_freq": 10, "gradient_steps": 10}
    mine = [ours(folder, kind, seed, steps, whole, source=make_source(), **own) for seed in seeds]
    reference = [theirs(agent, make_source(), seed, steps, whole, **other) for seed in seeds]
    said = "; ".join(
        f"{name} {np.mean(values):.1f} ({', '.join(f'{value:.0f}' for value in values)})"
        for name, values in (("ours", mine), ("stable-baselines3", reference))
    )
    print(said)
    return mine, reference, said


CASES: dict[str, tuple[Any, ...]] = {
    # random play gives about -1200; both swing it up within 5,000 steps
    "sac Pendulum-v1": (5_000, 10_000, -350, 1.0, 100, {}),
    # random play keeps the pole up for 22 steps. The mean over a whole run differs by 15 or so between seeds, that of
    # its last ten episodes by 80; with LeCun's weights and zero biases ours was four fifths of theirs, and theirs too
    "dqn CartPole-v1": (
        *(20_000, 20_000, 60, 0.85, 0),
        {"seeds": MORE_SEEDS, "whole": True, "exploration_fraction": 0.15},
    ),
    # random play needs all of its 500 steps; theirs differ by 70 from seed to seed
    "dqn Acrobot-v1": (15_000, 20_000, -300, 1.0, 70, {"exploration_fraction": 0.2}),
    # on one friction: drawn ones would differ, for their seeds are spread in different ways. Seeds differ by 180, in
    # both: six of them are 208 and 248 on average (docs/agents.md)
    "sac SlipperyAnt-v0": (15_000, 20_000, 0, 1.0, 150, {}),
}
"""Steps, size of the buffer, what each seed exceeds, which share of their mean ours exceeds less what, and the rest."""


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("case", CASES)
def test_it_learns_what_theirs_learns(tmp_path: Path, case: str) -> None:
    steps, size, least, share, less, more = CASES[case]
    kind, name = case.split()
    world = {"friction": 1.2} if name == "SlipperyAnt-v0" else {}
    mine, reference, said = beside(tmp_path, kind, lambda: gymnasium.make(name, **world), steps, size, **more)
    assert min(mine) > least, said
    assert np.mean(mine) > share * np.mean(reference) - less, said
