"""How fast stacks train: run-steps per CPU-second against an ordinary loop of batch 1, in turn in one run.

The ordinary loop is an `nn.Module` with `torch.optim` (and the surgery companion) over the same stream, one run.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.nn import functional

from continual_agents.methods import Method
from supervised.images import Images
from supervised.learner import StackedLearner
from supervised.looped import LoopedLearner
from supervised.make import make_stream
from supervised.networks import ConvNet, Mlp, make_network
from supervised.permuted import PermutedImages
from supervised.streams import Stream
from tools.parser import Parser

SURGERY = {"rate": 1e-4, "maturity": 100, "decay": 0.99, "utility": "adaptable_contribution"}


@dataclasses.dataclass(frozen=True)
class Case:
    """One comparison.

    Attributes:
        name: as in the table.
        stream: seeds -> stream.
        network: settings of the network.
        runs: of the stack.
        steps: of the stack per round.
        plain_steps: of the ordinary loop per round.
        step_size: small enough to stay finite.
        fast: whether the compiled stack is measured too.
    """

    name: str
    stream: Callable[[range], Stream]
    network: dict[str, Any]
    runs: int
    steps: int
    plain_steps: int
    step_size: float = 0.003
    fast: bool = False


def mnist_sized(seeds: range) -> Stream:
    """Noise of MNIST's shape, for speed only."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand(2000, 784, generator=generator)
    return PermutedImages(seeds, Images("noise", pixels, torch.randint(0, 10, (2000,), generator=generator), 10))


def image_pairs(seeds: range) -> Stream:
    """Continual ImageNet's shapes on synthetic textures of 32 x 32."""
    kind = {"kind": "textures", "classes": 4, "side": 32, "train_images": 200, "test_images": 10, "epochs": 250}
    return make_stream({**kind, "batch": 100}, seeds)


CASES = {
    case.name: case
    for case in (
        Case("regression", lambda seeds: make_stream({"kind": "regression"}, seeds), {"hidden": [5]}, 100, 2000, 400,
             fast=True),
        Case("digits", lambda seeds: make_stream({"kind": "permuted", "data": "digits"}, seeds), {"hidden": [32, 32]},
             200, 400, 400),
        Case("784-100x3", mnist_sized, {"hidden": [100, 100, 100]}, 10, 300, 200),
        Case("784-2000x3", mnist_sized, {"hidden": [2000, 2000, 2000]}, 2, 12, 12),
        Case("conv 32x32", image_pairs, {"kind": "conv"}, 2, 3, 3, step_size=0.01),
    )
}  # fmt: skip


def stack_rounds(case: Case, operations: dict[str, Any], *, fast: bool) -> Iterator[float]:
    """Run-steps per CPU-second of a stack, round after round."""
    stream = case.stream(range(case.runs))
    learner = _learner(case, stream, operations, fast=fast)
    learner.learn(*stream.next(12))
    while True:
        done, started = 0, time.process_time()
        while done < case.steps:
            x, y = stream.next(case.steps - done)
            learner.learn(x, y)
            done += len(x)
        yield done * case.runs / (time.process_time() - started)


def _learner(case: Case, stream: Stream, operations: dict[str, Any], *, fast: bool) -> StackedLearner | LoopedLearner:
    network = make_network(case.network, stream.shape, stream.outputs)
    methods = [_method(case, operations)] * stream.runs
    if isinstance(network, ConvNet):
        return LoopedLearner(network, methods, range(stream.runs), loss=stream.loss)
    return StackedLearner(network, methods, range(stream.runs), loss=stream.loss, batch=stream.batch, fast=fast)


def _method(case: Case, operations: dict[str, Any]) -> Method:
    return Method(name="x", optimizer={"kind": "sgd", "step_size": case.step_size}, operations=operations)


def plain_rounds(case: Case, operations: dict[str, Any]) -> Iterator[float]:
    """Steps per CPU-second of one ordinary module, round after round."""
    stream = case.stream(range(1))
    network = make_network(case.network, stream.shape, stream.outputs)
    module = network.module(0)
    method = _method(case, operations)
    optimizer = method.make_optimizer(module.parameters())
    after = method.make_operations(module, optimizer, torch.Generator().manual_seed(0))
    loss_of = functional.cross_entropy if stream.loss == "cross_entropy" else functional.mse_loss
    while True:
        done, started = 0, time.process_time()
        while done < case.plain_steps:
            x, y = stream.next(case.plain_steps - done)
            for inputs, targets in zip(x[:, 0], y[:, 0], strict=True):
                optimizer.zero_grad()
                loss_of(module(inputs.flatten(1) if isinstance(network, Mlp) else inputs), targets).backward()
                optimizer.step()
                for operation in after:
                    operation.step()
            done += len(x)
        yield done / (time.process_time() - started)


def compare(case: Case, *, rounds: int, fast: bool) -> list[tuple[str, float]]:
    """Best of interleaved rounds for every way of running the case."""
    ways: dict[str, Iterator[float]] = {}
    for label, operations in (("backprop", {}), ("continual backprop", {"continual_backprop": SURGERY})):
        ways[f"{label}, plain loop"] = plain_rounds(case, operations)
        ways[f"{label}, stack of {case.runs}"] = stack_rounds(case, operations, fast=False)
        if fast and case.fast:
            ways[f"{label}, stack of {case.runs} compiled"] = stack_rounds(case, operations, fast=True)
    best = dict.fromkeys(ways, 0.0)
    for _ in range(rounds):
        for name, way in ways.items():
            best[name] = max(best[name], next(way))
    return list(best.items())


def copy_bandwidth() -> float:
    """Bytes per CPU-second that a large copy reads and writes."""
    source, target = torch.zeros(2**26), torch.empty(2**26)
    best = float("inf")
    for _ in range(5):
        started = time.process_time()
        target.copy_(source)
        best = min(best, time.process_time() - started)
    return 2 * source.numel() * 4 / best


def memory_floor(network: Mlp) -> float:
    """Bytes that a step of batch 1 cannot avoid: weights read and written once by the update, read once forward and
    once backward (not in the first layer)."""
    weights = [inputs * outputs for inputs, outputs in network.shapes]
    return 4.0 * (3 * sum(weights) + sum(weights[1:]))


def main(arguments: list[str]) -> None:
    """The command `python -m tools.benchmark streams`."""
    parser = Parser(prog="python -m tools.benchmark streams", description=__doc__)
    parser.add_argument("--cases", nargs="*", default=list(CASES), choices=list(CASES), help="which (all)")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds; the best counts (5)")
    parser.add_argument("--no-compile", action="store_true", help="leave the compiled stacks out")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    print("| case | run-steps/s | over the plain loop |\n|---|---|---|", flush=True)
    for name in chosen.cases:
        case = CASES[name]
        results = compare(case, rounds=chosen.rounds, fast=not chosen.no_compile)
        plain = {label.split(",")[0]: value for label, value in results if label.endswith("plain loop")}
        for label, value in results:
            print(f"| {name}: {label} | {value:,.0f} | {value / plain[label.split(',')[0]]:.1f} |", flush=True)
        if name == "784-2000x3":
            floor = memory_floor(Mlp(inputs=784, outputs=10, hidden=(2000, 2000, 2000)))
            stack = next(value for label, value in results if label.startswith("backprop, stack"))
            share = stack * floor / copy_bandwidth()
            print(f"| {name}: memory traffic of the stack as a share of a large copy's | {share:.0%} | |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
