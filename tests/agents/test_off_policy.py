"""DQN and SAC against TorchRL's losses, and what they share: targets, schedules, methods, exact continuation."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from gymnasium.spaces import Box, Discrete
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import Tensor, nn
from torchrl.modules import ProbabilisticActor, QValueActor, TanhNormal, ValueOperator
from torchrl.objectives import DQNLoss, SACLoss, SoftUpdate

from continual_agents.agents import (
    DQN,
    SAC,
    make_environment,
    make_q_network,
    make_soft_actor_critic,
    rescale_actions,
)
from continual_agents.agents.exploration import EpsilonGreedyPolicy, TanhGaussianPolicy
from continual_agents.plasticity import Probe
from tests.agents.helpers import equal, final, make_agent, run_agent, stop_and_go_on
from tests.surgery.networks import network

SURGERY = {"continual_backprop": {"rate": 1e-2, "maturity": 10, "birth": "lecun_uniform"}}
SMALL: dict[str, Any] = {
    "frames_per_batch": 10, "init_random_frames": 30, "batch_size": 16, "replay_buffer": {"size": 150},
    "log_interval": 50,
}  # fmt: skip


def make(
    kind: str, operations: Any = None, step_size: float = 1e-3, hidden: Any = (16, 16), source: Any = None,
    **settings: Any,
) -> Any:  # fmt: skip
    environment = make_environment(source or {"dqn": "CartPole-v1", "sac": "Pendulum-v1"}[kind])
    environment, chosen = environment if kind == "dqn" else rescale_actions(environment), {**SMALL, **settings}
    return make_agent(kind, environment, {"hidden": hidden}, operations, step_size=step_size, **chosen)


def batch_of(actions: Tensor, size: int, count: int = 32) -> TensorDict:
    generator = torch.Generator().manual_seed(3)
    following = {
        "observation": torch.randn(count, size, generator=generator),
        "reward": torch.randn(count, 1, generator=generator),
        "terminated": torch.rand(count, 1, generator=generator) < 0.2,
    }
    following["done"] = following["terminated"]
    own = {"observation": torch.randn(count, size, generator=generator), "action": actions}
    return TensorDict({**own, "next": TensorDict(following, [count])}, [count])


@pytest.mark.parametrize("double", [True, False])
@pytest.mark.parametrize("distance", ["smooth_l1", "l2"])
def test_dqns_loss_and_gradients_equal_torchrls(double: bool, distance: Any) -> None:
    space = Box(-5, 5, (3,)), Discrete(4)
    networks = make_q_network(*space, hidden=[16], generator=torch.Generator().manual_seed(0))
    other = make_q_network(*space, hidden=[16], generator=torch.Generator().manual_seed(1))
    optimizer = torch.optim.SGD(networks.parameters(), lr=0.1)
    agent = DQN(networks, optimizer, double=double, loss_function=distance, generator=torch.Generator())
    agent.targets["q"].load_state_dict(other.bodies["q"].state_dict())
    batch = batch_of(torch.randint(4, (32,), generator=torch.Generator().manual_seed(0)), 3)
    losses, seen = agent.losses(batch)
    ours = [p.grad.clone() for p in networks.parameters()]  # type: ignore[union-attr]

    actor = QValueActor(copy.deepcopy(networks.bodies["q"]), in_keys=["observation"], action_space="categorical")
    loss = DQNLoss(actor, loss_function=distance, double_dqn=double, delay_value=True, action_space="categorical")
    loss.make_value_estimator(gamma=0.99)
    SoftUpdate(loss, eps=0.99)  # it warns without one
    loss.target_value_network_params.data.update_(
        TensorDict.from_module(QValueActor(other.bodies["q"], in_keys=["observation"], action_space="categorical")).data
    )
    theirs = loss(batch)["loss"]
    torch.testing.assert_close(losses["loss"], theirs)
    assert seen["loss/value"] is losses["loss"]
    torch.testing.assert_close(ours, list(torch.autograd.grad(theirs, list(actor.parameters()))))


def clamped(around: nn.Module, observation: Tensor) -> tuple[Tensor, Tensor]:
    mean, log_std = around.net(observation).chunk(2, -1)
    return mean, log_std.clamp(-20, 2).exp()


def test_sacs_losses_and_gradients_equal_torchrls(monkeypatch: pytest.MonkeyPatch) -> None:
    space = Box(-5, 5, (3,)), Box(-1, 1, (2,))
    networks = make_soft_actor_critic(*space, hidden=[16], generator=torch.Generator().manual_seed(0))
    other = make_soft_actor_critic(*space, hidden=[16], generator=torch.Generator().manual_seed(1))
    agent = SAC(
        networks,
        torch.optim.SGD(networks.parameters(), lr=0.1),
        generator=torch.Generator().manual_seed(4),
        alpha_init=0.3,
    )
    for name in ("critic_1", "critic_2"):
        agent.targets[name].load_state_dict(other.bodies[name].state_dict())
    batch = batch_of(torch.rand(32, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1, 3)
    actor = ProbabilisticActor(
        TensorDictModule(
            network(clamped, net=copy.deepcopy(networks.bodies["actor"])), ["observation"], ["loc", "scale"]
        ),
        in_keys=["loc", "scale"],
        distribution_class=TanhNormal,
        distribution_kwargs={"upscale": 1e6, "tanh_loc": False, "safe_tanh": False},
        return_log_prob=True,
    )
    both = [  # critics of two inputs around ours
        network(
            lambda around, *pair: around.net(torch.cat(pair, -1)), net=copy.deepcopy(networks.bodies[f"critic_{k}"])
        )
        for k in (1, 2)
    ]
    critics = [ValueOperator(critic, in_keys=["observation", "action"]) for critic in both]
    loss = SACLoss(
        actor, critics, loss_function="l2", alpha_init=0.3, target_entropy=-2.0, action_spec=None, deactivate_vmap=True
    )
    loss.make_value_estimator(gamma=0.99)
    SoftUpdate(loss, eps=0.99)  # it warns without one
    for key in loss.target_qvalue_network_params.keys(True, True):
        name = ".".join(key).removeprefix("module.net.")
        values = [dict(other.bodies[f"critic_{k}"].named_parameters())[name] for k in (1, 2)]
        loss.target_qvalue_network_params.get(key).data.copy_(torch.stack(values))
    noises = [
        agent.policy.draw_noise((32,), generator) for generator in [torch.Generator().manual_seed(4)] for _ in "ab"
    ]
    # both draw for the targets first
    given = iter(noises)
    monkeypatch.setattr(
        "torch.distributions.normal.Normal.rsample",
        lambda self, sample_shape=(): self.loc + self.scale * next(given),
    )
    theirs = loss(batch)
    losses, seen = agent.losses(batch)
    torch.testing.assert_close(losses["loss_actor"], theirs["loss_actor"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(losses["loss_qvalue"], theirs["loss_qvalue"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(seen["policy/entropy"], theirs["entropy"].mean(), rtol=1e-4, atol=1e-5)
    gradients = torch.autograd.grad(theirs["loss_actor"], list(actor.parameters()), retain_graph=True)
    for parameter, expected in zip(networks.bodies["actor"].parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-3, atol=1e-5)
    # of the temperature: TorchRL's loss is -log alpha (log pi + target entropy)
    (expected,) = torch.autograd.grad(theirs["loss_alpha"], [loss.log_alpha])
    torch.testing.assert_close(agent.log_alpha.grad, expected.reshape(()), rtol=1e-4, atol=1e-5)


def test_log_probability_of_squashed_actions_is_that_of_torchs_distributions() -> None:
    policy = make_soft_actor_critic(
        Box(-1, 1, (3,)), Box(-1, 1, (2,)), hidden=[8], generator=torch.Generator().manual_seed(0)
    ).policy
    assert isinstance(policy, TanhGaussianPolicy)
    observation, noise = torch.randn(2, 7, 3), torch.randn(2, 7, 2)
    action, log_prob = policy.sample(observation[0], noise[0])
    mean, log_std = policy.mean_and_log_std(observation[0])
    normal = torch.distributions.Normal(mean, log_std.exp())
    squashed = torch.distributions.TransformedDistribution(normal, torch.distributions.TanhTransform())
    torch.testing.assert_close(log_prob, squashed.log_prob(action).sum(-1), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(policy.act(observation[0], noise[0]), action)


def test_epsilon_by_hand() -> None:
    policy = make_q_network(Box(-1, 1, (3,)), Discrete(4), generator=torch.Generator()).policy
    assert isinstance(policy, EpsilonGreedyPolicy)
    policy.schedule(100, 0.9, 0.1, 1000)
    values = []
    for frames in (0, 99, 100, 500, 1000, 5000):
        policy.explore(frames)
        values.append(policy.epsilon)
    assert values == pytest.approx([1.0, 1.0, 0.82, 0.5, 0.1, 0.1])
    observation = torch.randn(1, 3).expand(20_000, 3)
    policy.explore(500)
    actions = policy.act(observation, policy.draw_noise((20_000,), torch.Generator().manual_seed(0)))
    best = int(policy.body(observation[:1]).argmax())
    # half of them at random, over all four actions
    torch.testing.assert_close((actions == best).float().mean(), torch.tensor(0.625), atol=0.015, rtol=0)
    assert (policy.act(observation[:5], torch.zeros(5, 5)) == best).all()


@pytest.mark.parametrize("kind", ["dqn", "sac"])
def test_acting_in_numpy_equals_acting_in_torch(kind: str) -> None:
    collector, agent = make(kind)
    policy, generator = agent.networks.policy, torch.Generator().manual_seed(1)
    for frames in (0, 10_000):
        policy.explore(frames)
        for _ in range(20):
            observation = torch.randn(1, collector._current.shape[1], generator=generator)
            noise = policy.draw_noise((1,), generator)
            with torch.no_grad():
                expected = policy.act(observation, noise)
            fast = torch.from_numpy(policy.actor(1)(observation.numpy(), noise.numpy()))
            torch.testing.assert_close(fast, expected)


@pytest.mark.parametrize("kind", ["dqn", "sac"])
def test_first_frames_are_random_and_nothing_is_learned_from_them(kind: str) -> None:
    collector, agent = make(kind, utd_ratio=2.0)
    before = [p.detach().clone() for p in agent.networks.parameters()]
    for _ in range(2):
        agent.update(collector.collect())
    assert agent.gradient_steps == 0
    assert all(torch.equal(p, q) for p, q in zip(agent.networks.parameters(), before, strict=True))
    for _ in range(3):
        agent.update(collector.collect())
    assert agent.gradient_steps == 3 * 20


def test_targets_follow_by_polyak_averaging_or_all_at_once() -> None:
    collector, soft = make("sac", target_update_polyak=0.9)
    for _ in range(2):
        soft.update(collector.collect())
    old = [p.clone() for p in soft.targets["critic_1"].parameters()]
    soft.steps_per_batch = 1
    soft.update(collector.collect())
    for target, before, online in zip(
        soft.targets["critic_1"].parameters(), old, soft.networks.bodies["critic_1"].parameters(), strict=True
    ):
        torch.testing.assert_close(target, 0.9 * before + 0.1 * online.detach())
    collector, hard = make("dqn", hard_update_freq=25)
    first = hard.targets["q"][0].weight.clone()
    for _ in range(4):
        hard.update(collector.collect())
    assert hard.gradient_steps == 20
    assert torch.equal(hard.targets["q"][0].weight, first)
    hard.update(collector.collect())  # 25 falls into it; 5 steps later the online network has gone on
    assert not torch.equal(hard.targets["q"][0].weight, first)
    assert not torch.equal(hard.targets["q"][0].weight, hard.networks.bodies["q"][0].weight)


@pytest.mark.parametrize("kind", ["dqn", "sac"])
def test_surgery_sees_the_trained_passes_alone_and_replaces_units(kind: str) -> None:
    collector, agent = make(kind, SURGERY)
    surgeon = agent.operations[0]
    passes: dict[Any, int] = {}
    seen: list[int] = []
    for watch in (watch for layer in surgeon.layers for watch in layer.watches):
        passes[watch] = 0

        def counted(value: Any, watch: Any = watch, record: Any = watch.record) -> None:
            passes[watch] += 1
            record(value)

        watch.record = counted
    step = surgeon.step

    def stepped(*given: Any) -> Any:
        seen.extend(passes.values())
        passes.update(dict.fromkeys(passes, 0))
        return step(*given)

    surgeon.step = stepped
    for _ in range(10):
        agent.update(collector.collect())
    assert set(seen) == {1}, "one recorded pass per step: not the targets', nor the actor's through the critics"
    report = surgeon.report()
    layers = ["q.0"] if kind == "dqn" else ["actor.0", "critic_1.0", "critic_2.2"]
    assert all(report[f"replaced/{name}"] > 0 for name in layers)


@pytest.mark.parametrize("kind", ["dqn", "sac"])
def test_after_a_reset_the_targets_are_the_new_network(kind: str) -> None:
    collector, agent = make(kind, {"reset": {"layers": "all"}}, hard_update_freq=10_000)
    for _ in range(6):
        agent.update(collector.collect())
    if kind == "sac":
        assert agent.log_alpha.item() != 0.0
    agent.start_task()
    for name, target in agent.targets.items():
        for a, b in zip(target.parameters(), agent.networks.bodies[name].parameters(), strict=True):
            assert torch.equal(a, b)
    assert len(agent.replay) == 60  # what is relearned from
    if kind == "sac":
        assert agent.log_alpha.item() == 0.0
    agent.update(collector.collect())


def go(kind: str, folder: Path, steps: int) -> None:
    made = make(kind, SURGERY)
    run_agent(folder, made, steps, probe=Probe(made[1].networks.bodies), probe_every=2)


@pytest.mark.parametrize("kind", ["dqn", "sac"])
def test_stopped_run_continues_bit_for_bit(tmp_path: Path, kind: str) -> None:
    # before the buffer of 150 is full, and after
    stop_and_go_on(tmp_path, lambda folder, steps: go(kind, folder, steps), 50, 200, 300)
    equal(final(tmp_path / "whole"), final(tmp_path / "parts"))
    assert len((tmp_path / "whole/metrics.csv").read_text().splitlines()) == 7


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"frames_per_batch": 0}, "agent.frames_per_batch=0: at least 1"),
        ({"utd_ratio": 0.25}, "agent.utd_ratio=0.25 times agent.frames_per_batch=10 is 2.5 gradient steps: a whole"),
        ({"log_interval": 15}, "agent.log_interval=15: a positive multiple of agent.frames_per_batch=10"),
        ({"replay_buffer": {"size": 5}}, "agent.replay_buffer.size=5: at least agent.batch_size"),
        ({"replay_buffer": {"sise": 5}}, r"agent.replay_buffer=\{'sise': 5\}: its settings are size"),
        ({"replay_buffer": {"size": 50, "storage": "disk"}}, "agent.replay_buffer.storage=disk: memory or memmap"),
        ({"target_update_polyak": 1.0}, r"agent.target_update_polyak=1.0 lies outside \[0, 1\)"),
        ({"hard_update_freq": 0}, r"agent.hard_update_freq=0: at least 1 \(null: Polyak"),
        ({"eps_end": 2.0}, r"agent.eps_end=2.0: a probability in \[0, 1\]"),
        ({"annealing_frames": 0}, "agent.annealing_frames=0: at least 1"),
    ],
)
def test_values_out_of_range_are_named(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make("dqn", **settings)


def test_spaces_that_do_not_fit_are_refused_with_what_would() -> None:
    generator = torch.Generator()
    with pytest.raises(ValueError, match="not Discrete from 0, as agent.kind=dqn needs it: use agent.kind=sac or ppo"):
        make_q_network(Box(-1, 1, (3,)), Box(-1, 1, (2,)), generator=generator)
    with pytest.raises(ValueError, match="give environment.rescale_actions=true"):
        make_soft_actor_critic(Box(-1, 1, (3,)), Box(-2, 2, (2,)), generator=generator)
    with pytest.raises(ValueError, match="not a Box with finite bounds"):
        rescale_actions(make_environment("CartPole-v1"))
