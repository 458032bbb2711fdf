"""The hidden layers of a run folder of our own, as its checkpoint has them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from continual_agents import plasticity
from supervised import stacks
from supervised.group import make_group
from tools.record import RecordError, agent_of, checkpoint_of, configuration_of
from tools.stream import StreamJob
from tools.train import check_common

EXAMPLES = 500
"""Most examples that a stream's networks are probed with."""


def diagnose_run(folder: Path, *, checkpoint: Path | None = None, batch: Tensor | None = None) -> list[dict[str, str]]:
    """One row of text per hidden layer: of an agent's actor and critic, or of each method of a stream.

    An agent is probed with what its policy sees while it acts for one batch; a stream's networks with the examples of
    the stream's own diagnostics, and the row is the mean over their seeds and settings.

    Args:
        folder: a run of an agent or of a stream.
        checkpoint: one of its checkpoint files; the newest good one when None.
        batch: observations `[rows, dim]` in place of those of the agent's own making.

    Raises:
        RecordError: no such run, or it has no checkpoint.
        ValueError: a batch for a stream.
    """
    config = configuration_of(folder, kinds=("agent", "stream"))
    part = {"agent": "learner", "stream": "groups"}[config["experiment"]["kind"]]

    def damage(content: dict[str, Any]) -> str | None:
        state = content["state"]
        run = state.get("run") if isinstance(state, dict) else None
        return None if isinstance(run, dict) and part in run else "it holds no networks"

    content = checkpoint_of(folder, checkpoint, damage=damage)
    if config["experiment"]["kind"] == "stream":
        if batch is not None:
            raise ValueError(f"--data: {folder} is a stream, whose networks are probed with its own examples")
        return _stream(folder, config, content)
    job = agent_of(folder, config, content)
    try:
        seen = batch if batch is not None else job.collector.collect()["observation"]
        return table(job.probe.units, job.probe(seen.reshape(-1, seen.shape[-1])))
    finally:
        job.close()


def table(units: Any, values: Mapping[str, float]) -> list[dict[str, str]]:
    """One row of text per hidden layer, one for the whole network."""
    rows = []
    for one in [*units, None]:
        row = {"layer": "whole network" if one is None else one.name}
        row["units"] = str(sum(each.width for each in units) if one is None else one.width)
        for measure in plasticity.MEASURES.values():
            value = values.get(measure.column + ("" if one is None else f"/{one.name}"), float("nan"))
            row[measure.heading] = measure.text(value)
        rows.append(row)
    return rows


def _stream(folder: Path, config: dict[str, Any], content: dict[str, Any]) -> list[dict[str, str]]:
    """Of a stream: a row for each layer of each method."""
    try:
        check_common(config)
        plans = StreamJob(config).plans
        groups = [make_group(numbers, [plans[k] for k in numbers], device="cpu") for numbers in stacks(plans)]
    except KeyError as error:
        raise RecordError(f"{folder}/config.yaml has no {error}: it is not the configuration of a run") from error
    except (TypeError, AttributeError) as error:
        raise RecordError(f"{folder}/config.yaml cannot be run: {' '.join(str(error).split())}") from error
    try:
        for group, state in zip(groups, content["state"]["run"]["groups"], strict=True):
            group.load_state_dict(state)
    except Exception as error:  # whatever a state of another shape leads to
        raise RecordError(f"the checkpoint in {folder} does not fit its config.yaml: they are of two runs") from error
    found: dict[tuple[str, str], list[list[float]]] = {}  # method, layer -> the measures of each of its runs
    units: dict[tuple[str, str], int] = {}
    measures = plasticity.MEASURES.values()
    for group in groups:
        _, hidden = group.learner.evaluate(group.stream.evaluation(EXAMPLES))
        if not hidden:
            continue
        values = plasticity.summarise(hidden, group.learner.weights(), kinds=group.learner.kinds())
        widths = {layer: h.shape[-1] for layer, h in hidden.items()}
        for layer, width in {**widths, "": sum(widths.values())}.items():
            columns = [values.get(measure.column + (f"/{layer}" if layer else "")) for measure in measures]
            for place, number in enumerate(group.numbers):
                key = plans[number].method.name, layer or "whole network"
                units[key] = width
                found.setdefault(key, []).append([np.nan if one is None else float(one[place]) for one in columns])
    if not found:
        raise RecordError(f"{folder}: its networks have no hidden layer to look at")
    rows = [
        {"method": method, "layer": layer, "units": str(units[method, layer])}
        | {measure.heading: measure.text(mean) for measure, mean in zip(measures, np.mean(runs, 0), strict=True)}
        for (method, layer), runs in found.items()
    ]
    methods = list(dict.fromkeys(row["method"] for row in rows))
    return sorted(rows, key=lambda row: methods.index(row["method"]))
