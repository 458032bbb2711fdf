"""The whole PPO loop against stable-baselines3's, the update against hand-written torch, and where the time goes.

Published settings everywhere: 2,048 steps per update, 10 epochs of 16 minibatches of 128, two networks of 28-256-256,
Adam 1e-4, one environment, one thread. All contestants take one turn (one batch and its update) in each round; the
numbers are the process's CPU time, which other jobs on the machine disturb least.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from tensordict import TensorDict
from torchrl.objectives import ClipPPOLoss

import envs
from continual_agents.agents import PPO, ActorCritic, EnvironmentCollector, make_actor_critic
from continual_agents.agents.training import Loop
from continual_agents.methods import Method
from continual_agents.plasticity import Probe
from continual_agents.runs import Run
from tools.figures.table import markdown
from tools.parser import Parser

from ._turns import Turn, in_turn, machine, ratio, timed
from .env import connected

FRAMES = 2048
PLAIN = Method(name="ppo", optimizer={"kind": "adam", "step_size": 1e-4})


def _surgical(maturity: int) -> Method:
    settings = {"rate": 1e-4, "maturity": maturity, "birth": "lecun_uniform"}
    optimizer = {"kind": "adam", "step_size": 1e-4, "betas": [0.99, 0.99], "weight_decay": 1e-4}
    return Method(name="continual_backprop", optimizer=optimizer, operations={"continual_backprop": settings})


# instead of 10,000: from the second round on units are replaced somewhat more often than late in a long run
SURGICAL = _surgical(maturity=100)


def main(arguments: list[str]) -> None:
    """Run the comparisons and print them as Markdown."""
    parser = Parser(prog="python -m campaigns.benchmark ppo", description=__doc__)
    parser.add_argument("--rounds", type=int, default=10, help="turns of each contestant (default 10)")
    parser.add_argument("--part", choices=["loop", "update", "policy"], help="one of the three tables only")
    given = parser.parse_args(arguments)
    rounds = given.rounds
    if rounds < 1:
        parser.error(f"--rounds={rounds}: at least 1")
    torch.set_num_threads(1)
    print(f"{machine()}, one thread used; {rounds} rounds, CPU time\n")
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")  # third parties' deprecations would tear the tables apart
        if given.part in (None, "loop"):
            compare_loops(rounds, Path(folder))
        if given.part in (None, "update"):
            compare_updates(rounds)
        if given.part in (None, "policy"):
            compare_policies()


def compare_loops(rounds: int, folder: Path) -> None:
    """Frames per second of the whole loop, and the shares of one training run."""
    with Run.open(folder / "run", {}, bar_position=None) as run:
        loop = _training(run)
        contestants: dict[str, Turn] = {
            "stable-baselines3, AntBulletEnv-v0": _baseline(_original()),
            "stable-baselines3, SlipperyAnt": _baseline(_slippery()),
            "ours, AntBulletEnv-v0": _ours(_original(), PLAIN),
            "ours, SlipperyAnt": _ours(_slippery(), PLAIN),
            "ours, SlipperyAnt, continual backprop": _ours(_slippery(), SURGICAL),
            "the same as a training run (tables, TensorBoard, probe)": timed(loop.step),
            "ours, SlipperyAnt, merged fixed joints": _ours(_slippery(merge_fixed_links=True), PLAIN),
            "ours, SlipperyVectorEnv of 8": _ours(envs.SlipperyVectorEnv("ant", 8, friction=1.2), PLAIN),
        }
        seconds = in_turn(contestants, rounds)
        timing = _read(folder / "run" / "timing.csv")
    first, second = list(contestants)[:2]
    rows = []
    for name, times in seconds.items():
        ratios = [ratio(seconds[base], times) for base in (first, second)]
        rows.append([name, f"{FRAMES / statistics.median(times):,.0f}", f"{FRAMES / min(times):,.0f}"])
        rows[-1] += [f"{ratio:.2f}" for ratio in ratios]
    print(markdown(["loop", "frames/s, median", "best", "x SB3, AntBulletEnv-v0", "x SB3, SlipperyAnt"], rows))
    names = {
        "environment": "environment",
        "policy": "policy and collector",
        "update": "update, with what surgery records in forward passes",
        "surgery": "surgery's steps",
        "look": "reports, and the probe every tenth update",
        "write": "tables and TensorBoard",
    }
    means = {name: statistics.fmean(timing[f"time/{part}_seconds"][1:]) for part, name in names.items()}
    whole = sum(means.values())
    print("Where that training run spends its time (wall clock; no look among the first ten updates but the first):\n")
    shares = [[part, f"{1e3 * mean:.0f}", f"{100 * mean / whole:.1f}%"] for part, mean in means.items()]
    print(markdown(["part", "ms per update", "share"], shares))


def compare_updates(rounds: int) -> None:
    """One update (advantages, 160 gradient steps) on the same batch."""
    batch = _random_batch()
    contestants = {
        "hand-written torch, fused Adam": _by_hand(batch, fused=True),
        "hand-written torch, default Adam": _by_hand(batch, fused=False),
        "ours": _update_only(batch, PLAIN),
        "ours with TorchRL's ClipPPOLoss": _update_only(batch, PLAIN, stock_loss=True),
        "ours, continual PPO's Adam, no surgery": _update_only(
            batch, Method(name="adam", optimizer=SURGICAL.optimizer)
        ),
        "ours, continual backprop, nobody mature yet": _update_only(batch, _surgical(maturity=1_000_000)),
        "ours, continual backprop, replacing": _update_only(batch, SURGICAL),
    }
    seconds = in_turn(contestants, rounds)
    base = seconds["hand-written torch, fused Adam"]
    rows = []
    for name, times in seconds.items():
        ends = [f"{1e3 * one:.0f}" for one in (statistics.median(times), min(times))]
        rows.append([name, *ends, f"{ratio(times, base):.2f}"])
    print(markdown(["update", "ms, median", "best", "x hand-written, fused"], rows))


def compare_policies(calls: int = 2000) -> None:
    """One action for one observation."""
    networks = _networks(28, 8)
    observation, noise = np.zeros((1, 28), np.float32), np.zeros((1, 8), np.float32)
    fast, row = networks.policy.actor(1), TensorDict({"observation": torch.zeros(1, 28)}, [1])
    contestants: dict[str, Callable[[], object]] = {
        "TorchRL's ProbabilisticActor": lambda: networks.actor(row),
        "the policy's torch code": lambda: networks.policy.act(torch.from_numpy(observation), torch.from_numpy(noise)),
        "the policy in NumPy, as the collector calls it": lambda: fast(observation, noise),
    }
    with torch.no_grad():
        seconds = in_turn({name: timed(work, count=calls) for name, work in contestants.items()}, 5)
    print(markdown(["policy, one action", "us"], [[name, f"{1e6 * min(t):.0f}"] for name, t in seconds.items()]))


def _original() -> gymnasium.Env[Any, Any]:
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        import pybullet_envs_gymnasium  # noqa: F401 - registers the environment

    return connected(gymnasium.make("AntBulletEnv-v0", disable_env_checker=True))


def _slippery(**settings: Any) -> gymnasium.Env[Any, Any]:
    return envs.SlipperyAnt(friction=1.2, **settings)


def _networks(observation: int, actions: int) -> ActorCritic:
    box = gymnasium.spaces.Box
    generator = torch.Generator().manual_seed(0)
    return make_actor_critic(box(-5, 5, (observation,)), box(-1, 1, (actions,)), generator=generator)


def _learner(method: Method) -> PPO:
    networks = _networks(28, 8)
    optimizer = method.make_optimizer(networks.parameters())
    operations = method.make_operations(networks.bodies, optimizer, torch.Generator().manual_seed(1))
    return PPO(networks, optimizer, operations, generator=torch.Generator().manual_seed(2))


def _ours(environment: Any, method: Method) -> Turn:
    ppo = _learner(method)
    collector = EnvironmentCollector(environment, ppo.networks, frames=FRAMES)
    return timed(lambda: ppo.update(collector.collect()))


def _training(run: Run) -> Loop:
    ppo = _learner(SURGICAL)
    collector = EnvironmentCollector(_slippery(), ppo.networks, frames=FRAMES)
    return Loop(run, collector, ppo, Probe(ppo.networks.bodies), 10, FRAMES)


def _baseline(environment: gymnasium.Env[Any, Any]) -> Turn:
    from stable_baselines3 import PPO as BaselinePPO

    layers = {"net_arch": {"pi": [256, 256], "vf": [256, 256]}, "activation_fn": torch.nn.ReLU}
    model = BaselinePPO(
        "MlpPolicy", environment, learning_rate=1e-4, n_steps=FRAMES, batch_size=128, n_epochs=10, seed=0,
        policy_kwargs=layers, device="cpu",
    )  # fmt: skip
    return timed(lambda: model.learn(FRAMES, reset_num_timesteps=False))


def _random_batch() -> TensorDict:
    generator = torch.Generator().manual_seed(0)
    done = torch.zeros(FRAMES, 1, dtype=torch.bool)
    done[199::200] = True
    following = {
        "observation": torch.randn(FRAMES, 28, generator=generator),
        "reward": torch.randn(FRAMES, 1, generator=generator),
        "terminated": done,
        "truncated": torch.zeros_like(done),
        "done": done,
    }
    action = torch.randn(FRAMES, 8, generator=generator)
    own = {
        "observation": torch.randn(FRAMES, 28, generator=generator),
        "action": action,
        "action_log_prob": torch.distributions.Normal(0.0, 1.0).log_prob(action).sum(-1),
    }
    return TensorDict({**own, "next": TensorDict(following, [FRAMES])}, [FRAMES])


def _update_only(batch: TensorDict, method: Method, *, stock_loss: bool = False) -> Turn:
    ppo = _learner(method)
    if stock_loss:
        networks = ppo.networks
        stock = ClipPPOLoss(
            networks.actor, networks.critic, functional=False, entropy_bonus=False, loss_critic_type="l2",
            log_explained_variance=False,
        )  # fmt: skip
        zero = torch.zeros(())
        ppo.loss = lambda minibatch: stock(minibatch).update({"kl": zero, "entropy": zero})  # type: ignore[assignment]
    return timed(lambda: ppo.update(batch))


def _by_hand(batch: TensorDict, *, fused: bool) -> Turn:
    """Textbook PPO in plain torch on the same networks, nothing measured, nothing checked."""
    networks = _networks(28, 8)
    actor, critic, log_std = *networks.bodies.values(), networks.parameters()[0]
    optimizer = torch.optim.Adam(networks.parameters(), lr=1e-4, fused=fused)
    generator = torch.Generator().manual_seed(2)
    observation, action, old = (batch[name] for name in ("observation", "action", "action_log_prob"))
    reward, done = batch["next", "reward"][:, 0], batch["next", "done"][:, 0].float()

    def advantages() -> tuple[torch.Tensor, torch.Tensor]:
        with torch.no_grad():
            value, following = critic(observation)[:, 0], critic(batch["next", "observation"])[:, 0]
        deltas = (reward + 0.99 * following * (1 - done) - value).tolist()
        decays = (0.99 * 0.95 * (1 - done)).tolist()
        running, result = 0.0, []
        for delta, decay in zip(reversed(deltas), reversed(decays), strict=True):
            running = delta + decay * running
            result.append(running)
        advantage = torch.tensor(result[::-1])
        return (advantage - advantage.mean()) / advantage.std(), advantage + value

    def update() -> None:
        advantage, target = advantages()
        for _ in range(10):
            for i in torch.randperm(FRAMES, generator=generator).split(128):
                policy = torch.distributions.Normal(actor(observation[i]), log_std.exp(), validate_args=False)
                ratio = (policy.log_prob(action[i]).sum(-1) - old[i]).exp()
                surrogate = torch.minimum(ratio * advantage[i], ratio.clamp(0.8, 1.2) * advantage[i]).mean()
                loss = (critic(observation[i])[:, 0] - target[i]).square().mean() - surrogate
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()

    return timed(update)


def _read(path: Path) -> dict[str, list[float]]:
    header, *rows = (line.split(",") for line in path.read_text().splitlines())
    return {name: [float(row[column]) for row in rows] for column, name in enumerate(header)}
