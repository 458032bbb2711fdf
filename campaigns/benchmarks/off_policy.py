"""DQN and SAC against stable-baselines3's: environment, acting, replay buffer and gradient steps, at equal settings.

One gradient step per environment step, taken ten at a time; DQN on CartPole-v1 with batches of 64, SAC on Pendulum-v1
with batches of 256, two hidden layers of the width that the table says, one environment, one thread. All contestants
take one turn (`--frames` environment steps and their gradient steps) in each round; the numbers are the process's CPU
time, which other jobs on the machine disturb least.
"""

from __future__ import annotations

import statistics
import warnings
from typing import Any

import gymnasium
import torch

from continual_agents.agents import AGENTS, EnvironmentCollector, make_environment, rescale_actions
from continual_agents.methods import Method
from tools.figures.table import markdown
from tools.parser import Parser

from ._turns import Turn, in_turn, machine, ratio, timed

PLAIN = Method(name="adam", optimizer={"kind": "adam", "step_size": 1e-3})
SURGICAL = Method(
    name="continual_backprop",
    optimizer=PLAIN.optimizer,
    operations={"continual_backprop": {"rate": 1e-4, "maturity": 100}},
)
ENVIRONMENTS = {"dqn": "CartPole-v1", "sac": "Pendulum-v1"}
BATCH = {"dqn": 64, "sac": 256}
KINDS = [("dqn", 64), ("dqn", 256), ("sac", 64), ("sac", 256)]
SIZE = 50_000  # of the replay buffer


def main(arguments: list[str]) -> None:
    """Run the comparison and print it as Markdown."""
    parser = Parser(prog="python -m campaigns.benchmark off_policy", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="turns of each contestant (default 5)")
    parser.add_argument("--frames", type=int, default=500, help="environment steps of a turn (default 500)")
    given = parser.parse_args(arguments)
    if given.rounds < 1 or given.frames < 10 or given.frames % 10:
        parser.error(
            f"--rounds={given.rounds} --frames={given.frames}: at least one round, and a multiple of 10 frames"
        )
    torch.set_num_threads(1)
    print(f"{machine()}, one thread used; {given.rounds} rounds, CPU time\n")
    rows = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # third parties' deprecations would tear the table apart
        for kind, width in KINDS:
            named = f"{kind.upper()} {width}"
            contestants = {
                f"stable-baselines3, {named}": theirs(kind, width, given.frames),
                f"ours, {named}": ours(kind, width, PLAIN, given.frames),
                f"ours, {named}, continual backprop": ours(kind, width, SURGICAL, given.frames),
            }
            seconds = in_turn(contestants, given.rounds)
            base = next(iter(seconds.values()))
            for name, times in seconds.items():
                rows.append([name, f"{given.frames / statistics.median(times):,.0f}", f"{ratio(base, times):.2f}"])
    print(markdown(["agent", "frames/s, median", "x stable-baselines3"], rows))


def ours(kind: str, width: int, method: Method, frames: int) -> Turn:
    """A turn of this project's agent, past its random beginning."""
    environment = make_environment(ENVIRONMENTS[kind])
    environment = rescale_actions(environment) if kind == "sac" else environment
    networks = AGENTS[kind].make_networks(
        environment.observation_space, environment.action_space, hidden=[width, width],
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    optimizer = method.make_optimizer(networks.parameters())
    operations = method.make_operations(networks.bodies, optimizer, torch.Generator().manual_seed(1))
    same = {"double": False} if kind == "dqn" else {}  # stable-baselines3 has no double DQN, which is a pass more
    learner = AGENTS[kind].learner(
        networks, optimizer, operations, generator=torch.Generator().manual_seed(2), init_random_frames=0,
        batch_size=BATCH[kind], replay_buffer={"size": SIZE}, **same,
    )  # fmt: skip
    collector = EnvironmentCollector(environment, networks, frames=learner.frames_per_batch)
    return timed(lambda: [learner.update(collector.collect()) for _ in range(frames // learner.frames_per_batch)])


def theirs(kind: str, width: int, frames: int) -> Turn:
    """A turn of stable-baselines3's."""
    from stable_baselines3 import DQN, SAC

    agent: Any = {"dqn": DQN, "sac": SAC}[kind]
    model = agent(
        "MlpPolicy", gymnasium.make(ENVIRONMENTS[kind]), learning_rate=1e-3, learning_starts=0, seed=0, device="cpu",
        train_freq=10, gradient_steps=10, batch_size=BATCH[kind], buffer_size=SIZE,
        policy_kwargs={"net_arch": [width, width]},
    )  # fmt: skip
    return timed(lambda: model.learn(frames, reset_num_timesteps=False))
