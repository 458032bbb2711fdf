"""Which utility and which birth keep a small network learning? `python -m tools.compare_surgery`.

Permuted digits: every task shows scikit-learn's 1,797 digits once, their pixels in a new order; a 64-32-32-10 ReLU
network learns online with plain SGD, batch 1. Every setting sees the same seeds, so differences are paired by seed.
All births of one utility train as one stack; they come from `surgery.BIRTHS` and see what they see in a companion.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from continual_agents import surgery
from continual_agents.methods import Method
from continual_agents.surgery.births import birth_of
from continual_agents.surgery.selection import Budget
from supervised.draws import Draw, torch_draws
from supervised.networks import Mlp
from supervised.stacked.learner import StackedLearner
from supervised.stacked.surgeon import Surgeon
from supervised.streams.stream import Stream
from supervised.streams.table import make_stream
from tools.figures.estimates import estimate_one
from tools.parser import Parser

REFERENCE = ("contribution", "default")
RECENT = 64
"""Latest examples of a run that a birth may look at."""


class Midwife(Surgeon):
    """A surgeon whose units are born as `surgery.BIRTHS` says.

    Args:
        learner: whose units are replaced.
        births: per run, a name in `surgery.BIRTHS`.
    """

    def __init__(self, learner: StackedLearner, births: Sequence[str]) -> None:
        super().__init__(learner.stack, learner.optimizer, [{}])
        self.learner, self.births = learner, [birth_of(birth) for birth in births]
        self._places: dict[tuple[int, int], Tensor] = {}
        self._biases: dict[tuple[int, int], Tensor] = {}
        self._examples, self._start = torch.empty(0), 0

    def show(self, x: Tensor) -> None:
        """The examples `[steps, runs, 1, inputs]` that come next; the last ones before are kept."""
        kept = self._examples[-RECENT:] if len(self._examples) else x[:0]
        self._examples, self._start = torch.cat([kept, x]), self.learner.steps - len(kept)

    def replace(self, jobs: Sequence[tuple[int, Sequence[int], Tensor, Tensor | None]]) -> None:
        """As `Surgeon.replace`, with biases where the birth gives some."""
        self._places = {(layer, run): units[i] for layer, runs, units, _ in jobs for i, run in enumerate(runs)}
        super().replace(jobs)
        for (layer, run), bias in self._biases.items():
            self.stack.layers[layer].bias[run, self._places[layer, run]] = bias
        self._biases.clear()

    def newborn(self, run: int, layer: int, count: int) -> Tensor:
        """In-weights of `count` new units `[count, inputs]` of one run."""
        made = self.stack.layers[layer]
        born = self.births[run](
            surgery.Birth(
                shape=(count, made.inputs),
                fan_in=made.inputs,
                fan_out=made.outputs,
                bound=self.stack.network.bounds[layer],
                weight=made.weight[run].T,
                index=self._places[layer, run],
                generator=torch_draws(self.stack.seeds[run], Draw.NEWBORN, layer, int(self.born[run, layer])),
                inputs=self._inputs(run, layer),
                present_bias=made.bias[run],
            )
        )
        if isinstance(born, tuple):
            born, self._biases[layer, run] = born
        return born

    def _inputs(self, run: int, layer: int) -> Tensor:
        """What the layer reads of the latest examples, with the weights as they are."""
        seen = self.learner.steps - self._start
        h = self._examples[max(seen - RECENT, 0) : seen, run, 0]
        for made in self.stack.layers[:layer]:
            h = torch.relu(h @ made.weight[run] + made.bias[run])
        return h


def main(arguments: list[str] | None = None) -> None:
    """Train everything, write the table of runs, print the comparison."""
    parser = Parser(prog="python -m tools.compare_surgery", description=__doc__)
    parser.add_argument("--seeds", type=int, default=20, help="runs of each setting (default 20)")
    parser.add_argument("--tasks", type=int, default=20, help="permutations (default 20)")
    parser.add_argument("--step-sizes", type=float, nargs="+", default=[0.01, 0.02], help="of SGD (default .01 .02)")
    parser.add_argument("--rate", type=float, default=1e-4, help="share of the mature units replaced per step")
    parser.add_argument("--maturity", type=int, default=100, help="steps before a unit may be replaced")
    parser.add_argument(
        "--grid", choices=("cross", "full"), default="cross", help="all pairs, or those of the reference"
    )
    parser.add_argument("--csv", type=Path, default=Path("runs/compare_surgery.csv"), help="where the runs are written")
    chosen = parser.parse_args(arguments)
    if chosen.seeds < 2 or chosen.tasks < 2:
        parser.error(f"--seeds={chosen.seeds} --tasks={chosen.tasks}: at least 2 of each")
    try:
        for size in chosen.step_sizes:
            Method(name="SGD", optimizer={"kind": "sgd", "step_size": size})
        Budget(1, chosen.rate, chosen.maturity)
        chosen.csv.parent.mkdir(parents=True, exist_ok=True)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    results: dict[tuple[str, str], np.ndarray] = {}
    for utility, births in settings(chosen.grid).items():
        accuracy = train(utility, births, chosen)
        for birth, part in zip(births, accuracy, strict=True):
            results[utility, birth] = part
            print(f"{utility} + {birth}: {part.mean():.4f}", flush=True)
        write(chosen.csv, results, chosen)
    for number, step_size in enumerate(chosen.step_sizes):
        print(f"\nstep size {step_size:g}, {chosen.seeds} seeds, {chosen.tasks} tasks\n")
        print(table({pair: accuracy[number] for pair, accuracy in results.items()}))


def settings(grid: str) -> dict[str, list[str]]:
    """Utility -> births that are tried with it; plain backprop first, then the reference."""
    every = [REFERENCE[1], *(birth for birth in surgery.BIRTHS if birth != REFERENCE[1])]
    others = [utility for utility in surgery.UTILITIES if utility != REFERENCE[0]]
    chosen = {"none": ["none"], REFERENCE[0]: every}
    return chosen | dict.fromkeys(others, every if grid == "full" else every[:1])


def train(utility: str, births: Sequence[str], chosen: argparse.Namespace) -> np.ndarray:
    """Online accuracy of every task, `[births, step sizes, seeds, tasks]`; all of them train as one stack."""
    shape = (len(births), len(chosen.step_sizes), chosen.seeds)
    operation = {"rate": chosen.rate, "maturity": chosen.maturity, "utility": utility}
    operations: dict[str, Any] = {} if utility == "none" else {"continual_backprop": operation}
    runs = [(birth, size, seed) for birth in births for size in chosen.step_sizes for seed in range(chosen.seeds)]
    methods = [
        Method(name=utility, optimizer={"kind": "sgd", "step_size": size}, operations=operations) for _, size, _ in runs
    ]
    seeds = [seed for *_, seed in runs]
    stream = make_stream({"kind": "permuted", "data": "digits"}, seeds)
    learner = StackedLearner(Mlp(inputs=64, outputs=10, hidden=(32, 32)), methods, seeds, loss=stream.loss)
    midwife = None
    if operations:
        midwife = Midwife(learner, [birth for birth, *_ in runs])
        learner.operations["continual_backprop"].surgeon = midwife  # type: ignore[attr-defined]
    per_task = [_one_task(learner, stream, midwife) for _ in range(chosen.tasks)]
    return np.stack(per_task, axis=-1).reshape(*shape, chosen.tasks)


def _one_task(learner: StackedLearner, stream: Stream, midwife: Midwife | None) -> np.ndarray:
    right, done = np.zeros(learner.runs), 0
    while done < stream.task_steps:
        x, y = stream.next(min(stream.task_steps - done, 600))
        if midwife:
            midwife.show(x)
        right = right + learner.learn(x, y).sum(0, dtype=torch.float64).numpy()
        done += len(x)
    return right / done


def write(path: Path, results: dict[tuple[str, str], np.ndarray], chosen: argparse.Namespace) -> None:
    """One row per run and task."""
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["utility", "birth", "step_size", "seed", "task", "online_accuracy"])
        for (utility, birth), accuracy in results.items():
            for (number, seed, task), value in np.ndenumerate(accuracy):
                rows.writerow([utility, birth, chosen.step_sizes[number], seed, task, f"{value:.6f}"])


def table(results: dict[tuple[str, str], np.ndarray]) -> str:
    """Markdown: accuracy over the last half of the tasks, and its paired difference to the reference."""
    lines = [
        "| utility | birth | first task | last half | less the reference | seeds above it |",
        "|---|---|---|---|---|---|",
    ]
    late = {pair: accuracy[:, accuracy.shape[1] // 2 :].mean(1) for pair, accuracy in results.items()}
    for (utility, birth), values in late.items():
        mean, low, high = interval(values)
        first = results[utility, birth][:, 0].mean()
        row = f"| {utility} | {birth} | {first:.3f} | {mean:.3f} [{low:.3f}, {high:.3f}] |"
        if (utility, birth) == REFERENCE:
            lines.append(f"{row} - | - |")
            continue
        differences = values - late[REFERENCE]
        mean, low, high = interval(differences)
        above = f"{(differences > 0).sum()} of {len(differences)}"
        lines.append(f"{row} {mean:+.4f} [{low:+.4f}, {high:+.4f}] | {above} |")
    return "\n".join(lines)


def interval(values: np.ndarray) -> tuple[float, float, float]:
    """Mean and bootstrapped 95% interval over runs."""
    return estimate_one(values)


if __name__ == "__main__":
    main()
