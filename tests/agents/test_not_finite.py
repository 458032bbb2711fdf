"""Numbers that are not finite, and environments that fail: the run stops and says where, or leaves them out."""

import os
import signal
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pandas as pd
import pybullet
import pytest
import torch
from gymnasium.spaces import Box
from gymnasium.vector import AsyncVectorEnv, AutoresetMode

import envs
from continual_agents.agents import EnvironmentFault, NotFiniteError, train
from continual_agents.runs import Run
from tests.agents.test_training import make
from tests.helpers import refusal

SETTINGS = {"batch": 32, "minibatch": 8, "epochs": 2, "hidden": [8]}


class Sometimes(gymnasium.Env[np.ndarray, np.ndarray]):
    """Gives what it is told to at one step of its life: a number that is not finite, or an error."""

    observation_space = Box(-1.0, 1.0, (2,), np.float32)
    action_space = Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, what: str, when: int = 40):
        self.what, self.when, self.steps = what, when, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        return self.np_random.uniform(-1, 1, 2).astype(np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        if not np.isfinite(action).all():
            raise ValueError("what an action")
        self.steps += 1
        observation, reward = self.np_random.uniform(-1, 1, 2).astype(np.float32), 1.0
        if self.steps == self.when:
            if self.what == "error":
                raise RuntimeError("the simulator\nhas left")
            if self.what == "observation":
                observation[1] = np.nan
            if self.what == "reward":
                reward = np.inf
        return observation, reward, False, False, {}


def run_with(folder: Path, environment: Any, steps: int = 160, then: str = "stop") -> None:
    collector, ppo, probe = make(environment, on_not_finite=then, **SETTINGS)
    collector.on_not_finite = then
    with Run.open(folder, {}, save_seconds=0) as run:
        train(run, collector, ppo, steps=steps, probe=probe, probe_every=2)


@pytest.mark.parametrize("what", ["observation", "reward"])
def test_batch_with_a_broken_number_stops_the_run_or_is_left_out_and_counted(tmp_path: Path, what: str) -> None:
    message = f"gave a {what} that is not finite at environment step 40: .* The last good checkpoint of .*: step 32"
    with pytest.raises(NotFiniteError, match=message):
        run_with(tmp_path / "stop", Sometimes(what))
    run_with(tmp_path / "skip", Sometimes(what), then="skip")
    metrics = pd.read_csv(tmp_path / "skip/metrics.csv")
    assert metrics["optimizer/skipped_steps"].tolist() == [0, 8, 0, 0, 0]
    assert metrics["loss/value"].notna().tolist() == [True, False, True, True, True]
    # the episode ends where the simulation broke; a reward that is no number counts for nothing
    episodes = pd.read_csv(tmp_path / "skip/episodes.csv")
    assert episodes[["length", "return"]].values.tolist() == [[40, 40.0 if what == "observation" else 39.0]]


@pytest.mark.parametrize("what", ["observation", "reward"])
def test_first_batch_that_is_left_out_has_every_column(tmp_path: Path, what: str) -> None:
    run_with(tmp_path, Sometimes(what, 10), then="skip")
    metrics = pd.read_csv(tmp_path / "metrics.csv")
    assert metrics["optimizer/skipped_steps"].tolist() == [8, 0, 0, 0, 0]
    assert (metrics["optimizer/update_norm"] > 0).tolist() == [False, True, True, True, True]


def test_vector_environment_ends_the_member_that_broke(tmp_path: Path) -> None:
    environment = gymnasium.vector.SyncVectorEnv(
        [lambda: Sometimes("observation", 20), lambda: Sometimes("none")], autoreset_mode=AutoresetMode.DISABLED
    )
    run_with(tmp_path, environment, then="skip")
    assert pd.read_csv(tmp_path / "episodes.csv")[["step", "length"]].values.tolist() == [[40, 20]]
    assert pd.read_csv(tmp_path / "metrics.csv")["optimizer/skipped_steps"].tolist() == [0, 8, 0, 0, 0]


def test_skipped_gradient_step_leaves_no_trace_in_weights_or_surgery() -> None:
    collector, ppo, _ = make(Sometimes("none"), on_not_finite="skip", **SETTINGS)
    batch = collector.collect()
    ppo.estimate(batch)
    flat = batch.select("observation", "action", "action_log_prob", "advantage", "value_target").clone()
    good, bad = flat[:8], flat[8:16]
    bad["advantage"][3] = torch.nan
    assert ppo._gradient_step(good, bad) is not None
    surgeon = ppo.operations[0]
    before = [p.detach().clone() for p in ppo.networks.parameters()]
    utilities = [layer.utility.clone() for layer in surgeon.layers]
    assert ppo._gradient_step(bad, good) is None
    assert not any(watch._records for layer in surgeon.layers for watch in layer.watches)
    assert all(torch.equal(p, q) for p, q in zip(ppo.networks.parameters(), before, strict=True))
    assert all(torch.equal(layer.utility, u) for layer, u in zip(surgeon.layers, utilities, strict=True))
    assert (ppo.gradient_steps, surgeon.steps) == (1, 1)


def test_only_the_minibatches_that_hold_it_are_skipped(tmp_path: Path) -> None:
    collector, ppo, _ = make(Sometimes("none"), on_not_finite="skip", **SETTINGS)
    batch = collector.collect()
    batch["action_log_prob"][5] = -torch.inf
    metrics = ppo.update(batch)
    assert metrics["optimizer/skipped_steps"] == 2  # one minibatch in each of two epochs
    assert ppo.gradient_steps == 6
    assert all(torch.isfinite(p).all() for p in ppo.networks.parameters())
    assert all(torch.isfinite(layer.utility).all() for layer in ppo.operations[0].layers)


def test_skipping_does_not_hide_weights_that_are_gone() -> None:
    collector, ppo, _ = make(Sometimes("none"), on_not_finite="skip", **SETTINGS)
    batch = collector.collect()
    ppo.networks.bodies["critic"][2].weight.data[0, 0] = torch.inf
    with pytest.raises(NotFiniteError, match=r"gradient step 0 .*first weight: critic.2.weight"):
        ppo.update(batch)


def test_policy_without_finite_actions_is_named_before_its_environment() -> None:
    environment = Sometimes("none")
    collector, ppo, _ = make(environment, **SETTINGS)
    ppo.networks.bodies["actor"][0].weight.data[:] = torch.nan
    with pytest.raises(NotFiniteError, match="the policy gave an action that is not finite at environment step 1: its"):
        collector.collect()


def test_environment_that_fails_is_named_with_the_step_and_the_last_checkpoint(tmp_path: Path) -> None:
    message = (
        "the environment Sometimes failed at environment step 40: RuntimeError: the simulator has left. "
        f"The last good checkpoint of {tmp_path}: step 32"
    )
    assert refusal(EnvironmentFault, run_with, tmp_path, Sometimes("error")) == message


def test_simulator_that_dies_in_a_vector_environment_is_named(tmp_path: Path) -> None:
    environment = envs.SlipperyVectorEnv("ant", 2, friction=1.0)
    collector, ppo, _ = make(environment, **SETTINGS)
    with Run.open(tmp_path, {}, save_seconds=0) as run:
        train(run, collector, ppo, steps=64)
        pybullet.disconnect(environment._walkers[1].world.client)
        message = "SlipperyVectorEnv failed at environment step 66: error: .*server.* The last good checkpoint of .* 64"
        run.state = None
        with pytest.raises(EnvironmentFault, match=message):
            train(run, collector, ppo, steps=128)


def test_worker_process_of_a_vector_environment_that_dies_is_an_error_not_a_hang() -> None:
    environment = AsyncVectorEnv(
        [lambda: Sometimes("none"), lambda: Sometimes("none")], autoreset_mode=AutoresetMode.DISABLED, context="spawn"
    )
    collector, _, _ = make(environment, **SETTINGS)
    collector.collect()
    os.kill(environment.processes[1].pid, signal.SIGKILL)
    environment.processes[1].join()
    with pytest.raises(EnvironmentFault, match="the environment AsyncVectorEnv failed at environment step 34: "):
        collector.collect()
    environment.close(terminate=True)


def test_option_takes_two_words() -> None:
    with pytest.raises(ValueError, match="agent.on_not_finite=carry on: stop or skip"):
        make(Sometimes("none"), on_not_finite="carry on", **SETTINGS)
