from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from tensordict import TensorDict
from torchrl.collectors import BaseCollector
from torchrl.objectives import ClipPPOLoss
from torchrl.trainers import DefaultOptimizationStepper, Trainer

from continual_agents import surgery
from continual_agents.agents import EnvironmentCollector, NotFiniteError, make_actor_critic, make_environment


class Counter(gymnasium.Env[np.ndarray, np.ndarray]):
    """Observes (episode, step); dies at step 3 of even episodes, is truncated at step 4 of odd ones."""

    observation_space = Box(-100.0, 100.0, (2,), np.float32)
    action_space = Box(-0.1, 0.1, (1,), np.float32)
    friction = 0.5
    task = 2

    def __init__(self) -> None:
        self.episode, self.time = -1, 0
        self.actions: list[float] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.episode, self.time = self.episode + 1, 0
        return self._observe(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.actions.append(float(action[0]))
        self.time += 1
        dies = self.episode % 2 == 0
        return self._observe(), 1.0, dies and self.time == 3, not dies and self.time == 4, {}

    def _observe(self) -> np.ndarray:
        return np.array([self.episode, self.time], np.float32)


def networks(environment: Any) -> Any:
    observation = getattr(environment, "single_observation_space", environment.observation_space)
    action = getattr(environment, "single_action_space", environment.action_space)
    return make_actor_critic(observation, action, hidden=[8], generator=torch.Generator().manual_seed(0))


def collecting(environment: Any, frames: int, **settings: Any) -> EnvironmentCollector:
    return EnvironmentCollector(environment, networks(environment), frames=frames, **settings)


def test_batch_holds_true_last_observations_and_both_kinds_of_end() -> None:
    collector = collecting(Counter(), 7)
    batch = collector.collect()
    # by hand: episode 0 dies at step 3, episode 1 is truncated at step 4
    assert batch["observation"].tolist() == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2], [1, 3]]
    assert batch["next", "observation"].tolist() == [[0, 1], [0, 2], [0, 3], [1, 1], [1, 2], [1, 3], [1, 4]]
    assert batch["next", "terminated"].flatten().tolist() == [False, False, True, False, False, False, False]
    assert batch["next", "truncated"].flatten().tolist() == [False] * 6 + [True]
    assert batch["next", "done"].flatten().tolist() == [False, False, True, False, False, False, True]
    assert collector.episodes == [
        {"step": 3, "return": 3.0, "length": 3, "friction": 0.5, "task": 2.0},
        {"step": 7, "return": 4.0, "length": 4, "friction": 0.5, "task": 2.0},
    ]


def test_vector_environment_gives_what_its_environments_give_alone() -> None:
    collector = collecting(SyncVectorEnv([Counter, Counter], autoreset_mode=AutoresetMode.DISABLED), 16)
    batch = collector.collect()
    assert batch.batch_size == (2, 8)
    expected = [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2], [1, 3], [2, 0]]
    assert batch["observation"].tolist() == [expected, expected]
    assert batch["next", "observation"][0, 6].tolist() == [1, 4]
    assert [row["return"] for row in collector.episodes] == [3.0, 3.0, 4.0, 4.0]


@pytest.mark.parametrize("name", ["Pendulum-v1", "CartPole-v1"])
def test_log_probability_is_that_of_the_policy_that_acted(name: str) -> None:
    environment = make_environment(name)
    agent = networks(environment)
    batch = EnvironmentCollector(environment, agent, frames=64, seed=1).collect()
    with torch.no_grad():
        output = agent.policy.body(batch["observation"])
    if isinstance(environment.action_space, Discrete):
        expected = output.log_softmax(-1).gather(1, batch["action"][:, None])[:, 0]
    else:
        expected = -0.5 * ((batch["action"] - output) ** 2 + np.log(2 * np.pi)).sum(-1)
    torch.testing.assert_close(batch["action_log_prob"], expected)


def test_actions_follow_the_policy_distribution() -> None:
    agent = make_actor_critic(Box(-1, 1, (2,)), Discrete(3), hidden=[4], generator=torch.Generator().manual_seed(0))
    generator, observation = torch.Generator().manual_seed(0), torch.tensor([[0.3, -0.7]]).expand(20_000, 2)
    with torch.no_grad():
        agent.policy.body[-1].weight.mul_(6)  # far from uniform
        actions = agent.policy.act(observation, agent.policy.draw_noise((20_000,), generator))
        probabilities = agent.policy.body(observation[0]).softmax(-1)
    assert probabilities.max() > 3 * probabilities.min()
    frequencies = torch.bincount(actions, minlength=3) / 20_000
    torch.testing.assert_close(frequencies, probabilities, atol=0.015, rtol=0)


def test_clipping_reaches_the_environment_but_not_the_batch() -> None:
    for clip in (True, False):
        environment = Counter()
        batch = collecting(environment, 16, clip_actions=clip).collect()
        assert batch["action"].abs().max() > 0.1
        assert (max(map(abs, environment.actions)) > 0.1001) is not clip


def test_same_seed_same_batch_and_iterator_ends() -> None:
    def run(seed: int) -> list[torch.Tensor]:
        collector = collecting(make_environment("Pendulum-v1"), 32, total_frames=96, seed=seed)
        assert isinstance(collector, BaseCollector)
        return [batch["observation"].clone() for batch in collector]

    first, again, other = run(0), run(0), run(1)
    assert len(first) == 3
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])


def test_what_cannot_be_collected_is_refused() -> None:
    with pytest.raises(ValueError, match="AutoresetMode.DISABLED"):
        collecting(SyncVectorEnv([Counter, Counter]), 16)
    vector = SyncVectorEnv([Counter, Counter], autoreset_mode=AutoresetMode.DISABLED)
    with pytest.raises(ValueError, match=r"agent.batch=7 must be a positive multiple of the 2 environments"):
        collecting(vector, 7)
    with pytest.raises(ValueError, match=r"environment.count=0"):
        make_environment("CartPole-v1", 0)
    generator = torch.Generator()
    with pytest.raises(ValueError, match="not a one-dimensional Box"):
        make_actor_critic(Discrete(3), Discrete(2), generator=generator)
    with pytest.raises(ValueError, match="neither a one-dimensional Box nor a Discrete"):
        make_actor_critic(Box(-1, 1, (3,)), Box(-1, 1, (2, 2)), generator=generator)


def test_environment_that_cannot_store_its_state_says_so_when_continued() -> None:
    collector = collecting(Counter(), 4)
    collector.collect()
    state = collector.state_dict()
    with pytest.warns(UserWarning, match="continues with a new episode, not exactly"):
        collector.load_state_dict(state)
    assert collector.frames == 4


class Dice(Counter):
    """Begins anywhere, and cannot store where it is."""

    def _observe(self) -> np.ndarray:
        return self.np_random.uniform(-1, 1, 2).astype(np.float32)


def test_environment_without_state_begins_other_episodes_than_the_first_run_had() -> None:
    collector, resumed = collecting(Dice(), 64), collecting(Dice(), 64)
    first = collector.collect()["observation"][0].clone()
    state = collector.state_dict()
    with pytest.warns(UserWarning, match="has no state_dict"):
        resumed.load_state_dict(state)
    assert not torch.equal(resumed.collect()["observation"][0], first)


class Walk(Counter):
    """A counter with a random walk in its reward and a state."""

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
        observation, _, _, _, info = super().step(action)
        return observation, float(self.np_random.normal()), False, False, info

    def state_dict(self) -> dict[str, Any]:
        return {"episode": self.episode, "time": self.time, "generator": self.np_random.bit_generator.state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.episode, self.time = state["episode"], state["time"]
        self.np_random.bit_generator.state = state["generator"]


@pytest.mark.parametrize("count", [1, 3])
def test_state_holds_environments_time_limits_and_generators(count: int) -> None:
    def build() -> EnvironmentCollector:
        return collecting(make_environment(lambda: gymnasium.wrappers.TimeLimit(Walk(), 5), count), 4 * count, seed=1)

    whole = build()
    batches = [whole.collect().clone() for _ in range(3)]
    first = build()
    first.collect()
    second = build()
    second.load_state_dict(first.state_dict())
    for expected in batches[1:]:
        batch = second.collect()
        assert all(torch.equal(batch[key], expected[key]) for key in batch.keys(True, True))
    assert second.episodes == whole.episodes
    # by hand: the limit of 5 falls into the second batch of 4
    assert [bool(flag) for flag in batches[1]["next", "truncated"].reshape(count, 4)[0]] == [True, False, False, False]


def test_friction_and_task_of_each_member_are_read() -> None:
    vector = make_environment(Counter, 2)
    vector.envs[1].friction = 0.1
    collector = collecting(vector, 8)
    collector.collect()
    assert [row["friction"] for row in collector.episodes] == [0.5, 0.1]
    assert collector.world("task").tolist() == [2, 2]
    assert np.isnan(collecting(make_environment("CartPole-v1"), 8).world("friction")).all()


@pytest.mark.parametrize("what", ["observation", "reward"])
def test_broken_simulation_is_named_with_its_step(what: str) -> None:
    class Broken(Counter):
        def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict]:
            observation, reward, *rest = super().step(action)
            if len(self.actions) == 11:
                observation, reward = (observation * np.nan, 1.0) if what == "observation" else (observation, np.inf)
            return (observation, reward, *rest)  # type: ignore[return-value]

    collector = collecting(Broken(), 8)
    collector.collect()
    with pytest.raises(NotFiniteError, match=f"a {what} that is not finite at environment step 11"):
        collector.collect()


def test_unknown_id_names_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"environment.id='CartPol-v1' is not registered .*did you mean 'CartPole-v1'"):
        make_environment("CartPol-v1")
    with pytest.raises(TypeError, match="a gymnasium id or a callable is needed, got int"):
        make_environment(3)  # type: ignore[arg-type]


@pytest.mark.parametrize("space", [Box(-1, 1, (3,)), Discrete(4)])
def test_acting_in_numpy_equals_acting_in_torch(space: Any) -> None:
    agent = make_actor_critic(Box(-1, 1, (5,)), space, hidden=[32, 32], generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    observation = torch.randn(1, 5, generator=generator)
    for _ in range(20):
        noise = agent.policy.draw_noise((1,), generator)
        with torch.no_grad():
            expected = agent.policy.act(observation, noise)
            # the arrays are the weights' memory: an update in place is seen
            agent.policy.body[2].weight.mul_(1.01)
            after = agent.policy.act(observation, noise)
            agent.policy.body[2].weight.div_(1.01)
        fast = agent.policy.actor(1)
        torch.testing.assert_close(torch.from_numpy(fast(observation.numpy(), noise.numpy())), expected)
        agent.policy.body[2].weight.data.mul_(1.01)
        torch.testing.assert_close(torch.from_numpy(fast(observation.numpy(), noise.numpy())), after)
        agent.policy.body[2].weight.data.div_(1.01)


class SurgicalStepper(DefaultOptimizationStepper):
    """How surgery goes into TorchRL's own loop."""

    def __init__(self, surgeon: surgery.ContinualBackprop):
        super().__init__()
        self.surgeon = surgeon

    def step(self, trainer: Trainer, sub_batch: TensorDict) -> TensorDict:
        losses = super().step(trainer, sub_batch)
        self.surgeon.step()
        return losses


def test_torchrls_own_trainer_and_loss_take_collector_and_surgery() -> None:
    environment = make_environment("Pendulum-v1")
    agent = networks(environment)
    collector = EnvironmentCollector(environment, agent, frames=64, total_frames=192)
    loss = ClipPPOLoss(agent.actor, agent.critic, functional=False)
    loss.make_value_estimator()
    optimizer = torch.optim.Adam(agent.parameters(), lr=1e-3)
    surgeon = surgery.ContinualBackprop(surgery.find(agent.bodies), optimizer, rate=0.1, maturity=2)
    before = [parameter.detach().clone() for parameter in agent.parameters()]
    trainer = Trainer(
        collector=collector,
        total_frames=192,
        frame_skip=1,
        loss_module=loss,
        optimizer=optimizer,
        optimization_stepper=SurgicalStepper(surgeon),
        optim_steps_per_batch=2,
        progress_bar=False,
    )
    trainer.train()
    assert collector.frames == 192
    assert surgeon.steps == 6
    assert surgeon.report()["replaced/actor.0"] > 0
    assert all(not torch.equal(p, q) for p, q in zip(agent.parameters(), before, strict=True))
