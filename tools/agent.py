"""A reinforcement learning job from its configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from continual_agents.agents import PPO, EnvironmentCollector, make_actor_critic, make_environment, train
from continual_agents.agents.collector import Environment
from continual_agents.methods import Method
from continual_agents.plasticity import Probe
from continual_agents.runs import Run
from tools.figures.folders import method_label
from tools.film import Film


def environment_from(settings: Mapping[str, Any], render_mode: str | None = None) -> Environment:
    """The environment of `experiment.environment`.

    Raises:
        ValueError: an unknown id, or settings the environment refuses.
    """
    import gymnasium

    import envs  # registers the slippery walkers

    name, count = settings["id"], settings["count"]
    walkers = {f"Slippery{robot.title}-v0": robot.name for robot in envs.ROBOTS.values()}
    if name not in walkers:
        try:
            return make_environment(name, count)
        except gymnasium.error.Error as error:
            raise ValueError(f"experiment.environment.id={name}: {error}") from error
    friction = settings["friction"]
    walker = {
        "friction": friction if isinstance(friction, int | float) else envs.FrictionSchedule(**(friction or {})),
        "time_limit": settings["time_limit"],
        "merge_fixed_links": settings["merge_fixed_links"],
    }
    if count > 1:
        return envs.SlipperyVectorEnv(walkers[name], count, **walker)
    return envs.SlipperyAnt(robot=walkers[name], render_mode=render_mode, **walker)


class AgentJob:
    """Everything of one run, built and checked before a file is written.

    Args:
        config: the resolved configuration with `experiment.kind: agent`.

    Attributes:
        steps: environment steps of the run.

    Raises:
        ValueError, TypeError, KeyError: a setting out of range or unknown, naming it.
    """

    def __init__(self, config: Mapping[str, Any]):
        experiment, seed = config["experiment"], config["seed"]
        self.experiment = experiment
        self.method = Method(**config["method"])
        self.steps: int = experiment["steps"]
        if self.steps < 1:
            raise ValueError(f"experiment.steps={self.steps}: at least one environment step")
        # children of one seed: networks, minibatches and surgery draw from streams of their own
        generators = [torch.Generator().manual_seed(seed * 1_000 + offset) for offset in range(1, 4)]
        self.environment = environment_from(experiment["environment"])
        space = self.environment
        networks = make_actor_critic(
            getattr(space, "single_observation_space", space.observation_space),
            getattr(space, "single_action_space", space.action_space),
            generator=generators[0],
            **{**experiment["network"], **self.method.network},
        )
        optimizer = self.method.make_optimizer(networks.parameters())
        operations = self.method.make_operations(networks.bodies, optimizer, generators[2])
        self.ppo = PPO(networks, optimizer, operations, generator=generators[1], **experiment["agent"])
        self.collector = EnvironmentCollector(
            self.environment,
            networks,
            frames=experiment["agent"]["batch"],
            total_frames=experiment["steps"],
            seed=seed,
            clip_actions=experiment["environment"]["clip_actions"],
        )
        self.probe = Probe(networks.bodies)
        self.film = self._film(experiment["environment"]) if config.get("logger", {}).get("video") else None

    def run(self, run: Run) -> None:
        """Train, continuing the run if it was begun."""
        experiment = self.experiment
        train(
            run,
            self.collector,
            self.ppo,
            steps=experiment["steps"],
            probe=self.probe,
            probe_every=experiment["probe"]["every"],
            probe_batch=experiment["probe"]["batch"],
            description=self.method.name,
            film=self.film,
        )

    def _film(self, settings: Mapping[str, Any]) -> Film:
        if np.isnan(self.collector.world("friction")).any():
            raise ValueError(f"logger.video=true films the slippery walkers only, not {settings['id']}")

        def make(friction: float) -> Environment:
            return environment_from({**settings, "count": 1, "friction": friction}, render_mode="rgb_array")

        return Film(self.ppo.networks.policy, make, method_label(self.method.name))

    def close(self) -> None:
        """Close the environment."""
        self.environment.close()
