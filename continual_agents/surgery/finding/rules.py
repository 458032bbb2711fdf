"""What each operation between layers does to units: the table that `flow.follow` looks up."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import nn

from .groups import Flow, Segment
from .ledger import Ledger
from .shapes import first, flatten, flatten_call, getitem, permute, reduce, select, squeeze, unseen, view
from .torch_names import ACTIVATIONS, ELEMENTWISE, FUNCTION_POOLS, LOOKS, NORMS, POOLS, QUIET
from .trace import Call, Ref

Rule = Callable[[Ledger, Call], Any]


def module_rule(module: nn.Module) -> Rule | None:
    """The rule for a layer of torch.nn that makes no units of its own; None if there is none."""
    name = type(module).__name__
    if isinstance(module, NORMS):
        return _norm
    if not type(module).__module__.startswith("torch.nn.modules"):
        return None
    if isinstance(module, nn.PReLU) and module.num_parameters > 1:
        return _norm  # one slope per unit: reset with the unit
    if name in ACTIVATIONS:
        return lambda ledger, call: _pass(ledger, call, "" if name in QUIET else name)
    if name in POOLS:
        return lambda ledger, call: _pool(ledger, call, POOLS[name], name)
    if name == "Flatten":
        start, end = int(module.start_dim), int(module.end_dim)  # type: ignore[arg-type]
        return lambda ledger, call: flatten(ledger, call.args[0], call.out, start, end)
    if name == "Embedding":
        return lambda ledger, call: None
    return None


def operation_rule(name: str) -> Rule:
    """The rule for a function or method; what is not in the table mixes units as far as anyone knows."""
    if name in ELEMENTWISE:
        return lambda ledger, call: _pass(ledger, call, "" if name in QUIET else name)
    if name in FUNCTION_POOLS:
        return lambda ledger, call: _pool(ledger, call, FUNCTION_POOLS[name], name)
    if name in LOOKS:
        return lambda ledger, call: None
    return _OPERATIONS.get(name, unseen)


def _pass(ledger: Ledger, call: Call, label: str) -> Any:
    value = first(ledger, call)
    return value.through(label) if value is not None else None


def _norm(ledger: Ledger, call: Call) -> Any:
    value, module = first(ledger, call), call.target
    if value is None or not isinstance(module, nn.Module):
        return None
    kind = type(module).__name__
    shape = getattr(module, "normalized_shape", None)
    if shape is None or len(shape) == -value.axis:
        if any(segment.block is None for segment in value.segments):
            ledger.refuse(value, f"{kind} after flatten: give example inputs to find()")
        ledger.norm(module, value)
        if not value.path:
            ledger.follow(module, value)
    elif len(shape) > -value.axis:
        ledger.refuse(value, f"{kind} over several dims has entries that no unit owns")
    return value.through(kind)


def _pool(ledger: Ledger, call: Call, dims: int, label: str) -> Any:
    value = first(ledger, call)
    if value is None:
        return None
    if -value.axis <= dims:
        ledger.refuse(value, f"{label} pools across them")
        return None
    return value.through(label)


def _binary(ledger: Ledger, call: Call) -> Any:
    """add, sub, mul, div, maximum ...: units meet entry by entry."""
    label = {"add": "+", "sub": "-", "mul": "*", "div": "/"}.get(str(call.target), str(call.target))
    sides = [arg for arg in call.args[:2] if isinstance(arg, Ref)]
    flows = [ledger.value(side) for side in sides]
    present = [flow for flow in flows if flow is not None]
    if not present:
        return None
    if any(isinstance(flow, tuple) for flow in present):
        return unseen(ledger, call)
    if len(present) == 2:
        return ledger.union(present[0], present[1], label)
    other = next((side for side, flow in zip(sides, flows, strict=True) if flow is None), None)
    shape = ledger.shape(other)
    constant = other is not None and not ledger.derived(other) and shape is not None and math.prod(shape) == 1
    if len(sides) == 2 and not constant and call.target not in ("mul", "div"):
        ledger.refuse(present[0], f"a value that is no unit is added to them ({label})")
    return replace(present[0].through(label if len(sides) == 2 else ""), positive=False)


def _ndim(shape: tuple[int, ...] | None, axis: int, dim: int) -> int:
    """How many dims a value has. A symbolic trace does not say: taken is one batch dim before the units', but a vector
    where dim 0 can only be that of the units. A wrong guess does harm to nobody: the reader's size refuses it."""
    if shape is not None:
        return len(shape)
    return 1 if axis == -1 and dim == 0 else 1 - axis


def _cat(ledger: Ledger, call: Call) -> Any:
    """Concatenation along the units: segments one after the other; along another dim the pieces must be the same."""
    refs = call.args[0]
    dim = call.args[1] if len(call.args) > 1 else call.kwargs.get("dim", call.kwargs.get("axis", 0))
    flows = [ledger.value(ref) for ref in refs]
    present = [flow for flow in flows if isinstance(flow, Flow)]
    if not present:
        return None
    shape = ledger.shape(call.out)
    axis = present[0].axis
    if dim >= 0:
        dim -= _ndim(shape, axis, dim)
    if any(flow.axis != axis for flow in present) or (dim != axis and len(present) < len(flows)):
        return unseen(ledger, call)
    if dim != axis:
        merged: Flow | None = present[0]
        for flow in present[1:]:
            merged = ledger.union(merged, flow, "cat") if merged is not None else None
        return merged
    segments: list[Segment] = []
    for ref, flow in zip(refs, flows, strict=True):
        if flow is not None:
            segments += flow.segments
            continue
        size = ledger.shape(ref)
        if size is None:
            ledger.refuse(tuple(present), "concatenated with a value of unknown size: give example inputs to find()")
            return None
        segments.append(Segment(None, size[axis]))
    positive = all(flow is not None and flow.positive for flow in flows)
    return Flow(axis, tuple(segments), (*present[0].path, "cat"), positive)


_OPERATIONS: dict[str, Rule] = {
    **dict.fromkeys(("add", "sub", "mul", "div", "maximum", "minimum"), _binary),
    "cat": _cat,
    "flatten": flatten_call,
    **dict.fromkeys(("view", "reshape"), view),
    **dict.fromkeys(("permute", "transpose", "T", "mT", "t"), permute),
    **dict.fromkeys(("mean", "sum", "amax", "amin"), reduce),
    **dict.fromkeys(("squeeze", "unsqueeze"), squeeze),
    "getitem": getitem,
    **dict.fromkeys(("select", "unbind", "chunk", "split", "tensor_split"), select),
}
