"""Whether two run folders hold the same run: tables, final state, curves."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from continual_agents.agents.environment_state import set_environment_state
from continual_agents.runs import read_checkpoint
from tools.agent import environment_from

TABLES = ("metrics.csv", "episodes.csv", "runs.csv")
"""What a run writes besides timing.csv, which is never the same."""

STEPS = 200
"""How long restored environments play on beside each other."""


def differences(one: Path, other: Path) -> Iterator[str]:
    """What differs, in words; nothing for two folders of the same run."""
    yield from _tables(one, other)
    yield from _states(one, other)
    yield from _curves(one, other)


def _tables(one: Path, other: Path) -> Iterator[str]:
    for name in TABLES:
        contents = [path.read_bytes() if path.exists() else None for path in (one / name, other / name)]
        if contents[0] != contents[1]:
            yield f"{name} differs"


def _states(one: Path, other: Path) -> Iterator[str]:
    first, second = (_final(folder) for folder in (one, other))
    for state in (first, second):
        state["rows"].pop("timing", None)  # as many rows as the others, but written or not by a killed session
    environments = [state["run"].get("collector", {}).pop("environment", None) for state in (first, second)]
    yield from unequal(first, second)
    if environments[0] is not None:
        config = yaml.safe_load((one / "config.yaml").read_text())["experiment"]["environment"]
        yield from _futures(config, *environments)


def _final(folder: Path) -> dict[str, Any]:
    paths = sorted((folder / "checkpoints").glob("step_*.pt"))
    return read_checkpoint(paths[-1])["state"] if paths else {"rows": {}, "run": {}}


def unequal(one: Any, other: Any, path: str = "state") -> Iterator[str]:
    """Paths at which two nested states are not bit for bit the same."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        same = one.dtype == other.dtype and one.shape == other.shape and _bits(one) == _bits(other)
        if not same:
            yield f"{path} differs"
    elif isinstance(one, Mapping) and isinstance(other, Mapping):
        for key in one.keys() | other.keys():
            if key in one and key in other:
                yield from unequal(one[key], other[key], f"{path}/{key}")
            else:
                yield f"{path}/{key} is in one of them only"
    elif isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        for index, pair in enumerate(zip(one, other, strict=True)):
            yield from unequal(*pair, f"{path}/{index}")
    elif repr(one) != repr(other):  # repr: nan is itself, and 0.0 is not -0.0
        yield f"{path}: {one!r} and {other!r}"


def _bits(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().numpy().tobytes()


def _futures(config: Mapping[str, Any], *states: Mapping[str, Any]) -> Iterator[str]:
    """A simulator's file holds addresses: two states are the same if what comes of them is, bit for bit."""
    histories = []
    for state in states:
        environment = environment_from(config)
        environment.reset(seed=0)
        set_environment_state(environment, dict(state))
        environment.action_space.seed(0)
        history = []
        for _ in range(STEPS):
            observation, reward, terminated, truncated, _ = environment.step(environment.action_space.sample())
            history.append(np.asarray(observation).tobytes() + np.float64(reward).tobytes())
            if terminated or truncated:
                observation, _ = environment.reset()
                history.append(np.asarray(observation).tobytes())
        environment.close()
        histories.append(history)
    if histories[0] != histories[1]:
        yield "the environments go on differently"


def _curves(one: Path, other: Path) -> Iterator[str]:
    first, second = (curves(folder) for folder in (one, other))
    for tag in sorted(first.keys() | second.keys()):
        points = [found.get(tag, []) for found in (first, second)]
        for folder, known in zip((one, other), points, strict=True):
            steps = [step for step, _ in known]
            if any(a >= b for a, b in itertools.pairwise(steps)):
                yield f"curve {tag} of {folder.name} overlaps itself: steps {steps}"
        if points[0] != points[1]:
            yield f"curve {tag} differs: {len(points[0])} and {len(points[1])} points"


def curves(folder: Path) -> dict[str, list[tuple[int, Any]]]:
    """Every curve and histogram but those of time, as TensorBoard itself reads them: tag -> (step, value)."""
    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # it announces every purge
    found: dict[str, list[tuple[int, Any]]] = {}
    for place in sorted({path.parent for path in folder.rglob("events.out.tfevents.*")}):
        events = EventAccumulator(str(place), size_guidance={"scalars": 0, "histograms": 0})
        events.Reload()
        name = "" if place == folder else f"{place.name}: "
        for tag in events.Tags()["scalars"]:
            if not tag.startswith("time/"):
                found[name + tag] = [(event.step, repr(event.value)) for event in events.Scalars(tag)]
        for tag in events.Tags()["histograms"]:
            found[name + tag] = [(event.step, event.histogram_value) for event in events.Histograms(tag)]
    return found
