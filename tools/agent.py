"""A reinforcement learning job from its configuration."""

import math
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from continual_agents.agents import AGENTS, EnvironmentCollector, fit_spaces, make_environment, rescale_actions, train
from continual_agents.agents.collector import Environment
from continual_agents.agents.draws import Draw, generator_of
from continual_agents.agents.spaces import is_picture, lost_by_clipping
from continual_agents.methods import Method
from continual_agents.networks import ConvNet, mlp
from continual_agents.networks.conv import Pixels, conv_of, features_of, kernels_of
from continual_agents.plasticity import Probe
from continual_agents.runs import Run
from continual_agents.settings import check_counts, check_settings, check_types, nearest, written
from tools.figures.folders import method_label
from tools.film import Film
from tools.memory import COPIES, ENVIRONMENT, WALKER, check_memory, weights

TYPES: dict[str, dict[str, Any]] = {
    "": {"name": str, "steps": int},
    "environment": {
        "id": str,
        "count": int,
        "clip_actions": bool,
        "rescale_actions": bool,
        "friction": float | Mapping[str, Any] | None,
        "time_limit": int | None,
        "merge_fixed_links": bool | None,
        "changing": Mapping[str, Any] | None,
    },
    "probe": {"every": int, "batch": int},
}
"""What the experiment's own keys hold; those of its other groups are checked against what takes them."""


def environment_from(settings: Mapping[str, Any], render_mode: str | None = None) -> Environment:
    """The environment of `experiment.environment`.

    Raises:
        ValueError: an unknown id, or settings the environment refuses.
    """
    made = _environment_from(settings, render_mode)
    if not settings.get("rescale_actions"):
        return made
    try:
        return rescale_actions(made)
    except ValueError as error:
        made.close()
        raise ValueError(f"experiment.environment.rescale_actions=true: {error}") from error


def _environment_from(settings: Mapping[str, Any], render_mode: str | None) -> Environment:
    import gymnasium

    import envs  # registers the slippery walkers

    name, count = settings["id"], settings["count"]
    if count < 1:
        raise ValueError(f"experiment.environment.count={count}: at least one environment is needed")
    walkers = {f"Slippery{robot.title}-v0": robot.name for robot in envs.ROBOTS.values()}
    check_memory(f"experiment.environment.count={count}", count * (WALKER if name in walkers else ENVIRONMENT))
    if name not in walkers:

        def one() -> Environment:
            if name == "MinAtar-v0":
                return games_from(settings)
            made = make_environment(name, render_mode=render_mode)
            try:
                made = fit_spaces(made)  # type: ignore[arg-type]
            except ValueError as error:
                made.close()
                raise ValueError(f"experiment.environment.id={name}: {error}") from error
            return changing_from(made, settings) if settings["changing"] else made

        try:
            made = one() if count == 1 else make_environment(one, count)
        except gymnasium.error.Error as error:
            raise ValueError(f"experiment.environment.id={name}: {error}") from error
        for key in ("friction", "time_limit", "merge_fixed_links"):
            if settings[key] is not None:
                made.close()
                given = f"experiment.environment.{key}={written(settings[key])}"
                raise ValueError(f"{given}: only the slippery walkers have it, give null for {name}")
        return made
    friction = settings["friction"]
    if isinstance(friction, Mapping):
        check_settings("experiment.environment.friction", friction, envs.FrictionSchedule)
    try:
        walker = {
            "friction": friction if isinstance(friction, int | float) else envs.FrictionSchedule(**(friction or {})),
            "time_limit": settings["time_limit"],
            "merge_fixed_links": bool(settings["merge_fixed_links"]),
        }
        if count > 1:
            if settings["changing"]:
                raise ValueError(f"environment.changing works with environment.count=1 only for {name}")
            return envs.SlipperyVectorEnv(walkers[name], count, **walker)
        made = envs.SlipperyAnt(robot=walkers[name], render_mode=render_mode, **walker)
        return changing_from(made, settings) if settings["changing"] else made
    except ValueError as error:
        raise ValueError(f"experiment.environment: {error}") from error


def changing_from(environment: Environment, settings: Mapping[str, Any]) -> Environment:
    """The environment behind the changing observations of `experiment.environment.changing`."""
    import envs

    where = "experiment.environment.changing"
    check_settings(where, settings["changing"], envs.ChangingObservation)
    if "change_every" not in settings["changing"]:
        raise ValueError(f"{where}.change_every is missing: environment steps of a task")
    try:
        return envs.ChangingObservation(environment, **settings["changing"])  # type: ignore[arg-type]
    except ValueError as error:
        environment.close()
        raise ValueError(f"experiment.environment.{error}") from error


def games_from(settings: Mapping[str, Any]) -> Environment:
    """MinAtar's games, changing as `experiment.environment.changing` says.

    Raises:
        ValueError: settings that it refuses.
        ImportError: its package is not installed.
    """
    import envs

    changing = settings["changing"] or {}
    check_settings("experiment.environment.changing", changing, envs.MinAtar, to="MinAtar-v0")
    try:
        return envs.MinAtar(**changing)
    except ValueError as error:
        raise ValueError(f"experiment.environment.{error}") from error


def check_experiment(experiment: Mapping[str, Any]) -> None:
    """Types and ranges of what no constructor takes.

    Raises:
        ValueError: a value of another type or out of range.
    """
    for group, kinds in TYPES.items():
        settings = experiment[group] if group else experiment
        where = f"experiment.{group}" if group else "experiment"
        if not isinstance(settings, Mapping):
            raise ValueError(f"{where}={written(settings)}: settings by name are needed, as {where}.NAME=VALUE")
        check_types(where, settings, kinds)
    agent = experiment["agent"]
    if isinstance(agent, Mapping) and agent.get("kind") not in AGENTS:
        raise ValueError(
            f"experiment.agent.kind={agent.get('kind')} is unknown{nearest(str(agent.get('kind')), AGENTS)}"
        )
    settings = {key: value for key, value in agent.items() if key != "kind"} if isinstance(agent, Mapping) else agent
    learner = AGENTS[agent["kind"] if isinstance(agent, Mapping) else "ppo"].learner
    check_settings("experiment.agent", settings, learner, given=("generator",))
    check_settings("experiment.network", experiment["network"], mlp, ConvNet, given=("generator",))
    check_counts("experiment", steps=experiment["steps"])
    check_counts("experiment.probe", **{key: experiment["probe"][key] for key in ("every", "batch")})


class AgentJob:
    """Everything of one run, built and checked before a file is written.

    Args:
        config: the resolved configuration with `experiment.kind: agent`.

    Attributes:
        steps: environment steps of the run.
        gradient_steps: about as many of them, the first random frames included; 0: the learner does not say.
        methods: its one method by name.

    Raises:
        ValueError, TypeError, KeyError: a setting out of range or unknown, naming it.
    """

    def __init__(self, config: Mapping[str, Any]):
        experiment, seed = config["experiment"], config["seed"]
        check_experiment(experiment)
        if config["device"] != "cpu":
            raise ValueError(
                f"device={config['device']}: agents run on the CPU, where networks of this size are faster"
            )
        self.experiment = experiment
        self.method = Method.of(config["method"])
        self.methods = {self.method.name: self.method}
        check_settings(f"method {self.method.name}: network", self.method.network, mlp, given=("generator",))
        self.steps: int = experiment["steps"]
        self.environment = environment_from(experiment["environment"])
        try:
            self._build(seed)
            self.film = self._film(experiment["environment"]) if config.get("logger", {}).get("video") else None
        except BaseException:
            self.close()
            raise

    def _build(self, seed: int) -> None:
        """Networks, optimizer, operations, learner, collector and probe."""
        experiment, space = self.experiment, self.environment
        network = {**experiment["network"], **self.method.network}
        if not network["hidden"]:
            raise ValueError("network.hidden=[]: an agent needs a hidden layer, it is its units that are looked after")
        self._check_memory(network)
        settings = dict(experiment["agent"])
        agent = AGENTS[settings.pop("kind")]
        networks = agent.make_networks(
            getattr(space, "single_observation_space", space.observation_space),
            getattr(space, "single_action_space", space.action_space),
            generator=generator_of(seed, Draw.NETWORKS),
            **network,
        )
        optimizer = self.method.make_optimizer(networks.parameters())
        operations = self.method.make_operations(networks.bodies, optimizer, generator_of(seed, Draw.OPERATIONS))
        self.learner = agent.learner(
            networks, optimizer, operations, generator=generator_of(seed, Draw.LEARNER), **settings
        )
        lost = lost_by_clipping(getattr(space, "single_action_space", space.action_space))
        if lost and networks.policy.logs_probability and experiment["environment"]["clip_actions"]:
            warnings.warn(f"{lost}; environment.rescale_actions=true uses the whole range", stacklevel=2)
        self.collector = EnvironmentCollector(
            self.environment,
            networks,
            frames=self.learner.frames_per_batch,
            total_frames=experiment["steps"],
            seed=seed,
            clip_actions=experiment["environment"]["clip_actions"],
            on_not_finite=settings["on_not_finite"],
        )
        self.probe = Probe(networks.bodies)
        batches = -(-self.steps // self.learner.frames_per_batch)
        self.gradient_steps = batches * self.learner.steps_per_batch

    def _check_memory(self, network: Mapping[str, Any]) -> None:
        """Whether two such networks and a batch of observations fit."""
        space = getattr(self.environment, "single_observation_space", self.environment.observation_space)
        inputs = int(np.prod(space.shape or (1,)))
        seen, size = inputs, 4 * inputs  # numbers that the first full layer reads, bytes of an observation
        if is_picture(space):
            shape = Pixels(space.shape or (), 1).seen
            conv = conv_of(network.get("conv"), shape)
            seen, size = features_of(conv, shape), inputs
            kernels = sum(map(math.prod, kernels_of(conv, shape)))
            check_memory(f"network.conv={written(conv)}", 2 * 4 * COPIES * kernels)
        hidden = network["hidden"]
        check_memory(f"network.hidden={written(hidden)}", 2 * 4 * COPIES * weights(seen, hidden, 1))
        agent = self.experiment["agent"]
        kept = {key: agent.get(key) for key in ("batch", "frames_per_batch")}
        buffer = agent.get("replay_buffer") or {}
        if buffer.get("storage") != "memmap":
            kept["replay_buffer.size"] = buffer.get("size")
        for key, steps in kept.items():
            if isinstance(steps, int):  # an observation and its successor, the action and the rest; and a copy
                check_memory(f"agent.{key}={steps}", steps * (2 * size + 80) * 2)

    def run(self, run: Run) -> None:
        """Train, continuing the run if it was begun."""
        experiment = self.experiment
        train(
            run,
            self.collector,
            self.learner,
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

        return Film(self.learner.networks.policy, make, method_label(self.method.name))

    def close(self) -> None:
        """Close the environment."""
        self.environment.close()
