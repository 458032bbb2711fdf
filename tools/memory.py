"""Whether this machine has what a configuration asks for: its device, and its memory before it is taken."""

import itertools
import math
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

COPIES = 6
"""Numbers kept for each weight: itself, its gradient, two moments, and what surgery and evaluation hold."""

ENVIRONMENT = 45_000
"""Bytes of an environment of numbers, its wrappers and buffers included; CartPole takes a sixth of it."""

WALKER = 32_000_000
"""Bytes of a slippery walker: each has a simulator of its own (200 ants: 30.0 MB each)."""

SAID = 4e9
"""Bytes from which on it is said what a setting takes."""

RUN = 2_000
"""Bytes that a run of a stack takes besides its weights."""

CGROUPS = (
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"), Path("/sys/fs/cgroup/memory/memory.usage_in_bytes")),
)


def available() -> int:
    """Bytes that this process may still take: of the machine, or of its container where that has a limit."""
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        free = int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):
        free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for limit, used in CGROUPS:
        try:
            # pages of files count as used there and are given back
            free = min(free, int(limit.read_text()) - int(used.read_text()) + _cached(limit.parent))
        except (OSError, ValueError):
            continue
    return free


def check_device(name: str) -> None:
    """Whether this machine has it.

    Raises:
        ValueError: neither cpu nor cuda, or a GPU that is not there.
    """
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    # torch takes cpu:1 too, and means the same processor
    if device is None or device.type not in ("cpu", "cuda") or (device.type == "cpu" and device.index):
        raise ValueError(f"device={name}: cpu, cuda or cuda:NUMBER is needed")
    count = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= count:
        has = "no GPU" if not count else f"{count} GPU{'s' * (count > 1)}, counted from cuda:0"
        raise ValueError(f"device={name}: this machine has {has}: use device=cpu{' or another one' if count else ''}")


def check_memory(given: str, size: float) -> None:
    """Whether so much memory is there.

    Args:
        given: the setting that asks for it, as `experiment.environment.count=5`.
        size: bytes.

    Raises:
        ValueError: it is not, saying what it would take.
    """
    have = available()
    if size > have:
        raise ValueError(f"{given} would take {gigabytes(size)} of memory, {gigabytes(have)} are free on this machine")
    if size > SAID:
        warnings.warn(f"{given} takes about {gigabytes(size)} of memory", stacklevel=2)


def gigabytes(size: float) -> str:
    """A size in words."""
    size = min(size, 1e300)  # a whole number may be larger than any float
    return f"{size / 1e9:,.1f} GB" if size < 1e15 else f"{size / 1e9:.0e} GB"


def weights(inputs: int, hidden: Sequence[int], outputs: int) -> int:
    """Weights of a fully connected network."""
    widths = [inputs, *hidden, outputs]
    return sum(one * other for one, other in itertools.pairwise(widths))


def check_stream(experiment: Mapping[str, Any], methods: int) -> None:
    """Whether the runs of a stream fit, as far as its settings tell before anything is built; types are checked later.

    Raises:
        ValueError: they do not.
    """
    sweep = experiment.get("sweep") or {}
    settings = math.prod(len(values) for values in sweep.values() if isinstance(values, list)) if sweep else 1
    runs = _count(experiment["seeds"]) * methods * settings
    check_memory(f"experiment.seeds={experiment['seeds']}, {runs:,} runs,", runs * RUN)
    hidden = [_count(width) for width in _list(experiment["network"].get("hidden"))]
    one = weights(1, hidden, 1) * 4 * COPIES
    check_memory(f"experiment.network.hidden={experiment['network'].get('hidden')} of {runs:,} runs", one * runs)
    network = experiment["network"]
    channels, kernels = [_count(width) for width in _list(network.get("channels"))], _list(network.get("kernels"))
    largest = max([3, *map(_count, kernels)])
    if side := _count(experiment["stream"].get("side")):
        largest = min(largest, side)  # a larger kernel is refused, whatever it would take
    area, layers = largest**2, 4 * max(1, _count(network.get("blocks")))
    size = weights(3, channels, 1) * area * layers * 4 * COPIES * runs
    named = "channels" if max([1, *channels]) > layers else "blocks"
    check_memory(f"experiment.network.{named}={network.get(named)} of {runs:,} runs", size)
    stream = experiment["stream"]
    # of the regression's target every weight is drawn as a float64 and kept as a float32, with room to compute
    bits = _count(stream.get("slow_bits")) + _count(stream.get("random_bits")) + 1
    sizes = {
        "slow_bits" if bits > _count(stream.get("units")) else "units": bits * max(_count(stream.get("units")), 1) * 16,
        "classes": _count(stream.get("classes"))
        * sum(_count(stream.get(f"{part}_images")) for part in ("train", "validation", "test"))
        * _count(stream.get("side")) ** 2
        * 3,
    }
    for key, size in sizes.items():
        if stream.get("kind") != "imagenet":  # whose images stay in their file
            check_memory(f"experiment.stream.{key}={stream.get(key)}", size)
    examples = experiment["probe"]["examples"]
    check_memory(f"experiment.probe.examples={examples}", _count(examples) * 400)  # a short row of floats at least


def _cached(folder: Path) -> int:
    lines = dict(line.split(" ", 1) for line in (folder / "memory.stat").read_text().splitlines())
    return int(lines.get("inactive_file", lines.get("total_inactive_file", 0)))


def _count(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
