"""How fast one run of a convolutional network trains: ways to take the same step, in turn in one process.

Every way trains a copy of the same network on the same batches with SGD and momentum; processor time of one thread.
The last columns say whether its weights are the plain way's bit for bit, and how far off they are.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import sys
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional

from supervised.networks import make_network
from tools.parser import Parser

from ._turns import in_turn, timed
from .streams import product_rate, step_operations


@dataclasses.dataclass(frozen=True)
class Case:
    """One network on images of one shape.

    Attributes:
        network: its settings.
        shape: of an image.
        outputs: classes.
        batch: images per step.
    """

    network: dict[str, object]
    shape: tuple[int, int, int]
    outputs: int
    batch: int


CASES = {
    "ImageNet's conv net": Case({"kind": "conv"}, (3, 32, 32), 2, 100),
    "digits' residual net": Case({"kind": "resnet", "channels": [8, 16, 32], "blocks": 1}, (1, 8, 8), 10, 20),
    "residual net 16-32-64": Case({"kind": "resnet", "channels": [16, 32, 64], "blocks": 1}, (3, 32, 32), 100, 90),
    "ResNet-18": Case({"kind": "resnet"}, (3, 32, 32), 100, 90),
}

WAYS = ("plain", "channels last", "fused SGD", "both", "bfloat16", "bfloat16, channels last", "inductor")


class Way:
    """A copy of the network and its optimizer, trained in one way.

    Args:
        case: the network.
        way: one of `WAYS`.
        seed: of the weights.
    """

    def __init__(self, case: Case, way: str, seed: int = 0):
        self.last = "last" in way or way == "both"
        self.module: nn.Module = make_network(case.network, case.shape, case.outputs).module(seed)
        if self.last:
            self.module = self.module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        fused = way in ("fused SGD", "both")
        self.optimizer = torch.optim.SGD(self.module.parameters(), lr=0.01, momentum=0.9, fused=fused)
        self.half = way.startswith("bfloat16")
        self.forward: Callable[[Tensor], Tensor] = torch.compile(self.module) if way == "inductor" else self.module

    def step(self, x: Tensor, y: Tensor) -> None:
        """One gradient step."""
        if self.last:
            x = x.to(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16) if self.half else contextlib.nullcontext():
            loss = functional.cross_entropy(self.forward(x), y)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()

    def steps(self, data: Iterable[tuple[Tensor, Tensor]]) -> None:
        """One step after the other."""
        for x, y in data:
            self.step(x, y)

    def weights(self) -> Tensor:
        """All of them in one row."""
        return torch.cat([parameter.detach().contiguous().flatten() for parameter in self.module.parameters()])


def batches(case: Case, steps: int) -> list[tuple[Tensor, Tensor]]:
    """Noise and random classes."""
    generator = torch.Generator().manual_seed(0)
    return [
        (
            torch.randn(case.batch, *case.shape, generator=generator),
            torch.randint(case.outputs, (case.batch,), generator=generator),
        )
        for _ in range(steps)
    ]


def compare(case: Case, ways: list[str], *, rounds: int, steps: int) -> dict[str, tuple[float, float]]:
    """Least processor time of a step, seconds, and the largest difference of a weight to the plain way's, by way."""
    data = batches(case, steps)
    made = {way: Way(case, way) for way in ways}
    taken = in_turn({way: timed(functools.partial(one.steps, data)) for way, one in made.items()}, rounds)
    reference = made[ways[0]].weights()
    off = {way: float((one.weights() - reference).abs().max()) for way, one in made.items()}
    return {way: (min(taken[way]) / steps, off[way]) for way in ways}


def profile(case: Case, *, steps: int, rows: int) -> str:
    """Where the processor time of the plain way goes: torch's own table, the most expensive operators first."""
    way, data = Way(case, "plain"), batches(case, steps)
    way.steps(data[:1])
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
        way.steps(data)
    return str(seen.key_averages().table(sort_by="self_cpu_time_total", row_limit=rows, max_name_column_width=45))


def main(arguments: list[str]) -> None:
    """The command `python -m campaigns.benchmark conv`."""
    parser = Parser(prog="python -m campaigns.benchmark conv", description=__doc__)
    parser.add_argument("--cases", nargs="*", default=list(CASES)[:3], choices=list(CASES), help="which (the first 3)")
    parser.add_argument("--ways", nargs="*", default=list(WAYS[:-1]), choices=WAYS, help="which (all but inductor)")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds; the least time counts (5)")
    parser.add_argument("--steps", type=int, default=3, help="gradient steps a round (3)")
    parser.add_argument("--profile", action="store_true", help="print where the time of the plain way goes instead")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if chosen.profile:
        for name in chosen.cases:
            print(name, profile(CASES[name], steps=chosen.steps, rows=12), sep="\n", flush=True)
        return
    ways = ["plain", *(way for way in chosen.ways if way != "plain")]
    rate = product_rate()
    print("| network | way | ms a step | over plain | arithmetic over a large product's | weights |", flush=True)
    print("|---|---|---|---|---|---|", flush=True)
    for name in chosen.cases:
        case = CASES[name]
        count = step_operations(case.network, *batches(case, 1)[0], case.outputs)
        found = compare(case, ways, rounds=chosen.rounds, steps=chosen.steps)
        for way, (seconds, off) in found.items():
            same = "the same bits" if off == 0 else f"within {off:.1g}"
            share = f"{count / seconds / rate:.0%}"
            ratio = f"{seconds / found['plain'][0]:.2f}"
            print(f"| {name} | {way} | {1e3 * seconds:.1f} | {ratio} | {share} | {same} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
