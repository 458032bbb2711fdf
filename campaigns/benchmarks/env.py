"""The cost of a step: the bare simulator, our environments, PyBullet's original.

Every contestant goes through the same episodes: the same actions and seeds, friction 1.2. They take turns, one of some
hundred steps each in every round; the numbers are the process's CPU time, which other jobs disturb least, and the
ratios are medians over the rounds.
"""

from __future__ import annotations

import statistics
import time
import warnings
from typing import Any

import numpy as np
from gymnasium.utils import seeding

from envs import SlipperyAnt, SlipperyVectorEnv
from envs.quiet import silenced
from envs.walker import Walker
from tools.figures.table import markdown
from tools.parser import Parser

from ._turns import Turn, in_turn, machine, ratio

FRICTION = 1.2
MEMBERS = 8


def main(arguments: list[str]) -> None:
    """Run the comparison and print it as Markdown."""
    parser = Parser(prog="python -m campaigns.benchmark env", description=__doc__)
    parser.add_argument("--rounds", type=int, default=10, help="turns of each contestant (default 10)")
    parser.add_argument("--steps", type=int, default=500, help="steps of each environment per turn (default 500)")
    chosen = parser.parse_args(arguments)
    if chosen.rounds < 1 or chosen.steps < 1:
        parser.error(f"--rounds={chosen.rounds} --steps={chosen.steps}: both must be at least 1")
    print(f"{machine()}, one used; {chosen.rounds} rounds of {chosen.steps} steps\n")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # third parties' deprecations would tear the table apart
        measured = in_turn(contestants(chosen.steps), chosen.rounds)
        resets = in_turn(reset_contestants(), chosen.rounds)
    _print_table("step", measured)
    _print_table("reset", resets)


def contestants(steps: int) -> dict[str, Turn]:
    """What is compared; the first is the floor, the last the original."""
    actions = np.random.default_rng(0).uniform(-1, 1, (steps, 8)).astype(np.float32)
    return {
        "physics floor: torques + stepSimulation": floor(actions),
        "SlipperyAnt": single(SlipperyAnt(friction=FRICTION), actions),
        f"floor, {MEMBERS} simulators in turn": floor(actions, members=MEMBERS),
        f"SlipperyVectorEnv of {MEMBERS}, per member": vector(actions),
        "floor, merged links": floor(actions, merge_fixed_links=True),
        "SlipperyAnt, merged links": single(SlipperyAnt(friction=FRICTION, merge_fixed_links=True), actions),
        "AntBulletEnv-v0": single(_original(), actions),
    }


def reset_contestants() -> dict[str, Turn]:
    """The same for the beginning of an episode."""

    def turn(env: Any) -> Turn:
        env.reset(seed=0)
        still = np.zeros(8, np.float32)

        def run() -> float:
            seconds = 0.0
            for _ in range(50):
                env.step(still)
                start = time.process_time()
                env.reset()
                seconds += time.process_time() - start
            return seconds / 50

        return run

    return {"SlipperyAnt": turn(SlipperyAnt(friction=FRICTION)), "AntBulletEnv-v0": turn(_original())}


def _original() -> Any:
    # Without gymnasium's wrappers, which would make it slower still.
    from pybullet_envs_gymnasium.gym_locomotion_envs import AntBulletEnv

    return connected(AntBulletEnv())


def connected(original: Any) -> Any:
    """That environment after its first reset: PyBullet says `argv[0]=` there, in the middle of the table."""
    with silenced(1):
        original.reset(seed=0)
    return original


def floor(actions: np.ndarray, *, members: int = 1, merge_fixed_links: bool = False) -> Turn:
    """Nothing but torques and `stepSimulation`, and resets where the environment would have had them."""
    env = SlipperyAnt(friction=FRICTION, merge_fixed_links=merge_fixed_links)
    ends = _ends(env, actions)
    env.close()
    walkers = [Walker("ant", FRICTION, time_limit=None, merge_fixed_links=merge_fixed_links) for _ in range(members)]
    torques = [(250.0 * action).tolist() for action in actions.astype(float)]
    row = np.empty(28, np.float32)

    def run() -> float:
        for walker in walkers:
            walker.begin(seeding.np_random(0)[0], 0)
            walker.reset(row)
        worlds, motors = [walker.world for walker in walkers], walkers[0]._motors
        start = time.process_time()
        for step, torque in enumerate(torques):
            for world in worlds:
                world.step(motors, torque)
            if step in ends:
                for walker in walkers:
                    walker.reset(row)
        return (time.process_time() - start) / (len(actions) * members)

    return run


def _ends(env: SlipperyAnt, actions: np.ndarray) -> set[int]:
    env.reset(seed=0)
    ends = set()
    for step, action in enumerate(actions):
        if any(env.step(action)[2:4]):
            ends.add(step)
            env.reset()
    return ends


def single(env: Any, actions: np.ndarray) -> Turn:
    """One environment."""
    env.reset(seed=0)

    def run() -> float:
        env.reset(seed=0)
        start = time.process_time()
        for action in actions:
            _, _, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                env.reset()
        return (time.process_time() - start) / len(actions)

    return run


def vector(actions: np.ndarray) -> Turn:
    """Several members with the same seed and actions, so that all go through the same episodes."""
    env = SlipperyVectorEnv("ant", MEMBERS, friction=FRICTION)
    together = np.repeat(actions[:, None], MEMBERS, axis=1)

    def run() -> float:
        env.reset(seed=[0] * MEMBERS)
        start = time.process_time()
        for action in together:
            _, _, terminated, truncated, _ = env.step(action)
            over = terminated | truncated
            if over.any():
                env.reset(options={"reset_mask": over})
        return (time.process_time() - start) / (len(actions) * MEMBERS)

    return run


def _print_table(what: str, seconds: dict[str, list[float]]) -> None:
    first, last = next(iter(seconds)), list(seconds)[-1]
    rows = []
    for name, times in seconds.items():
        bests = min(times) / min(seconds[first]), min(seconds[last]) / min(times)
        numbers = ratio(times, seconds[first]), bests[0], ratio(seconds[last], times), bests[1]
        spans = [f"{1e6 * one:.0f}" for one in (statistics.median(times), min(times))]
        rows.append([name, *spans, *(f"{number:.2f}" for number in numbers)])
    headings = ["us, median", "us, best", "x the first", "of the bests", f"{last} / it", "of the bests"]
    print(markdown([what, *headings], rows))
