"""What the comparisons share: contestants take turns on one clock: what else the machine does hits all alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import torch

from continual_agents.runs.provenance import describe

Clock = Callable[[], float]
Turn = Callable[[], float]
"""Takes a contestant's turn and returns its seconds, or those of one of its steps."""


def clock_of(device: str) -> Clock:
    """The process's CPU time, which other jobs disturb least; of a GPU the wall's, once it has done its work."""
    if torch.device(device).type == "cpu":
        return time.process_time

    def clock() -> float:
        torch.cuda.synchronize()
        return time.perf_counter()

    return clock


def timed(work: Callable[[], object], *, count: int = 1, clock: Clock = time.process_time) -> Turn:
    """A turn of `count` calls; the seconds of one."""

    def turn() -> float:
        started = clock()
        for _ in range(count):
            work()
        return (clock() - started) / count

    return turn


def in_turn(turns: Mapping[str, Turn], rounds: int, *, warm: int = 1) -> dict[str, list[float]]:
    """Seconds by contestant and round, after `warm` rounds that are not counted; the order alternates."""
    seconds: dict[str, list[float]] = {name: [] for name in turns}
    for number in range(-warm, rounds):
        for name in list(turns)[:: -1 if number % 2 else 1]:
            taken = turns[name]()
            if number >= 0:
                seconds[name].append(taken)
    return seconds


def ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """Median over the rounds of one contestant's seconds over another's."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def rate(work: Callable[[], object], amount: float, *, times: int = 5, device: str = "cpu") -> float:
    """Amount per second of the best of some calls."""
    turn = timed(work, clock=clock_of(device))
    return amount / min(turn() for _ in range(times))


def machine() -> str:
    """What a table begins with."""
    found = describe()["machine"]
    return f"{found['processor']}, {found['cores']} cores"
