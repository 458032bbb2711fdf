"""Streams and surgery on a GPU: do graph, eager and CPU agree, does a step wait for the device, how fast are stacks.

Without torchrl, gymnasium or PyBullet: what streams need is all it needs. Speeds are wall-clock run-steps per second of
eager steps and of the captured graph, in turn in one run, beside the same stack's memory traffic over a large copy's.
"""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from typing import Any

import torch

from continual_agents import surgery
from continual_agents.methods import Method
from supervised.networks import Mlp, make_network
from supervised.stacked.learner import StackedLearner
from supervised.streams.stream import Stream
from supervised.streams.table import make_stream
from tools.parser import Parser

from ._turns import in_turn
from .streams import SURGERY, copy_rate, memory_floor, mnist_sized, stack_turn

NETWORK = Mlp(inputs=20, outputs=4, hidden=(32, 32))
BUSY = {"rate": 1e-2, "maturity": 20, "decay": 0.99, "utility": "adaptable_contribution"}
METHODS: dict[str, dict[str, Any]] = {
    "sgd": {"optimizer": {"kind": "sgd", "step_size": 1e-2}},
    "momentum, l2": {"optimizer": {"kind": "sgd", "step_size": 1e-2, "momentum": 0.9, "weight_decay": 1e-3}},
    "adam": {"optimizer": {"kind": "adam", "step_size": 1e-3}},
    "continual backprop": {"optimizer": {"kind": "sgd", "step_size": 1e-2}, "operations": {"continual_backprop": BUSY}},
    "continual backprop, adam": {
        "optimizer": {"kind": "adam", "step_size": 1e-3},
        "operations": {"continual_backprop": BUSY},
    },
    "l2 init": {
        "optimizer": {"kind": "sgd", "step_size": 1e-2},
        "operations": {"l2_init": {"strength": 1e-3}},
    },
    "shrink and perturb": {
        "optimizer": {"kind": "sgd", "step_size": 1e-2, "weight_decay": 1e-3},
        "operations": {"perturb": {"noise": 1e-3}},
    },
}
"""What is compared across devices."""

STACKS: dict[str, tuple[dict[str, Any], dict[str, Any], tuple[int, ...], int]] = {
    "regression": ({"kind": "regression"}, {"hidden": [5]}, (100, 3000), 2000),
    "digits": ({"kind": "permuted", "data": "digits"}, {"hidden": [32, 32]}, (200, 2000), 1000),
    "784-100x3": ({"kind": "noise"}, {"hidden": [100, 100, 100]}, (30, 300), 500),
    "784-2000x3": ({"kind": "noise"}, {"hidden": [2000, 2000, 2000]}, (1, 10, 30), 200),
    "conv 32x32": (
        {"kind": "textures", "classes": 4, "side": 32, "train_images": 600, "test_images": 10, "batch": 100},
        {"kind": "conv"}, (1, 8), 60,
    ),
}  # fmt: skip
"""Name: settings of the stream, of the network, stack sizes, steps a round."""


def stream_of(settings: dict[str, Any], runs: int, device: str) -> Stream:
    """A stream on the device; "noise" has MNIST's shape and its share of black pixels."""
    if settings["kind"] == "noise":
        return mnist_sized(range(runs), device)
    return make_stream(settings, range(runs), device=device)


def agreement(name: str, steps: int = 400) -> dict[str, Any]:
    """Largest difference of any weight between the CPU and the GPU, eager and captured, after the same steps."""
    methods = [Method(name=name, **METHODS[name])] * 3
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(steps, 3, 1, 20, generator=generator)
    y = torch.randint(0, 4, (steps, 3, 1), generator=generator)
    weights, replaced = {}, {}
    for where, device, fast in (("cpu", "cpu", False), ("eager", "cuda", False), ("graph", "cuda", True)):
        learner = StackedLearner(NETWORK, methods, [0, 1, 2], loss="cross_entropy", device=device, fast=fast)
        learner.learn(x.to(device), y.to(device))
        weights[where] = [tensor.cpu() for tensor in learner.stack.tensors]
        replaced[where] = learner.report().get("replaced", [0.0])
        if fast:
            code = learner.code
    gap = {
        where: max(float((a - b).abs().max()) for a, b in zip(weights["cpu"], weights[where], strict=True))
        for where in ("eager", "graph")
    }
    same = all(list(replaced["cpu"]) == list(replaced[where]) for where in ("eager", "graph"))
    return {**gap, "replaced": float(sum(replaced["cpu"])), "same count": same, "code": code}


def waits(generator: torch.Generator | None, *, replacing: bool) -> str:
    """Whether steps with surgery ask the device for anything: torch raises an error where they do."""
    net = torch.nn.Sequential(
        torch.nn.Linear(28, 256), torch.nn.ReLU(), torch.nn.Linear(256, 256), torch.nn.ReLU(), torch.nn.Linear(256, 8)
    ).cuda()
    optimizer = surgery.Adam(net.parameters(), lr=1e-4, fused=True)
    rate, maturity = (1e-2, 10) if replacing else (1e-4, 10_000)
    cbp = surgery.ContinualBackprop(surgery.find(net), optimizer, rate=rate, maturity=maturity, generator=generator)
    x = torch.randn(128, 28, device="cuda")
    try:
        for step in range(200):
            torch.cuda.set_sync_debug_mode("error" if step > 20 else "default")
            optimizer.zero_grad()
            net(x).square().mean().backward()
            optimizer.step()
            cbp.step()
    except RuntimeError:
        lines = [line for line in traceback.extract_tb(sys.exc_info()[2]) if "continual_agents" in line.filename]
        return f"waits at {Path(lines[-1].filename).name}:{lines[-1].lineno}: {lines[-1].line}"
    finally:
        torch.cuda.set_sync_debug_mode("default")
    replaced = sum(value for name, value in cbp.report().items() if name.startswith("replaced/"))
    return f"180 steps did not wait for the device ({replaced:.0f} units replaced)"


def device_copy() -> float:
    """Bytes per second of a copy that no cache holds."""
    return copy_rate("cuda", numbers=2**29)


def speeds(name: str, count: int) -> None:
    """Print the rows of one kind of stack."""
    settings, network, sizes, steps = STACKS[name]
    for runs in sizes:
        stream = stream_of(settings, runs, "cuda")
        mlp = network.get("kind") != "conv"
        ways = {
            f"{label}, {code}": stack_turn(
                stream, network, operations, steps=steps, step_size=3e-3, fast=code == "graph", device="cuda"
            )
            for label, operations in (("backprop", {}), ("continual backprop", {"continual_backprop": SURGERY}))
            for code in (("eager", "graph") if mlp else ("loop",))
        }
        for way, taken in in_turn(ways, count, warm=0).items():
            rate, share = 1 / min(taken), ""
            if mlp:
                made = make_network(network, stream.shape, stream.outputs)
                assert isinstance(made, Mlp)
                share = f"{rate * memory_floor(made) / device_copy():.0%}"
            print(f"| {name}: {way}, {runs} runs | {rate:,.0f} | {share} |", flush=True)


def main(arguments: list[str]) -> None:
    """The command `python -m campaigns.benchmark gpu`."""
    parser = Parser(prog="python -m campaigns.benchmark gpu", description=__doc__)
    parser.add_argument("--stacks", nargs="*", default=list(STACKS), choices=list(STACKS), help="which (all)")
    parser.add_argument("--rounds", type=int, default=3, help="interleaved rounds; the best counts (3)")
    chosen = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        parser.error("there is no GPU here")
    print(
        f"{torch.cuda.get_device_name()}, torch {torch.__version__}, copy {device_copy() / 1e12:.2f} TB/s", flush=True
    )
    print("| method | CPU to eager | CPU to graph | replaced | same count | code |\n|---|---|---|---|---|---|")
    for name in METHODS:
        try:
            values = agreement(name).values()
            print(
                f"| {name} | {' | '.join(f'{v:.1e}' if isinstance(v, float) else str(v) for v in values)} |", flush=True
            )
        except Exception as error:
            print(f"| {name} | FAILED {type(error).__name__}: {error} |", flush=True)
    for label, generator, replacing in (
        ("quiet steps", None, False),
        ("replacing, generator on the CPU", None, True),
        ("replacing, generator on the GPU", torch.Generator("cuda"), True),
    ):
        print(f"surgery on a module, {label}: {waits(generator, replacing=replacing)}", flush=True)
    print("| stack | run-steps/s | traffic over a copy's |\n|---|---|---|")
    for name in chosen.stacks:
        try:
            speeds(name, chosen.rounds)
        except Exception as error:
            print(f"| {name} | FAILED {type(error).__name__}: {error} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
