"""What a look at the network costs: the probe beside the training it interrupts, in turn, in one process."""

from __future__ import annotations

import functools
import itertools
import statistics
import time

import torch
from torch import nn

from continual_agents import plasticity
from tools.agent import AgentJob
from tools.command_line import compose_config, plain_config
from tools.figures.table import markdown
from tools.parser import Parser

from ._turns import rate, timed


def main(arguments: list[str]) -> None:
    """Print one table of looks, one of their share in continual PPO at its published sizes."""
    parser = Parser(prog="python -m campaigns.benchmark plasticity", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="repetitions, best and median are reported (default: 5)")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    print("Milliseconds of processor time for one look (one thread), best of the rounds\n")
    print(markdown(["network", "batch", "forward pass", "singular values", "whole look"], looks(given.rounds)))
    print("Continual PPO on SlipperyAnt-v0 at the published sizes, processor time per update of 2,048 frames\n")
    headings = ["collect and update, s", "look, s", "look every", "share of the run"]
    print(markdown(headings, share(given.rounds)), end="")


def looks(rounds: int) -> list[list[str]]:
    """Cost of a look at networks of the project's sizes."""
    rows = []
    for inputs, hidden, outputs, batch in (
        (20, [5], 1, 500), (64, [32, 32], 10, 500), (28, [256, 256], 8, 2048), (784, [2000] * 3, 10, 500),
    ):  # fmt: skip
        sizes = [inputs, *hidden, outputs]
        layers: list[nn.Module] = []
        for a, b in itertools.pairwise(sizes):
            layers += [nn.Linear(a, b), nn.ReLU()]
        net = nn.Sequential(*layers[:-1])
        probe = plasticity.Probe(net)
        data = torch.randn(batch, inputs, generator=torch.Generator().manual_seed(0))
        hiddens = probe.activations(data)

        parts = [functools.partial(net, data), functools.partial(_ranks, hiddens), functools.partial(probe, data)]
        best = [1 / rate(part, 1.0, times=rounds) for part in parts]
        rows.append(["-".join(map(str, sizes)), str(batch), *(f"{1e3 * one:.2f}" for one in best)])
    return rows


def share(rounds: int) -> list[list[str]]:
    """Cost of a look beside an update of the real agent, and what it comes to at the configured period."""
    config = plain_config(compose_config(["experiment=slippery_ant", "scale=paper", "method=continual_backprop"]))
    job = AgentJob(config)
    learn, look = [], []
    try:
        for _ in range(rounds):
            started = time.process_time()
            batch = job.collector.collect()
            job.learner.update(batch)
            learn.append(time.process_time() - started)
            look.append(timed(functools.partial(job.probe, batch["observation"]))())
    finally:
        job.close()
    update, one = statistics.median(learn), statistics.median(look)
    periods = sorted({1, job.probe.period(update), config["experiment"]["probe"]["every"]})
    return [[f"{update:.2f}", f"{one:.3f}", str(n), f"{100 * one / (one + n * update):.2f}%"] for n in periods]


def _ranks(hiddens: dict[str, torch.Tensor]) -> None:
    for activations in hiddens.values():
        plasticity.singular_values(activations)
