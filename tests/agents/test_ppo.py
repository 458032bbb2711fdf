"""The update against textbook PPO written out by hand."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from tensordict import TensorDict
from torch import Tensor
from torchrl.objectives import ClipPPOLoss

from continual_agents.agents import PPO, ActorCritic, ClippedLoss, NotFiniteError, make_actor_critic
from continual_agents.agents.on_policy import explained_variance

GAMMA, LAMBDA, CLIP = 0.99, 0.95, 0.2


def agent(actions: Any = None, seed: int = 0) -> ActorCritic:
    space = Box(-1, 1, (2,)) if actions is None else actions
    generator = torch.Generator().manual_seed(seed)
    return make_actor_critic(Box(-5, 5, (3,)), space, hidden=[16, 16], activation="tanh", generator=generator)


def make_ppo(networks: ActorCritic, operations: Any = (), **settings: Any) -> PPO:
    optimizer = torch.optim.SGD(networks.parameters(), lr=0.1)
    return PPO(
        networks,
        optimizer,
        operations,
        generator=torch.Generator().manual_seed(0),
        **{"batch": 32, "minibatch": 32, "epochs": 1, **settings},
    )


def batch_of(networks: ActorCritic, frames: int = 32, seed: int = 0) -> TensorDict:
    """Random transitions with two deaths and two truncations, acted by a slightly older policy."""
    generator = torch.Generator().manual_seed(seed)
    terminated, truncated = torch.zeros(2, frames, 1, dtype=torch.bool)
    terminated[[5, 20]] = True
    truncated[[11, 28]] = True
    batch = TensorDict(
        {
            "observation": torch.randn(frames, 3, generator=generator),
            "next": {
                "observation": torch.randn(frames, 3, generator=generator),
                "reward": torch.randn(frames, 1, generator=generator),
                "terminated": terminated,
                "truncated": truncated,
                "done": terminated | truncated,
            },
        },
        [frames],
    )
    with torch.no_grad():
        distribution = networks.actor.get_dist(batch.select("observation"))
        batch["action"] = distribution.sample()
        batch["action_log_prob"] = distribution.log_prob(batch["action"]) + 0.3 * torch.randn(
            frames, generator=generator
        )
    return batch


def advantages(networks: ActorCritic, batch: TensorDict, bootstrap_truncation: bool = True) -> tuple[Tensor, Tensor]:
    """Schulman et al. 2016, equation 16, as a loop over time."""
    value = networks.critic.module
    with torch.no_grad():
        values = value(batch["observation"])[:, 0].tolist()
        following = value(batch["next", "observation"])[:, 0].tolist()
    rewards, advantage, result = batch["next", "reward"][:, 0].tolist(), 0.0, []
    for t in reversed(range(len(rewards))):
        done = bool(batch["next", "done"][t])
        dies = bool(batch["next", "terminated"][t]) if bootstrap_truncation else done
        delta = rewards[t] + GAMMA * (0.0 if dies else following[t]) - values[t]
        advantage = delta + (0.0 if done else GAMMA * LAMBDA * advantage)
        result.append(advantage)
    raw = torch.tensor(result[::-1])
    return raw, raw + torch.tensor(values)


@pytest.mark.parametrize("quirk", [False, True])
def test_advantages_equal_the_loop_and_truncation_is_bootstrapped_unless_asked_otherwise(quirk: bool) -> None:
    networks = agent()
    batch = batch_of(networks)
    raw, target = advantages(networks, batch, bootstrap_truncation=not quirk)
    ppo = make_ppo(networks, time_limit_as_termination=quirk)
    ppo.update(batch)
    torch.testing.assert_close(batch["value_target"][:, 0], target, atol=1e-5, rtol=1e-5)
    expected = (raw - raw.mean()) / raw.std()
    torch.testing.assert_close(batch["advantage"][:, 0], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("space", [None, Discrete(4)])
@pytest.mark.parametrize("entropy", [0.0, 0.01])
def test_gradient_step_equals_textbook_ppo(space: Any, entropy: float) -> None:
    networks = agent(space)
    twin = copy.deepcopy(networks)
    batch = batch_of(networks)
    raw, target = advantages(networks, batch)
    advantage = (raw - raw.mean()) / raw.std()

    output = twin.policy.body(batch["observation"])
    if space is None:
        log_std = twin.policy.log_std
        standard = (batch["action"] - output) / log_std.exp()
        log_prob = (-0.5 * standard**2 - log_std - 0.5 * np.log(2 * np.pi)).sum(-1)
        uncertainty = (log_std + 0.5 * np.log(2 * np.pi * np.e)).sum()
    else:
        logs = output.log_softmax(-1)
        log_prob = logs.gather(1, batch["action"][:, None])[:, 0]
        uncertainty = -(logs.exp() * logs).sum(-1).mean()
    ratio = (log_prob - batch["action_log_prob"]).exp()
    surrogate = torch.minimum(ratio * advantage, ratio.clamp(1 - CLIP, 1 + CLIP) * advantage).mean()
    error = ((twin.critic.module(batch["observation"])[:, 0] - target) ** 2).mean()
    (-surrogate + error - entropy * uncertainty).backward()
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter -= 0.1 * parameter.grad

    metrics = make_ppo(networks, entropy_coefficient=entropy).update(batch)
    torch.testing.assert_close(list(networks.parameters()), list(twin.parameters()), atol=1e-5, rtol=1e-4)
    assert metrics["loss/policy"] == pytest.approx(-surrogate.item(), abs=1e-5)
    assert metrics["loss/value"] == pytest.approx(error.item(), rel=1e-4)
    clipped = ((ratio < 1 - CLIP) | (ratio > 1 + CLIP)).float().mean().item()
    assert metrics["policy/clip_fraction"] == pytest.approx(clipped)


@pytest.mark.parametrize("space", [None, Discrete(4)])
@pytest.mark.parametrize("entropy", [0.0, 0.01])
def test_loss_and_gradients_equal_torchrls(space: Any, entropy: float) -> None:
    networks = agent(space)
    batch = batch_of(networks)
    make_ppo(networks).estimate(batch)
    ours = ClippedLoss(networks, clip=CLIP, value_coefficient=0.5, entropy_coefficient=entropy)
    theirs = ClipPPOLoss(
        networks.actor,
        networks.critic,
        clip_epsilon=CLIP,
        entropy_bonus=entropy > 0,
        entropy_coeff=entropy,
        critic_coeff=0.5,
        loss_critic_type="l2",
        functional=False,
    )
    results = []
    for loss in (ours, theirs):
        terms = loss(batch)
        parts = [terms[name] for name in set(terms.keys()) & {"loss_objective", "loss_critic", "loss_entropy"}]
        assert len(parts) == (3 if entropy else 2)
        results.append((terms, torch.autograd.grad(sum(parts), networks.parameters(), allow_unused=True)))
    for name in ("loss_objective", "loss_critic", "kl_approx", "clip_fraction", *(["entropy"] if entropy else [])):
        torch.testing.assert_close(results[0][0][name], results[1][0][name])
    torch.testing.assert_close(results[0][1], results[1][1])
    assert 0 < results[0][0]["kl"] < 0.2


def test_explained_variance_by_hand() -> None:
    batch = TensorDict({"value_target": torch.tensor([[1.0], [2.0], [3.0]]), "state_value": torch.zeros(3, 1)}, [3])
    assert explained_variance(batch) == 0.0
    batch["state_value"] = torch.tensor([[1.0], [2.0], [2.0]])
    # residuals 0, 0, 1: variance 1/3; targets' variance 1
    assert explained_variance(batch) == pytest.approx(2 / 3)


def test_advantages_may_stay_as_they_are_and_the_batch_keeps_its_terminations() -> None:
    networks = agent()
    batch = batch_of(networks)
    terminated = batch["next", "terminated"]
    make_ppo(networks, normalise_advantages=False, time_limit_as_termination=True).estimate(batch)
    raw, _ = advantages(networks, batch, bootstrap_truncation=False)
    torch.testing.assert_close(batch["advantage"][:, 0], raw, atol=1e-5, rtol=1e-5)
    assert batch["next", "terminated"] is terminated
    assert terminated.sum() == 2


class Recorder:
    """Notes what it sees after each optimizer step."""

    def __init__(self, optimizer: torch.optim.Optimizer):
        self.steps = 0
        self.weights: list[Tensor] = []
        self.parameter = optimizer.param_groups[0]["params"][1]

    def step(self) -> None:
        self.weights.append(self.parameter.detach().clone())


def test_operations_run_after_every_optimizer_step_and_each_frame_is_seen_once_an_epoch() -> None:
    networks = agent()
    ppo = make_ppo(networks, minibatch=8, epochs=3)
    recorder = Recorder(ppo.optimizer)
    ppo.operations.append(recorder)  # type: ignore[arg-type]
    seen: list[Tensor] = []
    inner = ppo.loss.forward
    ppo.loss.forward = lambda minibatch: seen.append(minibatch["observation"].clone()) or inner(minibatch)
    before = recorder.parameter.detach().clone()
    batch = batch_of(networks)
    ppo.update(batch)
    assert len(recorder.weights) == 3 * 4
    # the first record already holds the first step's change
    assert not torch.equal(recorder.weights[0], before)
    assert torch.equal(recorder.weights[-1], recorder.parameter)
    rows = sorted(map(tuple, batch["observation"].tolist()))
    orders = []
    for epoch in range(3):
        order = torch.cat(seen[4 * epoch : 4 * epoch + 4])
        orders.append(order)
        assert sorted(map(tuple, order.tolist())) == rows
    assert not torch.equal(orders[0], orders[1])


def test_update_norm_is_how_far_the_parameters_moved() -> None:
    networks = agent()
    before = torch.nn.utils.parameters_to_vector(networks.parameters()).clone()
    metrics = make_ppo(networks).update(batch_of(networks))
    moved = torch.nn.utils.parameters_to_vector(networks.parameters()).detach() - before.detach()
    assert metrics["optimizer/update_norm"] == pytest.approx(float(moved.norm()), rel=1e-5)
    assert metrics["optimizer/update_norm"] > 0


def test_gradient_norm_is_capped() -> None:
    networks = agent()
    before = [p.detach().clone() for p in networks.parameters()]
    make_ppo(networks, max_gradient_norm=0.01).update(batch_of(networks))
    moved = sum(((p.detach() - q) ** 2).sum() for p, q in zip(networks.parameters(), before, strict=True)) ** 0.5
    assert float(moved) == pytest.approx(0.1 * 0.01, rel=1e-3)


def test_not_finite_gradient_stops_with_step_and_layer_or_is_skipped() -> None:
    networks = agent()
    batch = batch_of(networks)
    batch["observation"][3] = float("nan")
    before = [p.detach().clone() for p in networks.parameters()]
    with pytest.raises(NotFiniteError, match=r"gradient step 0 .*first gradient: actor.0.weight"):
        make_ppo(networks).update(batch)
    ppo = make_ppo(networks, on_not_finite="skip")
    ppo.update(batch)
    assert ppo.gradient_steps == 0
    assert all(torch.equal(p, q) for p, q in zip(networks.parameters(), before, strict=True))
