"""Pictures: whole numbers from the environment to the network, which computes what is written out here."""

import gc
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pandas as pd
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from torch.nn import functional

from continual_agents import surgery
from continual_agents.agents import (
    AGENTS,
    EnvironmentCollector,
    fit_spaces,
    load_policy,
    make_environment,
    make_q_network,
)
from continual_agents.agents.draws import member_seeds
from continual_agents.agents.evaluation import policy_of
from continual_agents.networks import ConvNet
from continual_agents.plasticity import Probe
from continual_agents.runs import Run
from tests.agents.helpers import equal, final, make_agent, run_agent
from tests.agents.test_off_policy import SMALL
from tests.helpers import same_tables
from tools.agent import AgentJob
from tools.command_line import compose_config, plain_config

SHAPE = (6, 7, 2)
SMALLER = [
    "experiment.steps=100", "experiment.agent.init_random_frames=20", "experiment.agent.batch_size=16",
    "experiment.agent.log_interval=50", "experiment.agent.replay_buffer.size=60", "experiment.network.hidden=[8]",
    "experiment.network.conv=[[4,3,1]]",
]  # fmt: skip


class Noise(gymnasium.Env[np.ndarray, Any]):
    """Pictures of noise; a step is worth the number of the action, an episode has nine."""

    def __init__(self, shape: tuple[int, ...] = SHAPE, high: int = 255) -> None:
        self.observation_space = Box(0, high, shape, np.uint8)
        self.action_space = Discrete(3)
        self.shape, self.high, self.steps = shape, high, 0
        self.random = np.random.default_rng()

    def _seen(self) -> np.ndarray:
        return self.random.integers(0, self.high, self.shape, np.uint8, endpoint=True)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        if seed is not None:
            self.random = np.random.default_rng(seed)
        self.steps = 0
        return self._seen(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        return self._seen(), float(action), self.steps == 9, False, {}

    def state_dict(self) -> dict[str, Any]:
        return {"random": self.random.bit_generator.state, "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.random.bit_generator.state, self.steps = state["random"], state["steps"]


gymnasium.register("NoisePictures-v0", entry_point=Noise)


def net(shape: tuple[int, ...] = SHAPE, highest: int = 255, **settings: Any) -> ConvNet:
    given = {"conv": [[4, 3, 1], [5, 2, 2]], "hidden": [8], **settings}
    return ConvNet(shape, highest, 3, generator=torch.Generator().manual_seed(0), **given)


@pytest.mark.parametrize(("shape", "highest"), [((6, 7, 2), 255), ((6, 7, 2), 1), ((2, 6, 7), 255)])
def test_the_network_by_hand(shape: tuple[int, ...], highest: int) -> None:
    body = net(shape, highest)
    pictures = torch.randint(highest + 1, (5, *shape), dtype=torch.uint8)
    x = torch.tensor(pictures.tolist()) / highest
    x = x if shape[0] == 2 else torch.stack([x[..., c] for c in range(2)], 1)
    for weight, bias, stride in ((body[1].weight, body[1].bias, 1), (body[3].weight, body[3].bias, 2)):
        x = functional.conv2d(x, weight, bias, stride).relu()
    assert x.shape == (5, 5, 2, 2)
    expected = body[8](body[6](x.reshape(5, -1)).relu())
    torch.testing.assert_close(body(pictures), expected)
    torch.testing.assert_close(body(pictures[2]), expected[2])
    torch.testing.assert_close(body(pictures.expand(4, 5, *shape)), expected.expand(4, 5, 3))


def test_weights_are_drawn_from_the_generator_alone_within_their_bounds() -> None:
    before = torch.get_rng_state()
    for init, square in (("lecun_uniform", 3), ("default", 1)):
        first, again = net(conv=[[64, 3, 1]], init=init), net(conv=[[64, 3, 1]], init=init)
        assert torch.equal(first[1].weight, again[1].weight)
        assert first[1].weight.abs().max() <= (square / 18) ** 0.5
        assert first[1].weight.var().item() == pytest.approx(square / 3 / 18, rel=0.1)
        assert bool(first[1].bias.any()) == (init == "default")
    assert torch.equal(torch.get_rng_state(), before)


def test_convolutions_fit_the_pictures_unless_they_are_given() -> None:
    def convolutions(*shape: int) -> list[tuple[int, int]]:
        made = ConvNet(shape, 255, 3, generator=torch.Generator())
        return [(m.out_channels, m.stride[0]) for m in made if isinstance(m, torch.nn.Conv2d)]

    assert convolutions(10, 10, 4) == [(16, 1)]
    assert convolutions(84, 84, 3) == convolutions(4, 84, 84) == [(32, 4), (64, 2), (64, 1)]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"conv": [[4, 3]]}, r"network.conv=\[\[4, 3\]\]: rows of \[channels, kernel, stride\]"),
        ({"conv": []}, r"network.conv=\[\]: rows of"),
        ({"conv": [[4, 0, 1]]}, r"network.conv=\[\[4, 0, 1\]\]: rows of"),
        ({"conv": [[4, 7, 1]]}, r"network.conv=\[\[4, 7, 1\]\] is too much for pictures of 6 x 7"),
        ({"activation": "crelu"}, "network.activation=crelu is for fully connected networks: choose relu"),
        ({"norm": "online_norm"}, "network.norm=online_norm is for fully connected networks: choose layer_norm or"),
    ],
)
def test_settings_that_do_not_fit_are_named(settings: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        net(**settings)


def test_pictures_where_nobody_sees_them_and_convolutions_of_what_is_none_are_refused() -> None:
    pictures, numbers = Box(0, 255, SHAPE, np.uint8), Box(-1, 1, (3,))
    for kind, actions in (("sac", Box(-1, 1, (2,))), ("recurrent_ppo", Discrete(2))):
        with pytest.raises(ValueError, match="holds pictures, which agent.kind=dqn and ppo see: use one"):
            AGENTS[kind].make_networks(pictures, actions, generator=torch.Generator())
    for kind in ("dqn", "ppo"):
        with pytest.raises(ValueError, match=r"network.conv=\[\[4, 3, 1\]\]: the observations are no pic"):
            AGENTS[kind].make_networks(numbers, Discrete(2), conv=[[4, 3, 1]], generator=torch.Generator())


@pytest.mark.parametrize("norm", [None, "layer_norm"])
def test_surgery_follows_convolutions_over_the_flatten_boundary(norm: str | None) -> None:
    body = net(norm=norm, conv=[[4, 3, 1]])
    linear = 4 if norm is None else 5
    units = {one.name: one for one in surgery.find({"q": body})}
    assert sorted(units) == ["q.1", f"q.{linear}"]
    assert (units["q.1"].width, units["q.1"].outgoing[0].block) == (4, 4 * 5)
    pictures = torch.randint(256, (9, *SHAPE), dtype=torch.uint8)
    with torch.no_grad():
        body[linear].weight.view(8, 4, 20)[:, 2] = 0.0  # unit 2 is read by nobody
        before, filters = body(pictures), body[1].weight.clone()
        body[linear].weight.view(8, 4, 20)[:, 2] = 0.0
    optimizer = torch.optim.Adam(body.parameters())
    surgery.replace_(units["q.1"], torch.tensor([2]), optimizer)
    assert (body[1].weight != filters).flatten(1).any(1).tolist() == [False, False, True, False]
    if norm is None:  # layer norm mixes channels
        torch.testing.assert_close(body(pictures), before)
    surgery.replace_(units["q.1"], torch.tensor([0]), optimizer)
    assert not body[linear].weight.view(8, 4, 20)[:, [0, 2]].any()
    assert body[linear].weight.view(8, 4, 20)[:, [1, 3]].all()


@pytest.mark.parametrize("count", [1, 3])
def test_a_batch_holds_what_the_environment_showed_as_whole_numbers(count: int) -> None:
    environment = make_environment(lambda: fit_spaces(Noise()), count)
    networks = make_q_network(Box(0, 255, SHAPE, np.uint8), Discrete(3), generator=torch.Generator().manual_seed(0))
    collector = EnvironmentCollector(environment, networks, frames=30 * count, seed=4)
    batch = collector.collect()
    assert batch["observation"].dtype == batch["next", "observation"].dtype == torch.uint8
    assert batch["observation"].shape == (*([3] if count == 3 else []), 30, *SHAPE)
    for member, seed in enumerate([4] if count == 1 else member_seeds(4, 3)):
        rows = batch if count == 1 else batch[member]
        alone = Noise()
        seen = alone.reset(seed=seed)[0]
        for step in range(30):
            np.testing.assert_array_equal(rows["observation"][step].numpy(), seen)
            seen, reward, ended, *_ = alone.step(int(rows["action"][step]))
            np.testing.assert_array_equal(rows["next", "observation"][step].numpy(), seen)
            assert (rows["next", "reward"][step].item(), rows["next", "done"][step].item()) == (reward, ended)
            if ended:
                seen = alone.reset()[0]


def test_an_environment_that_shows_no_whole_numbers_is_named() -> None:
    class Floats(Noise):
        def _seen(self) -> np.ndarray:
            return super()._seen() / 255

    networks = make_q_network(Box(0, 255, SHAPE, np.uint8), Discrete(3), generator=torch.Generator())
    with pytest.raises(Exception, match="an observation of float64, its observation space says uint8"):
        EnvironmentCollector(Floats(), networks, frames=10)


def go(kind: str, folder: Path, steps: int) -> Any:
    ppo = {"batch": 50, "minibatch": 25, "epochs": 2}
    settings = ppo if kind == "ppo" else {**SMALL, "replay_buffer": {"size": 150, "storage": kind}}
    environment, renewing = make_environment("NoisePictures-v0"), {"continual_backprop": {"rate": 1e-2, "maturity": 5}}
    made = make_agent(
        "ppo" if kind == "ppo" else "dqn", environment, {"hidden": [8]}, renewing, step_size=1e-3, **settings
    )
    learner = made[1]
    run_agent(folder, made, steps, probe=Probe(learner.networks.bodies), probe_every=2)
    assert learner.operations[0].report()["replaced/actor.1" if kind == "ppo" else "replaced/q.1"] > 0 or steps < 300
    return learner


@pytest.mark.parametrize("kind", ["memmap", "ppo"])
def test_a_stopped_run_continues_bit_for_bit(tmp_path: Path, kind: str) -> None:
    whole = go("memory" if kind == "memmap" else kind, tmp_path / "whole", 300)
    for steps in (50, 200, 300):
        parts = go(kind, tmp_path / "parts", steps)
        gc.collect()
        left = list((tmp_path / "parts/replay").glob(".*"))
        assert len(left) == (kind == "memmap"), "a session's mapped file goes with it"
        if left:
            assert "observation.memmap" in [path.name for path in left[0].rglob("*")]
            del parts
            gc.collect()
            assert not left[0].exists()
            left[0].mkdir()  # as of a session that was killed
    same_tables(tmp_path / "whole", tmp_path / "parts")
    equal(final(tmp_path / "whole"), final(tmp_path / "parts"))
    if kind == "memmap":
        assert whole.replay.sample(5)["observation"].dtype == torch.uint8


def job_of(folder: Path, *words: str) -> tuple[dict[str, Any], AgentJob]:
    given = ["experiment=minatar", "scale=smoke", "experiment.environment.id=NoisePictures-v0"]
    config = plain_config(
        compose_config([*given, "experiment.environment.changing=null", f"folder={folder}", *SMALLER, *words])
    )
    return config, AgentJob(config)


METHODS = {
    "continual_backprop": ["experiment.replacement.rate=0.05"],
    "redo": ["experiment.redo.period=10", "experiment.redo.threshold=0.9"],
    "layer_norm": [],
    "normalize_and_project": [],
    "spectral": [],
    "dropout": [],
    "periodic_reset": ["experiment.reset.period=20"],
    "periodic_last_layers_reset": ["experiment.reset.period=20"],
}


@pytest.mark.parametrize("method", METHODS)
def test_methods_apply_and_the_policy_is_read_from_the_run_folder(tmp_path: Path, method: str) -> None:
    config, job = job_of(tmp_path / "run", f"method={method}", *METHODS[method])
    with Run.open(tmp_path / "run", config, bar_position=None) as run:
        job.run(run)
    job.close()
    row = pd.read_csv(tmp_path / "run/metrics.csv").iloc[-1]
    assert np.isfinite(row["loss/value"])
    if method in ("continual_backprop", "redo"):
        assert row["surgery/replaced/q.1"] > 0
    if "reset" in method:
        assert row["surgery/resets"] == job.learner.gradient_steps // 20
    pictures = np.random.default_rng(0).integers(0, 255, (5, *SHAPE), np.uint8, endpoint=True)
    policy = load_policy(tmp_path / "run")
    with torch.no_grad():
        expected = job.learner.networks.bodies["q"](torch.from_numpy(pictures)).argmax(-1)
    assert policy.act(pictures).tolist() == expected.tolist()
    assert policy.act(pictures[3]) == expected[3]
    assert policy.act(pictures, sample=True).shape == (5,)


@pytest.mark.parametrize("wrong", [[[4, 3, 1], [4, 2, 1]], [[9, 3, 1]], [[10**6, 10**6, 1]]])
def test_a_configuration_of_other_convolutions_is_refused(tmp_path: Path, wrong: Any) -> None:
    config, job = job_of(tmp_path / "run", "method=backprop")
    job.close()
    state = {"bodies": {name: body.state_dict() for name, body in job.learner.networks.bodies.items()}}
    network = {**config["experiment"]["network"], "conv": wrong}
    with pytest.raises(ValueError, match="network.conv="):
        policy_of("dqn", network, state)


def test_methods_that_have_no_form_for_pictures_are_refused_in_a_line(tmp_path: Path) -> None:
    for method in ("crelu", "fourier", "online_norm"):
        with pytest.raises(ValueError, match=r"is for fully connected networks: choose"):
            job_of(tmp_path, f"method={method}")


def test_what_pictures_take_of_the_memory_is_told_before(tmp_path: Path) -> None:
    size = 10**12
    with pytest.raises(ValueError, match=r"agent.replay_buffer.size=1000000000000 would take 496,000.0 GB of memory"):
        job_of(tmp_path, "method=backprop", f"experiment.agent.replay_buffer.size={size}")
    with pytest.raises(ValueError, match=r"network.conv=\[\[1000000, 3, 1\], \[1000000, 3, 1\]\] would take"):
        job_of(tmp_path, "method=backprop", "experiment.network.conv=[[1000000,3,1],[1000000,3,1]]")
