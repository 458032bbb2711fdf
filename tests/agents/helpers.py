"""What the agents' tests share: an agent of any kind beside its environment, and runs that are the same."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml

from continual_agents.agents import AGENTS, EnvironmentCollector, train
from continual_agents.methods import Method
from continual_agents.runs import Checkpoints, Run, read_checkpoint
from tests.helpers import same_tables
from tools.agent import AgentJob
from tools.jobs import jobs


def make_agent(
    kind: str, environment: Any, network: dict[str, Any], operations: Any = None, *, step_size: float, seed: int = 0,
    **settings: Any,
) -> tuple[EnvironmentCollector, Any]:  # fmt: skip
    """Its collector and its learner; networks, operations and learner draw from generators of their own."""
    generators = [torch.Generator().manual_seed(10 * seed + k) for k in range(3)]
    networks = AGENTS[kind].make_networks(
        getattr(environment, "single_observation_space", environment.observation_space),
        getattr(environment, "single_action_space", environment.action_space),
        generator=generators[0],
        **network,
    )
    method = Method(name="m", optimizer={"kind": "adam", "step_size": step_size}, operations=operations or {})
    optimizer = method.make_optimizer(networks.parameters())
    made = method.make_operations(networks.bodies, optimizer, generators[1])
    agent: Any = AGENTS[kind].learner(networks, optimizer, made, generator=generators[2], **settings)
    return EnvironmentCollector(environment, networks, frames=agent.frames_per_batch, seed=seed), agent


def run_agent(folder: Path, made: tuple, steps: int, **how: Any) -> None:
    """Train a collector's learner in a run folder, or go on with it."""
    collector, learner, *_ = made
    with Run.open(folder, {"seed": 0}) as run:
        train(run, collector, learner, steps=steps, **how)


def run_job(folder: Path, *words: str) -> AgentJob:
    """What `tools.train` does with these words, without its figures."""
    config = jobs([*words, f"folder={folder}"])[0]
    job = AgentJob(config)
    with Run.open(folder, config, bar_position=None, may_change=["experiment.steps"]) as run:
        job.run(run)
    job.close()
    return job


def checkpointed(folder: Path, *words: str, step: int = 512, moved: float = 0.0) -> tuple[dict[str, Any], AgentJob]:
    """A run folder with one checkpoint of an untrained agent, every weight moved by so much."""
    config = jobs(["scale=smoke", f"folder={folder}", *words])[0]
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    job = AgentJob(config)
    with torch.no_grad():
        for parameter in job.learner.networks.parameters():
            parameter.add_(moved)
    Checkpoints(folder / "checkpoints").save(step, {"run": {"learner": job.learner.state_dict()}})
    job.close()
    return config, job


def final(folder: Path) -> dict:
    return read_checkpoint(sorted((folder / "checkpoints").glob("*.pt"))[-1])["state"]["run"]


def stop_and_go_on(folder: Path, go: Callable[[Path, int], object], *stops: int) -> None:
    """Train to the last of `stops` at once and with a stop at each; the tables must be the same bytes."""
    go(folder / "whole", stops[-1])
    for steps in stops:
        go(folder / "parts", steps)
    same_tables(folder / "whole", folder / "parts")


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
