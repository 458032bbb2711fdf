"""Has this network lost plasticity? A table of its hidden layers, from any checkpoint.

python -m tools.diagnose RUN_FOLDER
python -m tools.diagnose mypackage.model:make_net checkpoint.pt --data observations.npy
python -m tools.diagnose net.py:Net weights.pt --arguments '{"hidden": 256}' --key agent.actor --data normal:500,28
"""

import argparse
import importlib
import itertools
import json
import runpy
import sys
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from continual_agents import plasticity
from continual_agents.runs import CheckpointError
from continual_agents.runs.checkpoint import load_data
from continual_agents.runs.unpacking import CodeError
from tools.figures.table import markdown
from tools.parser import Parser
from tools.record import RecordError
from tools.run_diagnosis import diagnose_run, table
from tools.text import visible


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


def load_weights(model: nn.Module, path: Path, key: str | None = None) -> str:
    """Load a state dict into `model`; no code in the file is ever run (`weights_only=True`).

    Prefixes that wrappers put before every name (`module.`, `_orig_mod.`, `model.`) are taken off.

    Args:
        model: filled in place.
        path: a file written by `torch.save`.
        key: dotted way to the state dict inside the file, for instance `agent.actor`.

    Returns:
        what was done to the names; "" if nothing.

    Raises:
        DiagnoseError: unreadable, no state dict at `key`, or one that does not fit, naming what is there.
    """
    state = _descend(_load(path, "save the network's state_dict() alone"), key)
    if not isinstance(state, Mapping) or not any(isinstance(value, Tensor) for value in state.values()):
        keys = ", ".join(sorted(map(str, state))) if isinstance(state, Mapping) else type(state).__name__
        raise DiagnoseError(f"{path} holds no state dict{f' at {key!r}' if key else ''}: choose with --key from {keys}")
    own = model.state_dict()
    fitting, said = _without_prefix({str(name): value for name, value in state.items()}, set(own))
    if problem := _misfit(fitting, own):
        raise DiagnoseError(f"{path} does not fit the network: {problem}")
    try:
        model.load_state_dict(fitting)
    except RuntimeError as error:
        raise DiagnoseError(f"{path} does not fit the network: {_clause(error)}") from error
    return f"{path}: {said}" if said else ""


PREFIXES = ("module.", "_orig_mod.", "model.")
"""Of DistributedDataParallel, torch.compile and Lightning; they may stand one behind the other."""


def _without_prefix(state: dict[str, Any], names: set[str]) -> tuple[dict[str, Any], str]:
    """The state under the network's own names, and what was taken off; as it is if no prefix makes all names fit."""
    if names <= set(state):
        return state, ""
    for count in (1, 2, 3):
        for prefix in map("".join, itertools.product(PREFIXES, repeat=count)):
            fitting = {name.removeprefix(prefix): v for name, v in state.items() if name.startswith(prefix)}
            if names <= set(fitting):
                others = len(state) - len(fitting)
                beside = f", {others} without it left aside" if others else ""
                return fitting, f"the prefix {prefix!r} is taken off {len(fitting)} names{beside}"
    return state, ""


def _misfit(state: Mapping[str, Any], own: Mapping[str, Any]) -> str:
    """What is missing, too much or of another shape; "" if nothing is."""
    missing = [name for name in own if name not in state]
    more = [name for name in state if name not in own]
    shapes = [
        f"{name} is {_shape(value)} there and {_shape(own[name])} in the network"
        for name, value in state.items()
        if name in own
        and isinstance(value, Tensor)
        and isinstance(own[name], Tensor)
        and value.shape != own[name].shape
    ]
    parts = [f"it lacks {_some(missing)}" if missing else "", f"it also holds {_some(more)}" if more else ""]
    return "; ".join(filter(None, [*parts, _some(shapes)]))


def _shape(value: Any) -> str:
    return str(list(value.shape)) if isinstance(value, Tensor) else f"a {type(value).__name__}"


def _some(names: Sequence[str]) -> str:
    """The first few of many."""
    rest = len(names) - 4
    return ", ".join(names[:4]) + (f" and {rest} more" if rest > 0 else "")


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
        return table(probe.units, probe(batch))
    except (ValueError, RuntimeError) as error:
        raise DiagnoseError(f"a batch of shape {list(batch.shape)} does not go: {_clause(error)}") from error


def main(arguments: list[str] | None = None) -> None:
    """The command."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = Parser(prog="python -m tools.diagnose", description=__doc__, formatter_class=formatter)
    parser.add_argument(
        "factory",
        metavar="MODEL_FACTORY",
        help="module:name or file.py:name of what makes the network, or a run folder",
    )
    parser.add_argument(
        "checkpoint", type=Path, nargs="?", metavar="CHECKPOINT", help="file with its state dict (of a run: the newest)"
    )
    parser.add_argument("--data", help="evaluation batch: .npy, .pt, or normal:ROWS,DIM,... (of a run: its own)")
    parser.add_argument("--arguments", default="{}", help="keyword arguments of the factory, as JSON")
    parser.add_argument("--key", help="dotted way to the state dict inside the checkpoint")
    given = parser.parse_args(arguments)
    try:
        rows = _rows(given)
    except (DiagnoseError, RecordError, CheckpointError) as error:
        parser.error(str(error))
    print(visible(markdown(list(rows[0]), [list(row.values()) for row in rows])), end="")


def _rows(given: argparse.Namespace) -> list[dict[str, str]]:
    batch = None if given.data is None else read_data(given.data)
    if Path(given.factory).is_dir():
        try:
            return diagnose_run(Path(given.factory), checkpoint=given.checkpoint, batch=batch)
        except (RecordError, CheckpointError):
            raise
        except (ValueError, RuntimeError) as error:
            raise DiagnoseError(f"{given.factory}: {_clause(error)}") from error
    model = make_model(given.factory, _arguments(given.arguments))
    if given.checkpoint is None or batch is None:
        raise DiagnoseError(f"{given.factory} is no run folder: a network needs its CHECKPOINT and --data")
    said = load_weights(model, given.checkpoint, given.key)
    if said:
        print(said, file=sys.stderr)
    return diagnose(model, batch)


def _arguments(text: str) -> dict[str, Any]:
    try:
        arguments = json.loads(text)
    except json.JSONDecodeError:
        arguments = None
    if not isinstance(arguments, dict):
        raise DiagnoseError(f"--arguments {text}: expected a JSON object, as '{{\"hidden\": 256}}'")
    return arguments


PLAIN = frozenset(("numpy", "argparse", "types", "pathlib", "omegaconf", "datetime", "collections", "typing"))
"""Packages whose objects people save beside weights without a thought; what they ask for is named, not called code."""


def _load(path: Path, remedy: str) -> Any:
    """A file of `torch.save` as data."""
    try:
        return load_data(path)
    except CheckpointError as error:
        asked = str(error.__cause__).removeprefix("asks for ") if isinstance(error.__cause__, CodeError) else ""
        if asked.split(".")[0] in PLAIN:
            raise DiagnoseError(
                f"{path} holds a {asked} beside the weights, which only code can read: where you trust the file, load "
                "it with torch.load(..., weights_only=False) and save the state_dict() alone"
            ) from error
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
    return types.SimpleNamespace(**runpy.run_path(str(path)))


def _descend(content: Any, key: str | None) -> Any:
    for part in key.split(".") if key else []:
        if not isinstance(content, Mapping) or part not in content:
            there = ", ".join(sorted(map(str, content))) if isinstance(content, Mapping) else type(content).__name__
            raise DiagnoseError(f"--key {key}: no {part!r} there, only {there}")
        content = content[part]
    return content


if __name__ == "__main__":
    main()
