"""A trained policy out of its run folder, and what it is worth."""

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from continual_agents.networks import ConvNet, RecurrentBody, mlp
from continual_agents.networks.conv import Pixels, conv_of, features_of, kernels_of
from continual_agents.runs import Checkpoints, RunError, read_configuration
from continual_agents.settings import written

from .exploration import EpsilonGreedyPolicy, TanhGaussianPolicy
from .policies import CategoricalPolicy, GaussianPolicy, Policy
from .recurrent_policy import RecurrentPolicy


class TrainedPolicy:
    """A policy that acts on plain arrays.

    Args:
        policy: put into evaluation mode.
        step: environment steps that it was trained for.
        seed: of sampled actions.
    """

    def __init__(self, policy: Policy, step: int = 0, seed: int = 0):
        self.policy, self.step = policy.eval(), step
        self._generator = torch.Generator().manual_seed(seed)

    def begin(self) -> None:
        """A new episode begins: a recurrent policy forgets the last one."""
        self.policy.begin()

    @torch.no_grad()
    def act(self, observation: Any, *, sample: bool = False) -> Any:
        """The action for an observation `[observation]` or a picture, or actions for a batch of them.

        Args:
            observation: as the environment gives it.
            sample: draw as in training; otherwise the mean, likeliest or best action.

        Returns:
            NumPy, as `environment.step` takes it; in the range in which the agent acted: from -1 to 1 if it was trained
            with `rescale_actions` or SAC.
        """
        rows = torch.as_tensor(np.asarray(observation, dtype=np.float32))
        noise = self.policy.draw_noise(rows.shape[: -self.policy.observed], self._generator)
        action = self.policy.act(rows, noise if sample else torch.zeros_like(noise)).numpy()
        return action if action.ndim else action[()]


def load_policy(run_folder: str | Path) -> TrainedPolicy:
    """The policy of the newest good checkpoint of a reinforcement learning run; no environment is made.

    Args:
        run_folder: as `python -m tools.train` or `train` wrote it.

    Raises:
        RunError: no such run, no checkpoint yet, or one that does not fit its configuration.

    Example:
        >>> policy = load_policy("runs/slippery_ant/demo/ppo/seed_0")
        >>> action = policy.act(observation)
    """
    folder = Path(run_folder)
    if not (folder / "config.yaml").is_file() or not (folder / "checkpoints").is_dir():
        raise RunError(f"{folder} is no run folder with a checkpoint: config.yaml or checkpoints/ is missing")
    config = read_configuration(folder / "config.yaml")
    content = Checkpoints(folder / "checkpoints").load(damage=damage_of_policy)
    if content is None:
        raise RunError(f"{folder} has no checkpoint yet: the run saves its first one after a while")
    try:
        experiment = config["experiment"]
        network = {**experiment["network"], **config["method"].get("network", {})}
        policy = policy_of(experiment["agent"]["kind"], network, content["state"]["run"]["learner"])
    except (KeyError, TypeError, ValueError, RuntimeError, IndexError, AttributeError) as error:
        said = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise RunError(f"{folder} holds no policy that fits its config.yaml ({said})") from error
    return TrainedPolicy(policy, int(content["step"]))


def damage_of_policy(content: dict[str, Any]) -> str | None:
    """Why a checkpoint holds no policy; None if it does, as far as its tree tells."""
    state = content["state"]
    run = state.get("run") if isinstance(state, dict) else None
    if not isinstance(run, dict) or not isinstance(run.get("learner"), dict):
        return "it holds no policy"
    return None if isinstance(content["step"], int) else "its step is no count"


def policy_of(kind: str, network: Mapping[str, Any], state: Mapping[str, Any]) -> Policy:
    """The policy of a learner's state; what its environment looks like is read from the weights' shapes.

    Args:
        kind: of agent, a key of `AGENTS`.
        network: settings of `make_body`.
        state: `Learner.state_dict()`.
    """
    if kind == "recurrent_ppo":
        return _recurrent(network, state)
    whole = state["actor"] if kind == "ppo" else state["bodies"]["q" if kind == "dqn" else "actor"]
    body = {name.removeprefix("body."): value for name, value in whole.items() if name != "log_std"}
    net = _body(network, body)
    net.load_state_dict(body)
    if kind == "dqn":
        return EpsilonGreedyPolicy(net)
    if kind == "sac":
        return TanhGaussianPolicy(net)
    if "log_std" not in whole:
        return CategoricalPolicy(net)
    policy = GaussianPolicy(net)
    policy.load_state_dict({**{f"body.{name}": value for name, value in body.items()}, "log_std": whole["log_std"]})
    return policy


def _body(network: Mapping[str, Any], weights: Mapping[str, Any]) -> nn.Sequential:
    """The network of these weights, as `make_body` made it."""
    matrices = [value for name, value in weights.items() if name.endswith("weight") and value.dim() == 2]
    # the configuration may be a stranger's, and ask for layers that no machine holds; concatenated ReLU doubles inputs
    asked = sum(one * other for one, other in itertools.pairwise([matrices[0].shape[1], *network["hidden"]]))
    if asked > 4 * sum(value.numel() for value in matrices):
        raise ValueError(f"network.hidden={written(network['hidden'])} is not of these weights")
    outputs = matrices[-1].shape[0]
    if "0._extra_state" not in weights:
        plain = {name: value for name, value in network.items() if name != "conv"}
        return mlp(matrices[0].shape[1], outputs, generator=torch.Generator(), **plain)
    *shape, highest = weights["0._extra_state"].tolist()
    seen = Pixels(shape, highest).seen
    conv = conv_of(network.get("conv"), seen)
    kernels = [tuple(value.shape) for value in weights.values() if value.dim() == 4]
    if kernels_of(conv, seen) != kernels or features_of(conv, seen) != matrices[0].shape[1]:
        raise ValueError(f"network.conv={written(conv)} is not of these weights")
    return ConvNet(shape, highest, outputs, generator=torch.Generator(), **network)


def _recurrent(network: Mapping[str, Any], state: Mapping[str, Any]) -> RecurrentPolicy:
    weights = state["bodies"]["actor"]
    inputs, outputs = weights["embed.weight"].shape[1], len(weights["head.weight"])
    plain = {name: value for name, value in network.items() if name not in ("norm", "dropout")}
    body = RecurrentBody(inputs, outputs, generator=torch.Generator(), **plain)
    body.load_state_dict(weights)
    policy = RecurrentPolicy(body, gaussian="log_std" in state["own"])
    with torch.no_grad():
        for name, parameter in policy.named_parameters(recurse=False):
            parameter.copy_(state["own"][name])
    return policy


def evaluate(
    policy: TrainedPolicy, environment: Any, *, episodes: int, seed: int = 0, sample: bool = False, limit: int = 100_000
) -> list[float]:
    """Returns of whole episodes.

    Args:
        policy: what acts.
        environment: one gymnasium environment; closed by the caller.
        episodes: how many, at least 1.
        seed: of the first episode; the others follow in the same life.
        sample: draw actions as in training.
        limit: steps after which an episode that does not end is taken as it is.
    """
    if episodes < 1:
        raise ValueError(f"episodes={episodes}: at least 1")
    returns = []
    observation, _ = environment.reset(seed=seed)
    for _ in range(episodes):
        policy.begin()
        total = 0.0
        for _ in range(limit):
            observation, reward, terminated, truncated, _ = environment.step(policy.act(observation, sample=sample))
            total += float(np.asarray(reward).item())
            if terminated or truncated:
                break
        returns.append(total)
        observation, _ = environment.reset()
    return returns
