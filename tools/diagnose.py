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
from tools.figures.table import markdown
from tools.parser import Parser

COLUMNS = {
    "dead_units": "dead",
    "dormant_units": "dormant",
    "effective_rank": "effective rank",
    "approximate_rank": "approximate rank",
    "abs_approximate_rank": "abs. approx. rank",
    "stable_rank": "stable rank",
    "feature_norm": "feature norm",
    "weight_magnitude": "weight magnitude",
}
"""Measures of `plasticity.summarise` and their headings."""


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
    model = getattr(module, name)(**arguments)
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
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen types here
        raise DiagnoseError(
            f"{path} does not load with weights_only=True ({str(error).strip().splitlines()[0]}): "
            "save the network's state_dict() alone"
        ) from error
    state = _descend(content, key)
    if not isinstance(state, Mapping) or not any(isinstance(value, Tensor) for value in state.values()):
        keys = ", ".join(sorted(map(str, state))) if isinstance(state, Mapping) else type(state).__name__
        raise DiagnoseError(f"{path} holds no state dict{f' at {key!r}' if key else ''}: choose with --key from {keys}")
    try:
        model.load_state_dict(dict(state))
    except RuntimeError as error:
        raise DiagnoseError(f"{path} does not fit the network: {error}") from error


def read_data(text: str) -> Tensor:
    """A batch from a .npy or .pt file, or `normal:ROWS,DIM,...`: standard normal noise of that shape, seed 0.

    Raises:
        DiagnoseError: neither.
    """
    if text.startswith("normal:"):
        try:
            shape = [int(part) for part in text.removeprefix("normal:").split(",")]
        except ValueError:
            raise DiagnoseError(f"{text}: expected normal:ROWS,DIM,...") from None
        return torch.randn(shape, generator=torch.Generator().manual_seed(0))
    path = Path(text)
    try:
        if path.suffix == ".npy":
            return torch.from_numpy(np.load(path, allow_pickle=False)).float()
        if path.suffix == ".pt":
            return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, ValueError) as error:
        raise DiagnoseError(f"{path} cannot be read: {error}") from error
    raise DiagnoseError(f"{text}: expected a .npy or .pt file with one batch, or normal:ROWS,DIM,...")


def diagnose(model: nn.Module, batch: Tensor) -> list[dict[str, str]]:
    """One row of text per hidden layer, one for the whole network."""
    probe = plasticity.Probe(model, batch)
    values = probe(batch)
    rows = []
    for units in [*probe.units, None]:
        row = {"layer": "whole network" if units is None else units.name}
        row["units"] = str(sum(one.width for one in probe.units) if units is None else units.width)
        for measure, heading in COLUMNS.items():
            value = values.get(f"plasticity/{measure}" + ("" if units is None else f"/{units.name}"), float("nan"))
            row[heading] = f"{100 * value:.1f}%" if measure.endswith("_units") else f"{value:.3g}"
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
        model = make_model(given.factory, json.loads(given.arguments))
        load_weights(model, given.checkpoint, given.key)
        rows = diagnose(model, read_data(given.data))
    except (DiagnoseError, json.JSONDecodeError) as error:
        parser.error(str(error))
    print(markdown(list(rows[0]), [list(row.values()) for row in rows]), end="")


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
