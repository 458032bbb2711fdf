"""Which runs a figure needs: seeds x methods x swept settings, put together into stacks."""

import dataclasses
import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any

from continual_agents.methods import OPERATIONS, OPTIMIZERS, Method
from continual_agents.settings import nearest, written


@dataclasses.dataclass(frozen=True)
class Plan:
    """One run: what is trained on what, with which seed.

    Attributes:
        method: name, network ingredients, optimizer, operations.
        network: settings of `make_network`, the method's ingredients included.
        stream: settings of `make_stream`.
        seed: of everything.
        settings: the swept values by their dotted keys, for tables and figures.
    """

    method: Method
    network: Mapping[str, Any]
    stream: Mapping[str, Any]
    seed: int
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def label(self) -> str:
        """Method and swept settings: what a curve is called."""
        return ", ".join([self.method.name, *(f"{k.rsplit('.', 1)[-1]} {v}" for k, v in self.settings.items())])

    def shape(self) -> str:
        """Equal for runs that fit into one stack."""
        operations = {
            name: {key: value for key, value in settings.items() if key not in OPERATIONS[name].per_run}
            for name, settings in self.method.operations.items()
        }
        per_run = OPTIMIZERS[self.method.optimizer.get("kind", "adam")].per_run
        optimizer = {k: v for k, v in self.method.optimizer.items() if k not in per_run}
        # momentum costs a buffer, so runs with and without it do not share a stack
        moving = bool(self.method.optimizer.get("momentum", 0))
        parts = [dict(self.network), dict(self.stream), optimizer, moving, operations]
        return json.dumps(parts, sort_keys=True, default=str)


def make_plans(experiment: Mapping[str, Any], methods: Mapping[str, Method], *, seed: int = 0) -> list[Plan]:
    """Every run of an experiment.

    Args:
        experiment: `stream` and `network` settings; `seeds`, runs per setting; `sweep`, dotted key -> values, where a
            key starts with `optimizer.`, `operations.`, `network.` or `stream.` (a method that lacks the swept
            operation is run once, without it).
        methods: name -> method, in the order of the figure.
        seed: of the first run; the others count on from it. Equal seeds see equal streams under every method.

    Raises:
        ValueError: no method, no seed, or a swept key that no method or part knows.
    """
    seeds = range(seed, seed + int(experiment.get("seeds", 1)))
    if not methods or not seeds:
        raise ValueError(f"experiment.seeds={len(seeds)} and {len(methods)} methods make no run: give at least 1 each")
    for method in methods.values():
        for name in method.operations:
            if OPERATIONS[name].penalises:
                raise ValueError(f"method {method.name}: {name} is a term of a policy's loss, streams have no policy")
    sweep = dict(experiment.get("sweep") or {})
    for key in sweep:
        _check_swept(key, sweep[key], methods)
    plans: list[Plan] = []
    for method in methods.values():
        for values in itertools.product(*sweep.values()):
            chosen = {key: value for key, value in zip(sweep, values, strict=True) if _applies(key, method)}
            plan = _plan(experiment, method, chosen)
            if not any(plan == other for other in plans):
                plans.append(plan)
    return [dataclasses.replace(plan, seed=one) for plan in plans for one in seeds]


def stacks(plans: Sequence[Plan]) -> list[list[int]]:
    """Numbers of the plans that train as one stack each, in order."""
    groups: dict[str, list[int]] = {}
    for number, plan in enumerate(plans):
        groups.setdefault(plan.shape(), []).append(number)
    return list(groups.values())


def _plan(experiment: Mapping[str, Any], method: Method, chosen: Mapping[str, Any]) -> Plan:
    parts: dict[str, Any] = {
        "stream": dict(experiment["stream"]),
        "network": {**experiment.get("network", {}), **method.network},
        "optimizer": dict(method.optimizer),
        "operations": {name: dict(settings) for name, settings in method.operations.items()},
    }
    for key, value in chosen.items():
        *path, last = key.split(".")
        part = parts
        for name in path:
            part = part[name]
        part[last] = value
    changed = dataclasses.replace(method, optimizer=parts["optimizer"], operations=parts["operations"])
    return Plan(changed, parts["network"], parts["stream"], 0, dict(chosen))


def _applies(key: str, method: Method) -> bool:
    head, *rest = key.split(".")
    if head == "operations":
        return rest[0] in method.operations
    # what a method fixes (the linear baseline's depth) is not swept, nor an activation that no layer has
    flat = method.network.get("hidden") == []
    return not (head == "network" and (rest[0] in method.network or (flat and rest[0] == "activation")))


def _check_swept(key: str, values: Any, methods: Mapping[str, Method]) -> None:
    heads = ("optimizer", "operations", "network", "stream")
    head, *rest = key.split(".")
    if head not in heads or not rest:
        raise ValueError(f"experiment.sweep: {key!r} does not start with one of {', '.join(heads)} and a dot")
    if not isinstance(values, list | tuple) or not values:
        raise ValueError(f"experiment.sweep: {key} needs a list of values, got {written(values)}")
    if head == "operations":
        known = {name for method in methods.values() for name in method.operations}
        if rest[0] not in known:
            raise ValueError(f"experiment.sweep: no method here has the operation {rest[0]!r}{nearest(rest[0], known)}")
