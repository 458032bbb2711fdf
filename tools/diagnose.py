"""Has this network lost plasticity? A table of its hidden layers, from any checkpoint.

python -m tools.diagnose mypackage.model:make_net checkpoint.pt --data observations.npy
python -m tools.diagnose net.py:Net weights.pt --arguments '{"hidden": 256}' --key agent.actor --data normal:500,28
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from continual_agents import plasticity
from continual_agents.runs import CheckpointError
from continual_agents.runs.checkpoint import load_data
from tools.figures.table import markdown
from tools.parser import Parser


class DiagnoseError(ValueError):
    """What was asked for cannot be loaded; the message is all there is to say."""


def make_model(factory: str, arguments: Mapping[str, Any]) -> nn.Module:
    """Call `module:name` or `file.py:name` with keyword arguments.

    Raises:
        DiagnoseError: no such module, file or name, or it returns no module.
    """
    place, _, name = factory.rpartition(":")
    if not place:
        raise DiagnoseError(f"{factory}: expected module:name or file.py:name of a callable that makes the network")
    try:
        module = _import_file(Path(place)) if place.endswith(".py") else importlib.import_module(place)
    except (ImportError, FileNotFoundError) as error:
        raise DiagnoseError(f"{place} cannot be imported: {error}") from error
    if not hasattr(module, name):
        raise DiagnoseError(f"{place} has no {name!r}")
    try:
        model = getattr(module, name)(**arguments)
    except TypeError as error:
        raise DiagnoseError(f"{factory} does not take these --arguments: {error}") from error
    if not isinstance(model, nn.Module):
        raise DiagnoseError(f"{factory} made a {type(model).__name__}, not a torch.nn.Module")
    return model


def load_weights(model: nn.Module, path: Path, key: str | None = None) -> None:
    """Load a state dict into `model`; no code in the file is ever run (`weights_only=True`).

    Args:
        model: filled in place.
        path: a file written by `torch.save`.
        key: dotted way to the state dict inside the file, for instance `agent.actor`.

    Raises:
        DiagnoseError: unreadable, no state dict at `key`, or one that does not fit, naming what is there.
    """
    state = _descend(_load(path, "save the network's state_dict() alone"), key)
    if not isinstance(state, Mapping) or not any(isinstance(value, Tensor) for value in state.values()):
        keys = ", ".join(sorted(map(str, state))) if isinstance(state, Mapping) else type(state).__name__
        raise DiagnoseError(f"{path} holds no state dict{f' at {key!r}' if key else ''}: choose with --key from {keys}")
    try:
        model.load_state_dict(dict(state))
    except RuntimeError as error:
        raise DiagnoseError(f"{path} does not fit the network: {_clause(error)}") from error


def read_data(text: str) -> Tensor:
    """A batch from a .npy or .pt file, or `normal:ROWS,DIM,...`: standard normal noise of that shape, seed 0.

    Raises:
        DiagnoseError: neither.
    """
    if text.startswith("normal:"):
        parts = text.removeprefix("normal:").split(",")
        if not all(part.isdecimal() and int(part) > 0 for part in parts):
            raise DiagnoseError(f"{text}: expected normal:ROWS,DIM,... with whole numbers from 1")
        return torch.randn([int(part) for part in parts], generator=torch.Generator().manual_seed(0))
    path = Path(text)
    if path.suffix == ".npy":
        return _load_array(path)
    if path.suffix == ".pt":
        batch = _load(path, "save one tensor")
        if not isinstance(batch, Tensor):
            raise DiagnoseError(f"{path} holds a {type(batch).__name__}, not a tensor: save one batch of inputs")
        return batch
    raise DiagnoseError(f"{text}: expected a .npy or .pt file with one batch, or normal:ROWS,DIM,...")


def diagnose(model: nn.Module, batch: Tensor) -> list[dict[str, str]]:
    """One row of text per hidden layer, one for the whole network."""
    try:
        probe = plasticity.Probe(model, batch)
        values = probe(batch)
    except (ValueError, RuntimeError) as error:
        raise DiagnoseError(f"a batch of shape {list(batch.shape)} does not go: {_clause(error)}") from error
    rows = []
    for units in [*probe.units, None]:
        row = {"layer": "whole network" if units is None else units.name}
        row["units"] = str(sum(one.width for one in probe.units) if units is None else units.width)
        for measure in plasticity.MEASURES.values():
            value = values.get(measure.column + ("" if units is None else f"/{units.name}"), float("nan"))
            row[measure.heading] = measure.text(value)
        rows.append(row)
    return rows


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = Parser(prog="python -m tools.diagnose", description=__doc__, formatter_class=formatter)
    parser.add_argument(
        "factory", metavar="MODEL_FACTORY", help="module:name or file.py:name of what makes the network"
    )
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="file with its state dict")
    parser.add_argument("--data", required=True, help="evaluation batch: .npy, .pt, or normal:ROWS,DIM,...")
    parser.add_argument("--arguments", default="{}", help="keyword arguments of the factory, as JSON")
    parser.add_argument("--key", help="dotted way to the state dict inside the checkpoint")
    given = parser.parse_args(arguments)
    try:
        model = make_model(given.factory, _arguments(given.arguments))
        load_weights(model, given.checkpoint, given.key)
        rows = diagnose(model, read_data(given.data))
    except DiagnoseError as error:
        parser.error(str(error))
    print(markdown(list(rows[0]), [list(row.values()) for row in rows]), end="")


def _arguments(text: str) -> dict[str, Any]:
    try:
        arguments = json.loads(text)
    except json.JSONDecodeError:
        arguments = None
    if not isinstance(arguments, dict):
        raise DiagnoseError(f"--arguments {text}: expected a JSON object, as '{{\"hidden\": 256}}'")
    return arguments


def _load(path: Path, remedy: str) -> Any:
    """A file of `torch.save` as data."""
    try:
        return load_data(path)
    except CheckpointError as error:
        raise DiagnoseError(str(error) if "do not use" in str(error) else f"{error}: {remedy}") from error


def _load_array(path: Path) -> Tensor:
    try:
        # mapped first: a header that promises more than the file holds is refused before memory is taken
        return torch.from_numpy(np.array(np.load(path, mmap_mode="r", allow_pickle=False))).float()
    except OSError as error:
        raise DiagnoseError(f"{path} cannot be read ({error.strerror}): check the path and its rights") from error
    except (ValueError, TypeError, EOFError, OverflowError) as error:
        raise DiagnoseError(f"{path} is no .npy array of numbers: save one batch of inputs with numpy.save") from error


def _clause(error: Exception) -> str:
    """The first line of a message, without its full stop."""
    return str(error).strip().splitlines()[0].rstrip(".:")


def _import_file(path: Path) -> Any:
    if not path.exists():
        raise FileNotFoundError(f"no file {path}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _descend(content: Any, key: str | None) -> Any:
    for part in key.split(".") if key else []:
        if not isinstance(content, Mapping) or part not in content:
            there = ", ".join(sorted(map(str, content))) if isinstance(content, Mapping) else type(content).__name__
            raise DiagnoseError(f"--key {key}: no {part!r} there, only {there}")
        content = content[part]
    return content


if __name__ == "__main__":
    main()
