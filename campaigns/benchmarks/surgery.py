"""What surgery costs: a training step with continual backprop over the same step without.

The contestants train copies of one network on the same examples and take turns, a few steps each in every round. With
one thread the numbers are the process's CPU time, which other jobs disturb least, with more they are wall time; the
ratios are medians over the rounds.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from continual_agents import surgery
from tools.parser import Parser

from ._turns import in_turn, machine, ratio, timed

MATURITY = 10
Step = Callable[[], object]


@dataclass(frozen=True)
class Case:
    """One size: a network, what it reads, how it learns.

    Attributes:
        name: of the row.
        goal: greatest ratio that is aimed at.
        net: makes the network.
        shape: of a batch.
        optimizer: SGD with momentum .9, or Adam as reinforcement learning uses it; torch's own beside surgery, or
            `surgery.Adam`, which gives newborns a step count of their own.
        steps: of each contestant per turn.
    """

    name: str
    goal: float
    net: Callable[[], nn.Sequential]
    shape: tuple[int, ...]
    optimizer: str = "SGD"
    steps: int = 100


def mlp(*widths: int) -> nn.Sequential:
    """Linear layers with ReLU between."""
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def convolutional() -> nn.Sequential:
    """The network of Continual ImageNet: three convolutions and three linear layers, for 32x32 pictures."""
    layers: list[nn.Module] = []
    for inputs, outputs, kernel in ((3, 32, 5), (32, 64, 3), (64, 128, 3)):
        layers += [nn.Conv2d(inputs, outputs, kernel), nn.ReLU(), nn.MaxPool2d(2, 2)]
    return nn.Sequential(*layers, nn.Flatten(), *mlp(128 * 4, 128, 128, 2))


CASES = (
    Case("20-5-1, batch 1", 2.0, lambda: mlp(20, 5, 1), (1, 20), steps=300),
    Case("784-100x3-10, batch 1", 1.3, lambda: mlp(784, 100, 100, 100, 10), (1, 784), steps=150),
    Case("784-2000x3-10, batch 1", 1.1, lambda: mlp(784, 2000, 2000, 2000, 10), (1, 784), steps=4),
    Case("28-256-256-8, batch 128, torch.optim.Adam", 1.1, lambda: mlp(28, 256, 256, 8), (128, 28), "torch.Adam", 50),
    Case("28-256-256-8, batch 128, surgery.Adam", 1.1, lambda: mlp(28, 256, 256, 8), (128, 28), "surgery.Adam", 50),
    Case("3 conv + 3 fc, batch 100", 1.05, convolutional, (100, 3, 32, 32), steps=2),
)


def main(arguments: list[str]) -> None:
    """Run the comparison and print it as Markdown."""
    parser = Parser(prog="python -m campaigns.benchmark surgery", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="turns of each contestant (default 15)")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="threads to try (default 1 2)")
    parser.add_argument("--only", default="", help="only the sizes whose name contains this")
    parser.add_argument("--utility", default="contribution", choices=surgery.UTILITIES, help="default contribution")
    parser.add_argument("--rate", type=float, default=1e-4, help="of replacement (default 1e-4)")
    parser.add_argument("--every", type=int, default=1, help="steps between two looks at the units (default 1)")
    parser.add_argument("--compile", action="store_true", help="the networks under torch.compile too")
    chosen = parser.parse_args(arguments)
    if min(chosen.rounds, chosen.every, *chosen.threads) < 1:
        parser.error(f"--rounds={chosen.rounds} --every={chosen.every} --threads={chosen.threads}: at least 1 each")
    if not 0 <= chosen.rate <= 1:
        parser.error(f"--rate={chosen.rate}: a fraction of the units lies in [0, 1]")
    print(f"{machine()}, torch {torch.__version__}; {chosen.rounds} rounds\n")
    print("| network | threads | plain, us a step | with continual backprop | goal | ccbp-pytorch |")
    print("|---|---|---|---|---|---|")
    for case in CASES:
        if chosen.only not in case.name:
            continue
        for threads in chosen.threads:
            torch.set_num_threads(threads)
            clock = time.process_time if threads == 1 else time.perf_counter
            for compiled in (False, True) if chosen.compile and case.optimizer != "SGD" else (False,):
                steps = contestants(case, chosen, compiled=compiled)
                turns = {name: timed(step, count=case.steps, clock=clock) for name, step in steps.items()}
                name = f"{case.name}, compiled" if compiled else case.name
                print(_row(name, threads, in_turn(turns, chosen.rounds, warm=0), case.goal), flush=True)


def contestants(case: Case, chosen: argparse.Namespace, *, compiled: bool = False) -> dict[str, Step]:
    """Training steps: plain, with surgery, and with ccbp-pytorch if it is installed."""
    torch.manual_seed(0)
    net = case.net()
    x = torch.randn(case.shape)
    y = torch.randn(net(x).shape)
    steps: dict[str, Step] = {"plain": _plain(copy.deepcopy(net), case, x, y, compiled)}
    steps["surgery"] = _with_surgery(copy.deepcopy(net), case, x, y, chosen, compiled)
    if not compiled and (rival := _with_ccbp(copy.deepcopy(net), case, x, y, chosen.rate)):
        steps["ccbp"] = rival
    for step in steps.values():
        for _ in range(2 * MATURITY):  # past maturity: replacements happen
            step()
    return steps


def _optimizer(net: nn.Module, case: Case, *, units: bool = False) -> torch.optim.Optimizer:
    if case.optimizer == "SGD":
        return torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9)
    kind = surgery.Adam if units and case.optimizer == "surgery.Adam" else torch.optim.Adam
    return kind(net.parameters(), lr=1e-4, betas=(0.99, 0.99), fused=True)


def _train(net: Callable[[Tensor], Tensor], optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor) -> None:
    loss = nn.functional.mse_loss(net(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def _plain(net: nn.Module, case: Case, x: Tensor, y: Tensor, compiled: bool) -> Step:
    optimizer = _optimizer(net, case)
    call = torch.compile(net) if compiled else net
    return lambda: _train(call, optimizer, x, y)


def _with_surgery(net: nn.Module, case: Case, x: Tensor, y: Tensor, chosen: argparse.Namespace, compiled: bool) -> Step:
    optimizer = _optimizer(net, case, units=True)
    units = surgery.find(net)
    cbp = surgery.ContinualBackprop(
        units,
        optimizer,
        rate=chosen.rate,
        maturity=max(MATURITY, chosen.every),
        utility=chosen.utility,
        every=chosen.every,
    )
    if compiled:
        # dynamo shares compiled code between networks of one class and does not look at hooks unless told to: the
        # plain contestant's code would run here, and the companion would see nothing
        torch._dynamo.config.skip_nnmodule_hook_guards = False
    call = torch.compile(net) if compiled else net

    def step() -> None:
        _train(call, optimizer, x, y)
        cbp.step()

    return step


def _with_ccbp(net: nn.Module, case: Case, x: Tensor, y: Tensor, rate: float) -> Step | None:
    """The package of that name: utilities from gradients, no activations; next layers by module order."""
    try:
        from ccbp_pytorch import ContinualBackprop  # type: ignore[import-untyped]
    except ImportError:
        return None
    optimizer = ContinualBackprop(
        _optimizer(net, case),
        model=net,
        continuous=False,
        replacement_rate=rate,
        reset_interval=1,
        maturity_steps=MATURITY,
        utility_type="contribution",
        exclude_module_names=(list(dict(net.named_children()))[-1],),
    )
    return lambda: _train(net, optimizer, x, y)


def _row(name: str, threads: int, taken: Mapping[str, Sequence[float]], goal: float) -> str:
    plain = taken["plain"]
    cells = {rival: f"x {ratio(seconds, plain):.2f}" for rival, seconds in taken.items()}
    time_of = f"{statistics.median(plain) * 1e6:,.0f}"
    return f"| {name} | {threads} | {time_of} | {cells['surgery']} | x {goal:g} | {cells.get('ccbp', '-')} |"
