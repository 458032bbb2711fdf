"""Find the units of a network: which layers make them and which read them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, overload

from torch import nn

from .flow import follow
from .groups import Group
from .layers import axes_of
from .trace import trace
from .units import Reader, Units


class Found(Sequence[Units]):
    """What `find` found: a sequence of `Units` that prints itself.

    Attributes:
        left_out: name of every layer that is not offered -> why.
    """

    def __init__(self, units: Sequence[Units], left_out: Mapping[str, str]) -> None:
        self._units = list(units)
        self.left_out = dict(left_out)

    @overload
    def __getitem__(self, key: int) -> Units: ...
    @overload
    def __getitem__(self, key: slice) -> list[Units]: ...
    def __getitem__(self, key: int | slice) -> Units | list[Units]:
        return self._units[key]

    def __len__(self) -> int:
        return len(self._units)

    def __iter__(self) -> Iterator[Units]:
        return iter(self._units)

    def __repr__(self) -> str:
        lines = [repr(units) for units in self] or ["no units"]
        if self.left_out:
            lines += ["left out:", *(f"  {name}: {reason}" for name, reason in self.left_out.items())]
        return "\n".join(lines)


def find(net: nn.Module | Mapping[str, nn.Module] | Sequence[nn.Module], *example_inputs: Any) -> Found:
    """Find the hidden units of a network by following what it computes.

    Without example inputs the network is traced symbolically (torch.fx); with them it is run once, in evaluation mode,
    leaving parameters, buffers and random state as they are. Control flow and reshapes need the example inputs.

    Args:
        net: a module; or several, as a mapping (names are prefixed by its keys) or sequence (by position). Layers of
            different modules are never paired: give the module that holds both if one reads the other.
        example_inputs: arguments of a forward pass, the same for every module.

    Returns:
        the units of every hidden layer, with the reason for each layer that is left out. Output layers are.

    Raises:
        ValueError: the network cannot be traced without example inputs.
        TypeError: a layer with parameters of its own reads units and nobody registered it.

    Example:
        >>> find(nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 2)))
        0: Linear[32] -> ReLU -> 2: Linear
        left out:
          2: output layer
    """
    parts = _parts(net)
    units: list[Units] = []
    left_out: dict[str, str] = {}
    for prefix, part in parts.items():
        part = _unwrap(part)
        names = {id(module): ".".join(p for p in (prefix, name) if p) for name, module in part.named_modules()}
        ledger = follow(trace(part, example_inputs), names)
        shared = _shared_parameters(part)
        for group in ledger.groups():
            name = names.get(id(group.makers[0]), type(group.makers[0]).__name__) or type(group.makers[0]).__name__
            reason = _reason(group, names, shared)
            if reason:
                left_out |= {names.get(id(m)) or type(m).__name__: reason for m in group.makers}
            else:
                units.append(_units(name, group, names, ledger.behind))
    return Found(units, left_out)


def _parts(net: Any) -> dict[str, nn.Module]:
    if isinstance(net, (Mapping, nn.ModuleDict)):
        parts = {str(name): part for name, part in net.items()}
    elif isinstance(net, nn.Module) and not isinstance(net, nn.ModuleList):
        parts = {"": net}
    elif isinstance(net, (Sequence, nn.ModuleList)):
        parts = {str(i): part for i, part in enumerate(net)}
    else:
        parts = {"": net}
    for part in parts.values():
        if not isinstance(part, nn.Module):
            raise TypeError(f"find() wants modules, got {type(part).__name__}")
    return parts


def _unwrap(module: nn.Module) -> nn.Module:
    """The user's own module inside torch.compile, DistributedDataParallel or DataParallel."""
    while True:
        inner = getattr(module, "_orig_mod", None)
        if inner is None and isinstance(module, (nn.parallel.DistributedDataParallel, nn.DataParallel)):
            inner = module.module
        if inner is None:
            return module
        module = inner


def _shared_parameters(net: nn.Module) -> set[int]:
    """Ids of parameters that two modules hold."""
    seen: set[int] = set()
    shared: set[int] = set()
    for module in net.modules():
        for parameter in module.parameters(recurse=False):
            (shared if id(parameter) in seen else seen).add(id(parameter))
    return shared


def _reason(group: Group, names: Mapping[int, str], shared: set[int]) -> str | None:
    if group.refused:
        return group.refused
    recurrent = all(axes is not None and axes.recurrent for axes in map(axes_of, group.makers))
    if group.output and not (recurrent and group.readers):
        return "output layer" if not group.readers else "read inside, and also the network's output"
    if not group.readers and not recurrent:
        return "no layer reads it"
    for module in [*group.makers, *(reader[0] for reader in group.readers)]:
        if any(id(p) in shared for p in module.parameters(recurse=False)):
            return f"{names.get(id(module))} shares a parameter with another layer"
        if hasattr(module, "parametrizations"):
            return f"{names.get(id(module))} has a parametrised weight (weight norm, spectral norm); remove it first"
    return None


def _reader(
    module: nn.Module, start: int, block: int, source: int, positive: bool, behind: Mapping[int, nn.Module]
) -> Reader:
    centre = behind.get(id(module)) if getattr(module, "bias", None) is None else None
    return Reader(module, start, block, source=source, centre=centre, positive=positive)


def _units(name: str, group: Group, names: Mapping[int, str], behind: Mapping[int, nn.Module]) -> Units:
    sources = {value: i for i, value in enumerate(dict.fromkeys(reader[3] for reader in group.readers))}
    readers: dict[tuple[int, int], Reader] = {}
    for module, start, block, value, positive in group.readers:
        readers.setdefault((id(module), start), _reader(module, start, block, sources[value], positive, behind))
    norms = {(id(module), start): Reader(module, start, block) for module, start, block in group.norms}
    return Units(name, group.makers, list(readers.values()), list(norms.values()), path=group.path, names=names)
