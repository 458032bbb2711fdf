"""Find the units of a network: which layers make them and which read them."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, overload

from torch import nn

from .calls import Trace
from .flow import follow
from .groups import Group
from .layers import axes_of
from .recorder import Pass
from .slots import Reader
from .stacked import members_of
from .trace import trace
from .units import Units


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


def find(
    net: nn.Module | Mapping[str, nn.Module] | Sequence[nn.Module],
    *example_inputs: Any,
    passes: Sequence[Any] = (),
    outputs: str | int | Sequence[str | int] | None = None,
    leave_out: Sequence[str | nn.Module] = (),
    frozen: bool = False,
    parameters: Any = None,
) -> Found:
    """Find the hidden units of a network by following what it computes.

    Without example inputs the network is traced symbolically (torch.fx); with them it is run once, in evaluation mode,
    leaving parameters, buffers and random state as they are (lazy layers get their parameters, as in any first pass).
    Control flow and reshapes need the example inputs.

    Args:
        net: a module; or several, as a mapping (names are prefixed by its keys) or sequence (by position). Layers of
            different modules are never paired: give the module that holds both if one reads the other.
        example_inputs: arguments of a forward pass, the same for every module.
        passes: more forward passes, each a tuple of arguments or a dict of keyword arguments, for a network that uses
            its parts in turn: one for each task's head. A reader that no pass reaches is not known to read.
        outputs: what counts as the network's output, by key or position in what it returns, when it returns hidden
            features too; None: everything it returns. Those features change when units are renewed.
        leave_out: layers or blocks, as names or modules, that surgery must not touch: neither the units they make nor
            those they read.
        frozen: offer units of layers with `requires_grad=False` too: to look at, or because their in-weights are meant
            to be drawn and never trained.
        parameters: stacked parameters `[members, ...]` by name, with which the module is called instead of its own: a
            TorchRL loss's `qvalue_network_params`. Units are those of each member, named `0.` onwards.

    Returns:
        the units of every hidden layer, with the reason for each layer that is left out. Output layers are.

    Raises:
        ValueError: the network cannot be traced without example inputs, or is one of TorchRL's losses; an unknown name
            in `leave_out` or `outputs`; a registered layer that does not have the tensors it was registered with.

    Example:
        >>> find(nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 2)))
        0: Linear[32] -> ReLU -> 2: Linear
        left out:
          2: output layer
    """
    parts = {prefix: _unwrap(part) for prefix, part in _parts(net).items()}
    if parameters is not None:
        parts = members_of(net, parameters)  # type: ignore[arg-type]
    names = {
        id(module): ".".join(p for p in (prefix, name) if p)
        for prefix, part in parts.items()
        for name, module in part.named_modules()
    }
    given = [Pass(example_inputs)] if example_inputs else []
    given += [_as_pass(one) for one in passes]
    asked = _inside(leave_out, parts, names)
    units: list[Units] = []
    left_out: dict[str, str] = {}
    for part in parts.values():
        _refuse_loss(part)
        traced = trace(part, given)
        ledger = follow(replace(traced, outputs=tuple(chosen(value, outputs) for value in traced.outputs)), names)
        shared = _shared_parameters(part)
        for group in ledger.groups():
            reason = _reason(group, names, shared, asked)
            if reason is None:
                made = _units(group, names, ledger.behind, _notes(group), part)
                reason = None if frozen else made.frozen()
            if reason is None:
                units.append(made)
            else:
                left_out |= {ledger.name(m) or type(m).__name__: reason for m in group.makers}
        left_out |= {name: reason for name, reason in ledger.unknown.items() if name not in left_out}
        left_out |= dict.fromkeys(_unreached(part, traced, names), UNREACHED)
    return Found(units, left_out)


UNREACHED = "no forward pass reached it: give one that does, find(net, passes=[...])"


def _as_pass(given: Any) -> Pass:
    if isinstance(given, Mapping):
        return Pass(kwargs=given)
    return Pass(given if isinstance(given, tuple) else (given,))


def chosen(returned: Any, outputs: str | int | Sequence[str | int] | None) -> Any:
    """The part of what a network returned that counts as its output."""
    if outputs is None:
        return returned
    keys = [outputs] if isinstance(outputs, (str, int)) else list(outputs)
    try:
        return tuple(returned[key] for key in keys)
    except (KeyError, IndexError, TypeError):
        if isinstance(returned, Mapping):
            there = ", ".join(map(repr, returned))
        else:
            there = f"0 to {len(returned) - 1}" if isinstance(returned, tuple) else "a single value"
        raise ValueError(f"outputs={outputs!r}: the network returns {there}") from None


def _inside(leave_out: Sequence[str | nn.Module], parts: Mapping[str, nn.Module], names: Mapping[int, str]) -> set[int]:
    """Ids of the modules that surgery must not touch, with all their parts."""
    modules = {names[id(module)]: module for part in parts.values() for module in part.modules()}
    asked: set[int] = set()
    for item in [leave_out] if isinstance(leave_out, (str, nn.Module)) else leave_out:
        module = modules.get(item) if isinstance(item, str) else item
        if module is None or id(module) not in names:
            near = difflib.get_close_matches(str(item), list(modules), 1)
            hint = f"did you mean {near[0]!r}?" if near else "see net.named_modules()"
            kind = repr(item) if isinstance(item, str) else f"this {type(item).__name__}"
            raise ValueError(f"leave_out: the network has no layer {kind}: {hint}")
        asked |= {id(part) for part in module.modules()}
    return asked


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


def _refuse_loss(module: nn.Module) -> None:
    """TorchRL's losses hold parameters, not layers; those of critics stacked under vmap belong to no layer at all."""
    if not any(
        kind.__name__ == "LossModule" and kind.__module__.startswith("torchrl.") for kind in type(module).__mro__
    ):
        return
    sizes = {name: getattr(part, "batch_size", ()) for name, part in module.named_children()}
    stacked = [f"{name} {list(size)}" for name, size in sizes.items() if size and not name.startswith("target_")]
    first = stacked[0].split()[0].removesuffix("_params") if stacked else ""
    call = f"surgery.find(loss.{first}, parameters=loss.{first}_params)"
    which = f"; for the stacked {', '.join(stacked)} {call}" if stacked else ""
    raise ValueError(
        f"{type(module).__name__} is a loss and has no layers: surgery.find(net) wants the networks whose own "
        f"parameters it trains{which}"
    )


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


def _reason(group: Group, names: Mapping[int, str], shared: set[int], asked: set[int]) -> str | None:
    touched = [*group.makers, *(reader.module for reader in group.readers)]
    for module in [*touched, *(norm.module for norm in group.norms)]:
        if id(module) in asked:
            own = module in group.makers
            return "left out as asked" if own else f"{names.get(id(module))}, which was to be left out, touches them"
    if group.refused:
        return group.refused
    recurrent = all(axes is not None and axes.recurrent for axes in map(axes_of, group.makers))
    if group.output and not (recurrent and group.readers):
        if not group.readers:
            return "output layer"
        return "read inside, and also the network's output (find(..., outputs=...) names what counts as output)"
    if not group.readers and not recurrent:
        return "no layer reads it"
    for module in touched:
        if any(id(p) in shared for p in module.parameters(recurse=False)):
            return f"{names.get(id(module))} shares a parameter with another layer"
        if hasattr(module, "parametrizations"):
            return f"{names.get(id(module))} has a parametrised weight (weight norm, spectral norm); remove it first"
        axes = axes_of(module)
        for name in {**axes.out, **axes.inp} if axes else ():
            if getattr(module, name, None) is not None and name not in {**module._parameters, **module._buffers}:
                return f"{name!r} of {names.get(id(module))} is computed from others (pruned?); make it permanent first"
    return None


def _notes(group: Group) -> list[str]:
    """Why the readers of these units keep their mean only roughly."""
    why = [f"{kind} makes them depend on each other" for kind in dict.fromkeys(group.mixed)]
    why += ["they feed back into themselves"] if group.feeds_back() else []
    return [f"the mean is kept roughly: {', '.join(why)}"] if why else []


def _unreached(net: nn.Module, traced: Trace, names: Mapping[int, str]) -> list[str]:
    """Layers that could make or read units, and that no call of the trace is about."""
    seen = {id(part) for call in traced.calls if isinstance(call.target, nn.Module) for part in call.target.modules()}
    return [names[id(m)] for m in net.modules() if axes_of(m) is not None and id(m) not in seen and names[id(m)]]


def _units(
    group: Group, names: Mapping[int, str], behind: Mapping[int, nn.Module], notes: Sequence[str], network: nn.Module
) -> Units:
    name = names.get(id(group.makers[0])) or type(group.makers[0]).__name__
    sources = {value: i for i, value in enumerate(dict.fromkeys(reader.value for reader in group.readers))}
    readers: dict[tuple[int, int], Reader] = {}
    for r in group.readers:
        centre = behind.get(id(r.module)) if getattr(r.module, "bias", None) is None else None
        reader = Reader(r.module, r.start, r.block, source=sources[r.value], centre=centre, positive=r.positive)
        readers.setdefault((id(r.module), r.start), reader)
    norms = {(id(norm.module), norm.start, tuple(norm.values or ())): norm for norm in group.norms}
    return Units(
        name,
        group.makers,
        list(readers.values()),
        list(norms.values()),
        path=group.path,
        names=names,
        notes=notes,
        network=network,
    )
