"""How fast several runs of a convolutional network train: one after the other, stacked, and as CUDA graphs.

Ways in turn in one process. On a CPU a step is timed by processor time, on a GPU by the clock on the wall. Whether the
ways' weights agree with the loop's is checked.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from campaigns.benchmarks.conv import CASES, Case, batches
from campaigns.benchmarks.streams import SURGERY
from continual_agents.methods import Method
from supervised.looped import LoopedLearner
from supervised.networks import make_network
from tools.parser import Parser

from ._turns import clock_of, in_turn, timed

LEARNING = {"kind": "sgd", "step_size": 0.01, "momentum": 0.9}


class Stack:
    """Several runs of a network as one, by `torch.func`: their convolutions become grouped ones.

    Args:
        case: the network; one without running statistics.
        runs: how many.
        device: where.
    """

    def __init__(self, case: Case, runs: int, device: str):
        modules = [make_network(case.network, case.shape, case.outputs).module(seed).to(device) for seed in range(runs)]
        self.parameters, _ = torch.func.stack_module_state(modules)
        self.velocities = {name: torch.zeros_like(value) for name, value in self.parameters.items()}

        def loss(parameters: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
            return functional.cross_entropy(torch.func.functional_call(modules[0], parameters, (x,)), y)

        self.gradients = torch.func.vmap(torch.func.grad(loss))

    @torch.no_grad()
    def step(self, x: Tensor, y: Tensor) -> None:
        """One gradient step of every run: `x [runs, batch, ...]`."""
        gradients = self.gradients(self.parameters, x, y)
        for name, velocity in self.velocities.items():
            velocity.mul_(0.9).add_(gradients[name])
            self.parameters[name].sub_(velocity, alpha=0.01)

    def learn(self, x: Tensor, y: Tensor) -> None:
        """As `LoopedLearner.learn`."""
        for inputs, targets in zip(x, y, strict=True):
            self.step(inputs, targets)


class CapturedStack(Stack):
    """The same as a CUDA graph of one step."""

    graph: torch.cuda.CUDAGraph | None = None
    warm = 0

    def learn(self, x: Tensor, y: Tensor) -> None:
        """As `LoopedLearner.learn`."""
        for inputs, targets in zip(x, y, strict=True):
            if self.graph is None and self.warm < 3:
                self.warm += 1
                self.step(inputs, targets)
                continue
            if self.graph is None:
                self.x, self.y = inputs.clone(), targets.clone()
                torch.cuda.synchronize()
                self.graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(self.graph):
                    self.step(self.x, self.y)
            self.x.copy_(inputs)
            self.y.copy_(targets)
            self.graph.replay()


def looped(case: Case, runs: int, device: str, *, surgery: bool, fast: bool) -> LoopedLearner:
    """The streams' own learner of such networks."""
    settings = {"continual_backprop": SURGERY} if surgery else {}
    methods = [Method(name="x", optimizer=LEARNING, operations=settings)] * runs
    network = make_network(case.network, case.shape, case.outputs)
    return LoopedLearner(network, methods, range(runs), loss="cross_entropy", device=device, fast=fast)


def compare(case: Case, runs: int, *, rounds: int, steps: int, device: str) -> dict[str, tuple[float, float]]:
    """By way: run-steps per second, and the largest difference of a weight to the loop's after as many steps."""
    gpu = device != "cpu"
    x, y = _data(case, runs, steps, device)
    ways: dict[str, Callable[[], Stack | LoopedLearner]] = {
        "loop": lambda: looped(case, runs, device, surgery=False, fast=False),
        "loop, continual backprop": lambda: looped(case, runs, device, surgery=True, fast=False),
    }
    if gpu:
        ways["loop, again"] = ways["loop"]  # a GPU's sums are in no fixed order: how far off is the same again?
        ways["graph of the loop"] = lambda: looped(case, runs, device, surgery=False, fast=True)
        ways["graph of the loop, continual backprop"] = lambda: looped(case, runs, device, surgery=True, fast=True)
    if case.network["kind"] == "conv":  # running statistics do not stack
        ways["torch.func"] = lambda: Stack(case, runs, device)
        if gpu:
            ways["graph of torch.func"] = lambda: CapturedStack(case, runs, device)
    made = {name: make() for name, make in ways.items()}
    turns = {name: timed(functools.partial(one.learn, x, y), clock=clock_of(device)) for name, one in made.items()}
    return {name: (runs * steps / min(taken), difference(made, name)) for name, taken in in_turn(turns, rounds).items()}


def _data(case: Case, runs: int, steps: int, device: str) -> tuple[Tensor, Tensor]:
    """Noise and random classes `[steps, runs, batch, ...]`."""
    x, y = zip(*batches(case, runs * steps), strict=True)
    shape = steps, runs, case.batch
    return torch.stack(x).view(*shape, *case.shape).to(device), torch.stack(y).view(shape).to(device)


def difference(made: dict[str, Stack | LoopedLearner], name: str) -> float:
    """Largest difference of a weight to the loop's with the same method."""
    reference = made["loop, continual backprop" if name.endswith("continual backprop") else "loop"]
    assert isinstance(reference, LoopedLearner)
    mine = made[name]
    trained = mine.trained() if isinstance(mine, LoopedLearner) else mine.parameters
    return max(float((trained[key].detach() - value).abs().max()) for key, value in reference.trained().items())


def main(arguments: list[str]) -> None:
    """The command `python -m campaigns.benchmark conv_runs`."""
    parser = Parser(prog="python -m campaigns.benchmark conv_runs", description=__doc__)
    parser.add_argument("--cases", nargs="*", default=list(CASES)[:1], choices=list(CASES), help="which (the first)")
    parser.add_argument("--runs", nargs="*", type=int, default=[4], help="how many at once (4)")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds; the least time counts (5)")
    parser.add_argument("--steps", type=int, default=3, help="gradient steps a round (3)")
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    print("| network | runs | way | run-steps/s | weights off the loop's |\n|---|---|---|---|---|", flush=True)
    for name in chosen.cases:
        for runs in chosen.runs:
            found = compare(CASES[name], runs, rounds=chosen.rounds, steps=chosen.steps, device=chosen.device)
            for way, (rate, off) in found.items():
                print(f"| {name} | {runs} | {way} | {rate:,.1f} | {off:.1g} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
