"""The loop: exact continuation with the simulator and surgery included, and learning."""

from pathlib import Path
from typing import Any

import pytest
import torch

import envs
from continual_agents.agents import PPO, EnvironmentCollector, make_actor_critic, make_environment, train
from continual_agents.methods import Method
from continual_agents.plasticity import Probe
from continual_agents.runs import Run, read_checkpoint

SURGERY = {"continual_backprop": {"rate": 1e-2, "maturity": 10, "birth": "lecun_uniform"}, "perturb": {"noise": 1e-5}}


def make(environment: Any, seed: int = 0, operations: Any = None, step_size: float = 3e-4, **agent: Any) -> tuple:
    generators = [torch.Generator().manual_seed(seed + k) for k in range(3)]
    networks = make_actor_critic(
        environment.observation_space, environment.action_space, hidden=[64, 64], generator=generators[0]
    )
    method = Method(
        name="cbp",
        optimizer={"kind": "adam", "step_size": step_size},
        operations=SURGERY if operations is None else operations,
    )
    optimizer = method.make_optimizer(networks.parameters())
    made = method.make_operations(networks.bodies, optimizer, generators[1])
    ppo = PPO(networks, optimizer, made, generator=generators[2], **agent)
    collector = EnvironmentCollector(environment, networks, frames=agent["batch"], seed=seed)
    return collector, ppo, Probe(networks.bodies)


def slippery() -> envs.SlipperyAnt:
    return envs.SlipperyAnt(friction=envs.FrictionSchedule(change_every=150), time_limit=60)


def go(folder: Path, steps: int) -> None:
    environment = slippery()
    collector, ppo, probe = make(environment, batch=128, minibatch=32, epochs=2)
    with Run.open(folder, {"seed": 0}) as run:
        train(run, collector, ppo, steps=steps, probe=probe, probe_every=3)
    environment.close()


def final(folder: Path) -> dict:
    return read_checkpoint(sorted((folder / "checkpoints").glob("*.pt"))[-1])["state"]["run"]


def equal(a: Any, b: Any, path: str = "") -> None:
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), path
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), path
        for key in a:
            equal(a[key], b[key], f"{path}/{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), path
        for index, (x, y) in enumerate(zip(a, b, strict=True)):
            equal(x, y, f"{path}/{index}")
    else:
        assert a == b, path


def test_stopped_run_continues_bit_for_bit(tmp_path: Path) -> None:
    go(tmp_path / "whole", 1280)
    for steps in (384, 512, 1280):  # stopped twice, in the middle of episodes, friction segments and probe periods
        go(tmp_path / "parts", steps)
    for table in ("metrics.csv", "episodes.csv"):
        assert (tmp_path / "whole" / table).read_bytes() == (tmp_path / "parts" / table).read_bytes()
    a, b = final(tmp_path / "whole"), final(tmp_path / "parts")
    # the simulator's own file may hold addresses; what it continues to is compared by everything above
    a["collector"].pop("environment"), b["collector"].pop("environment")
    equal(a, b)
    text = (tmp_path / "whole/metrics.csv").read_text()
    for column in ("return/mean", "task/friction", "plasticity/dead_units", "surgery/replaced", "surgery/eligible"):
        assert column in text.splitlines()[0].split(",")


def test_surgery_replaces_units_of_both_networks_while_training(tmp_path: Path) -> None:
    environment = make_environment("Pendulum-v1")
    collector, ppo, probe = make(environment, batch=256, minibatch=32, epochs=4)
    with Run.open(tmp_path, {"seed": 0}) as run:
        train(run, collector, ppo, steps=1024, probe=probe)
    report = ppo.operations[0].report()
    assert report["replaced/actor.0"] > 0
    assert report["replaced/critic.2"] > 0


def learn(tmp_path: Path, name: str, steps: int, step_size: float, **agent: Any) -> float:
    environment = make_environment(name)
    collector, ppo, _ = make(environment, step_size=step_size, operations={}, **agent)
    with Run.open(tmp_path, {"seed": 0}) as run:
        train(run, collector, ppo, steps=steps)
    rows = (tmp_path / "episodes.csv").read_text().splitlines()[1:]
    returns = [float(row.split(",")[1]) for row in rows]
    return sum(returns[-20:]) / 20


def test_learns_to_balance_a_pole(tmp_path: Path) -> None:
    # a random policy keeps the pole up for about 22 steps
    assert learn(tmp_path, "CartPole-v1", 20_480, 1e-3, batch=1024, minibatch=64, epochs=10) > 150


@pytest.mark.slow
def test_solves_cartpole(tmp_path: Path) -> None:
    """Its reward threshold is 475."""
    assert learn(tmp_path, "CartPole-v1", 102_400, 1e-3, batch=1024, minibatch=64, epochs=10) > 475


@pytest.mark.slow
def test_swings_up_the_pendulum(tmp_path: Path) -> None:
    """Random play gives about -1200 an episode; a solved pendulum -150 to -250."""
    result = learn(tmp_path, "Pendulum-v1", 204_800, 1e-3, batch=2048, minibatch=64, epochs=10, discount=0.9)
    assert result > -300
