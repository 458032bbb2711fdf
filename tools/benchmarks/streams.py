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
from torch.utils.flop_counter import FlopCounterMode

from continual_agents.methods import Method
from supervised.looped import LoopedLearner
from supervised.networks import Mlp, make_network
from supervised.stacked.learner import StackedLearner
from supervised.streams.images import Images
from supervised.streams.permuted import PermutedImages
from supervised.streams.stream import Stream
from supervised.streams.table import make_stream
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
    """

    name: str
    stream: Callable[[range], Stream]
    network: dict[str, Any]
    runs: int
    steps: int
    plain_steps: int
    step_size: float = 0.003


def mnist_sized(seeds: range) -> Stream:
    """Noise of MNIST's shape, for speed only; 81% of the pixels are 0, as in MNIST."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand(2000, 784, generator=generator) * (torch.rand(2000, 784, generator=generator) < 0.19)
    return PermutedImages(seeds, Images("noise", pixels, torch.randint(0, 10, (2000,), generator=generator), 10))


def image_pairs(seeds: range) -> Stream:
    """Continual ImageNet's shapes on synthetic textures of 32 x 32."""
    kind = {"kind": "textures", "classes": 4, "side": 32, "train_images": 200, "test_images": 10, "epochs": 250}
    return make_stream({**kind, "batch": 100}, seeds)


CASES = {
    case.name: case
    for case in (
        Case("regression", lambda seeds: make_stream({"kind": "regression"}, seeds), {"hidden": [5]}, 100, 2000, 400),
        Case("digits", lambda seeds: make_stream({"kind": "permuted", "data": "digits"}, seeds), {"hidden": [32, 32]},
             200, 400, 400),
        Case("784-100x3", mnist_sized, {"hidden": [100, 100, 100]}, 10, 300, 200),
        Case("784-2000x3", mnist_sized, {"hidden": [2000, 2000, 2000]}, 2, 12, 12),
        Case("conv 32x32", image_pairs, {"kind": "conv"}, 2, 3, 3, step_size=0.01),
    )
}  # fmt: skip


def stack_rounds(case: Case, operations: dict[str, Any], *, runs: int, fast: bool) -> Iterator[float]:
    """Run-steps per CPU-second of a stack, round after round."""
    stream = case.stream(range(runs))
    learner = _learner(case, stream, operations, fast=fast)
    learner.learn(*stream.next(12))
    steps = case.steps * case.runs // runs if fast else case.steps
    while True:
        done, started = 0, time.process_time()
        while done < steps:
            x, y = stream.next(steps - done)
            learner.learn(x, y)
            done += len(x)
        yield done * runs / (time.process_time() - started)


def _learner(case: Case, stream: Stream, operations: dict[str, Any], *, fast: bool) -> StackedLearner | LoopedLearner:
    network = make_network(case.network, stream.shape, stream.outputs)
    methods = [_method(case, operations)] * stream.runs
    if not isinstance(network, Mlp):
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


def compare(case: Case, *, rounds: int) -> list[tuple[str, float]]:
    """Best of interleaved rounds for every way of running the case."""
    ways: dict[str, Iterator[float]] = {}
    codes = (("torch", False),) if case.network.get("kind") == "conv" else (("torch", False), ("native", True))
    for label, operations in (("backprop", {}), ("continual backprop", {"continual_backprop": SURGERY})):
        ways[f"{label}, plain loop"] = plain_rounds(case, operations)
        for code, fast in codes:
            for runs in (1, case.runs):
                ways[f"{label}, {code}, {runs} runs"] = stack_rounds(case, operations, runs=runs, fast=fast)
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
    """Bytes that a step of batch 1 moves if it touches every weight: read forward, read backward and written."""
    return 4.0 * 3 * sum(inputs * outputs for inputs, outputs in network.shapes)


def product_rate() -> float:
    """Floating-point operations per CPU-second of a large matrix product."""
    a, b, best = torch.rand(1024, 1024), torch.rand(1024, 1024), float("inf")
    for _ in range(5):
        started = time.process_time()
        torch.mm(a, b)
        best = min(best, time.process_time() - started)
    return 2 * 1024**3 / best


def step_operations(case: Case) -> float:
    """Floating-point operations of one gradient step, forward and backward, as torch counts them."""
    stream = case.stream(range(1))
    module = make_network(case.network, stream.shape, stream.outputs).module(0)
    x, y = stream.next(1)
    with FlopCounterMode(display=False) as counter:
        functional.cross_entropy(module(x[0, 0]), y[0, 0]).backward()
    return float(counter.get_total_flops())


def main(arguments: list[str]) -> None:
    """The command `python -m tools.benchmark streams`."""
    parser = Parser(prog="python -m tools.benchmark streams", description=__doc__)
    parser.add_argument("--cases", nargs="*", default=list(CASES), choices=list(CASES), help="which (all)")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds; the best counts (5)")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    print("| case | run-steps/s | over the plain loop | over one run |\n|---|---|---|---|", flush=True)
    for name in chosen.cases:
        case = CASES[name]
        results = dict(compare(case, rounds=chosen.rounds))
        for label, value in results.items():
            method, *code = label.split(", ")
            alone = results.get(f"{method}, {code[0]}, 1 runs", value)
            ratio = f"{value / results[f'{method}, plain loop']:,.1f}"
            print(f"| {name}: {label} | {value:,.0f} | {ratio} | {value / alone:.1f} |", flush=True)
        if name == "784-2000x3":
            floor = memory_floor(Mlp(inputs=784, outputs=10, hidden=(2000, 2000, 2000)))
            share = results[f"backprop, native, {case.runs} runs"] * floor / copy_bandwidth()
            print(f"| {name}: traffic, were every weight touched, over a large copy's | {share:.0%} | | |", flush=True)
        if name == "conv 32x32":
            share = results[f"backprop, torch, {case.runs} runs"] * step_operations(case) / product_rate()
            print(f"| {name}: arithmetic over a large matrix product's | {share:.0%} | | |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
