"""How fast stacks train: run-steps per CPU-second against an ordinary loop of batch 1, in turn in one run.

The ordinary loop is an `nn.Module` with `torch.optim` (and the surgery companion) over the same stream, one run.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
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

from ._turns import Turn, clock_of, in_turn, rate, timed

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


def mnist_sized(seeds: range, device: str = "cpu") -> Stream:
    """Noise of MNIST's shape, for speed only; 81% of the pixels are 0, as in MNIST."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand(2000, 784, generator=generator) * (torch.rand(2000, 784, generator=generator) < 0.19)
    labels = torch.randint(0, 10, (2000,), generator=generator)
    return PermutedImages(seeds, Images("noise", pixels, labels, 10), device=device)


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


def stack_turn(
    stream: Stream, settings: dict[str, Any], operations: dict[str, Any], *, steps: int, step_size: float, fast: bool,
    device: str = "cpu",
) -> Turn:  # fmt: skip
    """A turn of a stack; the seconds of a run-step.

    Args:
        stream: with as many runs as the stack has.
        settings: of the network.
        operations: of the method.
        steps: gradient steps of a turn.
        step_size: small enough to stay finite.
        fast: in native code, or as a CUDA graph.
        device: of the stream too.
    """
    network = make_network(settings, stream.shape, stream.outputs)
    methods, seeds = [_method(step_size, operations)] * stream.runs, range(stream.runs)
    learner: Any
    if isinstance(network, Mlp):
        learner = StackedLearner(
            network, methods, seeds, loss=stream.loss, batch=stream.batch, device=device, fast=fast
        )
    else:
        learner = LoopedLearner(network, methods, seeds, loss=stream.loss, device=device)
    learner.learn(*stream.next(12))

    def learn() -> None:
        done = 0
        while done < steps:
            x, y = stream.next(steps - done)
            learner.learn(x, y)
            done += len(x)

    turn = timed(learn, clock=clock_of(device))
    return lambda: turn() / (steps * stream.runs)


def _method(step_size: float, operations: dict[str, Any]) -> Method:
    return Method(name="x", optimizer={"kind": "sgd", "step_size": step_size}, operations=operations)


def plain_turn(case: Case, operations: dict[str, Any]) -> Turn:
    """A turn of one ordinary module; the seconds of a step."""
    stream = case.stream(range(1))
    network = make_network(case.network, stream.shape, stream.outputs)
    module = network.module(0)
    method = _method(case.step_size, operations)
    optimizer = method.make_optimizer(module.parameters())
    after = method.make_operations(module, optimizer, torch.Generator().manual_seed(0))
    loss_of = functional.cross_entropy if stream.loss == "cross_entropy" else functional.mse_loss

    def learn() -> None:
        done = 0
        while done < case.plain_steps:
            x, y = stream.next(case.plain_steps - done)
            for inputs, targets in zip(x[:, 0], y[:, 0], strict=True):
                optimizer.zero_grad()
                loss_of(module(inputs.flatten(1) if isinstance(network, Mlp) else inputs), targets).backward()
                optimizer.step()
                for operation in after:
                    operation.step()
            done += len(x)

    turn = timed(learn)
    return lambda: turn() / case.plain_steps


def compare(case: Case, *, rounds: int) -> dict[str, float]:
    """Run-steps per second of every way of running the case, best of interleaved rounds."""
    ways: dict[str, Turn] = {}
    codes = (("torch", False),) if case.network.get("kind") == "conv" else (("torch", False), ("native", True))
    for label, operations in (("backprop", {}), ("continual backprop", {"continual_backprop": SURGERY})):
        ways[f"{label}, plain loop"] = plain_turn(case, operations)
        for code, fast in codes:
            for runs in (1, case.runs):
                stream, steps = case.stream(range(runs)), case.steps * case.runs // runs if fast else case.steps
                ways[f"{label}, {code}, {runs} runs"] = stack_turn(
                    stream, case.network, operations, steps=steps, step_size=case.step_size, fast=fast
                )
    return {name: 1 / min(taken) for name, taken in in_turn(ways, rounds, warm=0).items()}


def copy_rate(device: str = "cpu", *, numbers: int = 2**26) -> float:
    """Bytes per second that a large copy reads and writes."""
    source, target = torch.zeros(numbers, device=device), torch.empty(numbers, device=device)
    return rate(lambda: target.copy_(source), 2 * 4 * numbers, times=10, device=device)


def memory_floor(network: Mlp) -> float:
    """Bytes that a step of batch 1 moves if it touches every weight: read forward, read backward and written."""
    return 4.0 * 3 * sum(inputs * outputs for inputs, outputs in network.shapes)


def product_rate() -> float:
    """Floating-point operations per CPU-second of a large matrix product."""
    a, b = torch.rand(1024, 1024), torch.rand(1024, 1024)
    return rate(lambda: torch.mm(a, b), 2 * 1024**3)


def step_operations(network: dict[str, Any], x: Tensor, y: Tensor, outputs: int) -> float:
    """Floating-point operations of one gradient step on a batch, forward and backward, as torch counts them."""
    module = make_network(network, x.shape[1:], outputs).module(0)
    with FlopCounterMode(display=False) as counter:
        functional.cross_entropy(module(x), y).backward()
    return float(counter.get_total_flops())


def main(arguments: list[str]) -> None:
    """The command `python -m campaigns.benchmark streams`."""
    parser = Parser(prog="python -m campaigns.benchmark streams", description=__doc__)
    parser.add_argument("--cases", nargs="*", default=list(CASES), choices=list(CASES), help="which (all)")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds; the best counts (5)")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    print("| case | run-steps/s | over the plain loop | over one run |\n|---|---|---|---|", flush=True)
    for name in chosen.cases:
        case = CASES[name]
        results = compare(case, rounds=chosen.rounds)
        for label, value in results.items():
            method, *code = label.split(", ")
            alone = results.get(f"{method}, {code[0]}, 1 runs", value)
            ratio = f"{value / results[f'{method}, plain loop']:,.1f}"
            print(f"| {name}: {label} | {value:,.0f} | {ratio} | {value / alone:.1f} |", flush=True)
        if name == "784-2000x3":
            floor = memory_floor(Mlp(inputs=784, outputs=10, hidden=(2000, 2000, 2000)))
            share = results[f"backprop, native, {case.runs} runs"] * floor / copy_rate()
            print(f"| {name}: traffic, were every weight touched, over a large copy's | {share:.0%} | | |", flush=True)
        if name == "conv 32x32":
            stream = case.stream(range(1))
            x, y = stream.next(1)
            operations = step_operations(case.network, x[0, 0], y[0, 0], stream.outputs)
            share = results[f"backprop, torch, {case.runs} runs"] * operations / product_rate()
            print(f"| {name}: arithmetic over a large matrix product's | {share:.0%} | | |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
