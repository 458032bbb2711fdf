"""The cost of a checkpoint: what each kind of run saves, how long it takes, its share of a run at the default period.

Each run is a real one of its published size (textures: the demonstration's), stopped after a few checkpoints. Times are
wall-clock, with gathering the state, fsync and digest. The replay buffer of an off-policy agent is a log beside the
checkpoints: its lines are what a minute adds, of the ant at 1,000 environment steps a second and of MinAtar at 500.
"""

from __future__ import annotations

import signal
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tensordict import TensorDict
from torch import Tensor

from continual_agents.agents.replay import Replay
from continual_agents.runs import Run
from tools.figures.table import markdown
from tools.parser import Parser
from tools.train import build, jobs

RUNS: dict[str, list[str]] = {
    "slippery_ant, continual_backprop": ["experiment=slippery_ant", "method=continual_backprop", "scale=paper"],
    "dqn_cartpole, continual_backprop": ["experiment=dqn_cartpole", "method=continual_backprop"],
    "sac_pendulum, continual_backprop": ["experiment=sac_pendulum", "method=continual_backprop"],
    "permuted_digits, 7 methods x 20": ["experiment=permuted_digits", "scale=paper"],
    "slowly_changing_regression, 5 methods x 100": ["experiment=slowly_changing_regression", "scale=paper"],
    "texture_pairs, 2 methods x 2": ["experiment=texture_pairs", "scale=demo"],
    "warm_start, 3 methods x 30": ["experiment=warm_start", "scale=paper"],
}

LOGS = (
    ("the ant", 1_000, torch.rand(28), torch.rand(8)),
    ("MinAtar", 500, torch.randint(2, (10, 10, 10), dtype=torch.uint8), torch.tensor(0)),
)
"""Replay logs: of what, environment steps a second, an observation and an action."""

PERIOD = 60.0
"""`save_seconds` of configs/train.yaml."""


class Counted(Run):
    """A run that notes what its checkpoints cost and asks itself to stop after some of them."""

    most = 5
    costs: list[float]
    bytes = 0

    def save(self, step: int, state: Mapping[str, Any], **more: Any) -> None:
        """Save, and note it."""
        super().save(step, state, **more)
        self.costs = [*getattr(self, "costs", []), self.save_cost]
        self.bytes = max(path.stat().st_size for path in (self.folder / "checkpoints").glob("*.pt"))
        if len(self.costs) >= self.most:
            signal.raise_signal(signal.SIGTERM)


def main(arguments: list[str]) -> None:
    """Run them and print the table."""
    parser = Parser(prog="python -m campaigns.benchmark checkpoints", description=__doc__)
    parser.add_argument("--saves", type=int, default=7, help="checkpoints of each run; the median counts (default: 7)")
    chosen = parser.parse_args(arguments)
    if chosen.saves < 1:
        parser.error(f"--saves={chosen.saves}: at least 1")
    torch.set_num_threads(1)
    rows = [*(row(name, words, chosen.saves) for name, words in RUNS.items())]
    rows += [replay_row(chosen.saves, *one) for one in LOGS]
    print(markdown(["run", "checkpoint, MB", "one, ms", f"share at save_seconds={PERIOD:.0f}"], rows), end="")


def row(name: str, words: Sequence[str], saves: int) -> list[str]:
    """One run of the table."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "run"
        (config,) = jobs([*words, f"folder={folder}"])
        job = build(config)
        try:
            with Counted.open(folder, config, save_seconds=0, bar_position=None) as run:
                assert isinstance(run, Counted)
                run.most = saves
                job.run(run)
        finally:
            job.close()
        cost = statistics.median(run.costs)
        return [name, f"{run.bytes / 1e6:.2f}", f"{1e3 * cost:.1f}", f"{cost / (PERIOD + cost):.3%}"]


def replay_row(saves: int, of: str, speed: int, observation: Tensor, action: Tensor) -> list[str]:
    """The replay log of an agent that takes `speed` steps a second and sees and does such things."""
    count = round(speed * PERIOD)
    replay = Replay(count * saves, torch.Generator())

    def many(one: Tensor) -> Tensor:
        return one.expand(count, *one.shape).clone()

    following = {"observation": many(observation), "reward": torch.rand(count, 1)}
    following["terminated"] = torch.zeros(count, 1, dtype=torch.bool)
    own = {"observation": many(observation), "action": many(action)}
    rows = TensorDict({**own, "next": TensorDict(following, [count])}, [count])
    costs = []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(saves):
            replay.extend(rows)
            started = time.perf_counter()
            replay.save(Path(folder))
            costs.append(time.perf_counter() - started)
        size = max(path.stat().st_size for path in Path(folder).iterdir())
    cost = statistics.median(costs)
    name = f"replay log, {count:,} transitions of {of}"
    return [name, f"{size / 1e6:.2f}", f"{1e3 * cost:.1f}", f"{cost / (PERIOD + cost):.3%}"]
