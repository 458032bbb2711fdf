"""Recurrent PPO: sequences against steps one by one, memories across batches and resets, surgery on the GRU's units."""

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from torch import Tensor

from continual_agents.agents import EnvironmentCollector, make_environment
from continual_agents.agents.recurrent_policy import make_recurrent_actor_critic
from continual_agents.agents.recurrent_ppo import RecurrentPPO
from continual_agents.networks import RecurrentBody
from continual_agents.plasticity import Probe
from tests.agents.helpers import equal, final, make_agent, run_agent, run_job, stop_and_go_on

SURGERY = {"continual_backprop": {"rate": 2e-2, "maturity": 5}}


def one_by_one(body: RecurrentBody, observation: Tensor, state: Tensor, first: Tensor) -> Tensor:
    """The slow twin of `unroll`, by torch's own GRU cell with the same weights."""
    cell = torch.nn.GRUCell(body.memory.input_size, body.width)
    names = {"weight_ih": "weight_ih_l0", "weight_hh": "weight_hh_l0", "bias_ih": "bias_ih_l0", "bias_hh": "bias_hh_l0"}
    own = {name: getattr(body.memory, there) for name, there in names.items()}
    seen = []
    for t in range(first.shape[1]):
        state = torch.where(first[:, t, None], torch.zeros_like(state), state)
        x = torch.relu(body.embed(observation[:, t]))
        state = torch.func.functional_call(cell, own, (x, state))
        seen.append(state)
    return torch.stack(seen, 1)


def body_of(seed: int = 0) -> RecurrentBody:
    return RecurrentBody(3, 2, hidden=[5, 7], generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("share", [0.0, 0.2, 1.0])
def test_unrolling_is_stepping_one_by_one_with_its_gradients(share: float) -> None:
    torch.manual_seed(0)
    body, observation, state = body_of(), torch.randn(4, 9, 3), torch.randn(4, 7)
    first, weight = torch.rand(4, 9) < share, torch.randn(4, 9, 7)
    results = []
    for unroll in (body.unroll, lambda *given: one_by_one(body, *given)):
        features = unroll(observation, state, first)
        body.zero_grad()
        (features * weight).sum().backward()
        results.append((features.detach(), [p.grad.clone() for p in body.parameters() if p.grad is not None]))
    torch.testing.assert_close(results[0][0], results[1][0])
    torch.testing.assert_close(results[0][1], results[1][1], rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(
            body.step(observation[:, 0], state), one_by_one(body, observation[:, :1], state, first[:, :1] & False)[:, 0]
        )


def make(
    operations: Any = None, count: int = 1, env: str = "CartPole-v1", **settings: Any
) -> tuple[EnvironmentCollector, RecurrentPPO]:
    small: dict[str, Any] = {"batch": 96, "epochs": 2, "minibatch": 48, "sequence": 16}
    environment = make_environment(env, count)
    return make_agent(
        "recurrent_ppo", environment, {"hidden": [8, 8]}, operations, step_size=1e-3, **{**small, **settings}
    )


@pytest.mark.parametrize(("count", "env"), [(1, "CartPole-v1"), (3, "CartPole-v1"), (1, "Pendulum-v1")])
@torch.no_grad()
def test_memories_go_from_batch_to_batch_and_end_with_their_episodes(count: int, env: str) -> None:
    collector, agent = make(count=count, env=env)
    body, state = agent.networks.policy.body, torch.zeros(count, 8)
    critic, value_state = agent.networks.bodies["critic"], torch.zeros(count, 8)
    before = torch.ones(count, dtype=torch.bool)
    for _ in range(4):
        batch = collector.collect()
        grid = batch if count > 1 else batch[None]
        done = grid["next", "done"][..., 0]
        first = torch.cat((before[:, None], done[:, :-1]), 1)
        assert torch.equal(grid["is_init"][..., 0], first)
        features = one_by_one(body, grid["observation"], state, first)
        earlier = torch.cat((state[:, None], features[:, :-1]), 1)
        torch.testing.assert_close(
            grid["recurrent_state"], torch.where(first[..., None], 0.0, earlier), rtol=1e-4, atol=1e-5
        )
        log_prob, _ = agent.networks.policy.distribution.log_prob_and_entropy(features, grid["action"])
        torch.testing.assert_close(grid["action_log_prob"], log_prob, rtol=1e-4, atol=1e-5)
        values = one_by_one(critic, grid["observation"], value_state, first)  # type: ignore[arg-type]
        agent.estimate(grid)
        torch.testing.assert_close(grid["state_value"], critic.head(values), rtol=1e-4, atol=1e-5)  # type: ignore[operator]
        state, value_state, before = features[:, -1], values[:, -1], done[:, -1].clone()
        torch.testing.assert_close(
            agent.networks.policy.memory, torch.where(before[:, None], 0.0, state), rtol=1e-4, atol=1e-5
        )
    assert env == "Pendulum-v1" or sum(len(x) for x in [collector.episodes]) > 0


@torch.no_grad()
def test_advantages_by_hand() -> None:
    collector, agent = make(normalise_advantages=False, discount=0.9, gae_lambda=0.8)
    batch = collector.collect()[None]
    agent.estimate(batch)
    critic, done = agent.networks.bodies["critic"], batch["next", "done"][0, :, 0]
    terminated = batch["next", "terminated"][0, :, 0]
    features = one_by_one(critic, batch["observation"], torch.zeros(1, 8), batch["is_init"][..., 0])  # type: ignore[arg-type]
    values = batch["state_value"][0, :, 0]
    total, expected = 0.0, []
    for t in reversed(range(96)):
        nothing = torch.zeros(1, 1, dtype=torch.bool)
        last = one_by_one(critic, batch["next", "observation"][:, t : t + 1], features[:, t], nothing)  # type: ignore[arg-type]
        after = critic.head(last).item() * (not terminated[t])  # type: ignore[operator]
        delta = batch["next", "reward"][0, t, 0].item() + 0.9 * after - values[t].item()
        total = delta + 0.9 * 0.8 * total * (not done[t])
        expected.append(total)
    torch.testing.assert_close(batch["advantage"][0, :, 0], torch.tensor(expected[::-1]), rtol=1e-3, atol=1e-4)


def test_the_first_gradient_step_moves_by_the_policys_gradient_alone() -> None:
    """Before any update the ratio is 1: the noted memories are those of the acting policy."""
    collector, agent = make()
    sequences = agent.estimate(collector.collect()[None])
    assert sequences.shape == (6, 16)
    row = agent._gradient_step(sequences, sequences)
    assert row is not None
    assert row[2].abs() < 1e-6, "no divergence yet"


def test_surgery_renews_the_grus_units_and_counts_one_pass_a_step() -> None:
    collector, agent = make(SURGERY)
    surgeon: Any = agent.operations[0]
    assert {layer.units.name for layer in surgeon.layers} == {
        "actor.embed", "actor.memory", "critic.embed", "critic.memory",
    }  # fmt: skip
    for _ in range(6):
        agent.update(collector.collect())
    report = surgeon.report()
    assert all(report[f"replaced/{layer.units.name}"] > 0 for layer in surgeon.layers)


def go(folder: Path, steps: int) -> None:
    made = make(SURGERY)
    run_agent(folder, made, steps, probe=Probe(made[1].networks.bodies), probe_every=2)


def test_stopped_run_continues_bit_for_bit(tmp_path: Path) -> None:
    stop_and_go_on(tmp_path, go, 96, 288, 480)
    equal(final(tmp_path / "whole"), final(tmp_path / "parts"))


@torch.no_grad()
def test_a_policy_that_is_watched_keeps_the_collections_memory() -> None:
    collector, agent = make()
    policy = agent.networks.policy
    collector.collect()
    before = policy.memory.clone()
    environment = gymnasium.make("CartPole-v1")
    observation, _ = environment.reset(seed=0)
    seen = [observation]
    for _ in range(5):
        action = policy.act(torch.from_numpy(np.asarray(observation)), torch.zeros(2))
        observation, *_ = environment.step(int(action))
        seen.append(observation)
    features = one_by_one(
        policy.body, torch.from_numpy(np.stack(seen[:5]))[None], torch.zeros(1, 8), torch.zeros(1, 5, dtype=torch.bool)
    )
    torch.testing.assert_close(policy._played, features[0, -1], rtol=1e-4, atol=1e-5)
    assert torch.equal(policy.memory, before)
    policy.begin()
    assert policy._played is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sequence": 5}, "agent.minibatch=48 is not divisible into sequences of agent.sequence=5"),
        ({"minibatch": 7}, "agent.batch=96 is not divisible into minibatches of agent.minibatch=7"),
    ],
)
def test_lengths_that_do_not_divide_are_named(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**settings)


def test_what_a_recurrent_network_has_not_is_refused() -> None:
    space = gymnasium.make("CartPole-v1")
    for network, message in (
        ({"norm": "layer_norm"}, "network.norm=layer_norm: agent.kind=recurrent_ppo has none"),
        ({"hidden": [8]}, r"network.hidden=\[8\]: a recurrent network has two"),
    ):
        with pytest.raises(ValueError, match=message):
            make_recurrent_actor_critic(
                space.observation_space, space.action_space, generator=torch.Generator(), **network
            )
    collector, agent = make(count=4)
    with pytest.raises(ValueError, match="of 4 environments gives each 24 steps"):
        agent.update(collector.collect())


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_memory_balances_the_pole_whose_velocities_are_hidden(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    plain = [
        "experiment=gymnasium", "experiment.environment.id=HiddenCartPole-v0", "experiment.agent.batch=1024",
        "experiment.agent.epochs=5", "experiment.agent.minibatch=256", "experiment.optimizer.step_size=1e-3",
        "experiment.network.hidden=[64,64]", "experiment.steps=60000",
    ]  # fmt: skip
    returns = {}
    for name, words in {"recurrent": ["experiment=recurrent_cartpole"], "plain": plain}.items():
        folder = tmp_path / name
        run_job(folder, *words, "method=backprop", "scale=paper")
        rows = [[float(x) for x in row.split(",")] for row in (folder / "episodes.csv").read_text().splitlines()[1:]]
        returns[name] = np.mean([row[1] for row in rows if row[0] > 50_000])
    # seen over seeds 0 to 2: 335, 241, 193 with a memory, 45, 48 and 50 without
    assert returns["plain"] < 80, returns
    assert returns["recurrent"] > 150, returns
