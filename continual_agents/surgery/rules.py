"""What each operation between layers does to units: the table that `flow.Analysis` looks up."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import nn

from .groups import Flow, Segment
from .layouts import first, flatten, flatten_call, getitem, permute, reduce, select, squeeze, unseen, view
from .operations import ACTIVATIONS, ELEMENTWISE, FUNCTION_POOLS, LOOKS, NORMS, POOLS, QUIET

if TYPE_CHECKING:
    from .flow import Analysis
    from .trace import Call

Rule = Callable[["Analysis", "Call"], Any]


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
        return lambda analysis, call: _pass(analysis, call, "" if name in QUIET else name)
    if name in POOLS:
        return lambda analysis, call: _pool(analysis, call, POOLS[name], name)
    if name == "Flatten":
        start, end = int(module.start_dim), int(module.end_dim)  # type: ignore[arg-type]
        return lambda analysis, call: flatten(analysis, call.args[0], call.out, start, end)
    if name == "Embedding":
        return lambda analysis, call: None
    return None


def operation_rule(name: str) -> Rule:
    """The rule for a function or method; what is not in the table mixes units as far as anyone knows."""
    if name in ELEMENTWISE:
        return lambda analysis, call: _pass(analysis, call, "" if name in QUIET else name)
    if name in FUNCTION_POOLS:
        return lambda analysis, call: _pool(analysis, call, FUNCTION_POOLS[name], name)
    if name in LOOKS:
        return lambda analysis, call: None
    return _OPERATIONS.get(name, unseen)


def _pass(analysis: Analysis, call: Call, label: str) -> Any:
    value = first(analysis, call)
    return value.through(label) if value is not None else None


def _norm(analysis: Analysis, call: Call) -> Any:
    value, module = first(analysis, call), call.target
    if value is None or not isinstance(module, nn.Module):
        return None
    kind = type(module).__name__
    shape = getattr(module, "normalized_shape", None)
    if shape is None or len(shape) == -value.axis:
        if any(segment.block is None for segment in value.segments):
            analysis.refuse(value, f"{kind} after flatten: give example inputs to find()")
        analysis.norm(module, value)
        if not value.path:
            analysis.follow(module, value)
    elif len(shape) > -value.axis:
        analysis.refuse(value, f"{kind} over several dims has entries that no unit owns")
    return value.through(kind)


def _pool(analysis: Analysis, call: Call, dims: int, label: str) -> Any:
    value = first(analysis, call)
    if value is None:
        return None
    if -value.axis <= dims:
        analysis.refuse(value, f"{label} pools across them")
        return None
    return value.through(label)


def _binary(analysis: Analysis, call: Call) -> Any:
    """add, sub, mul, div, maximum ...: units meet entry by entry."""
    from .trace import Ref

    label = {"add": "+", "sub": "-", "mul": "*", "div": "/"}.get(str(call.target), str(call.target))
    sides = [arg for arg in call.args[:2] if isinstance(arg, Ref)]
    flows = [analysis.value(side) for side in sides]
    present = [flow for flow in flows if flow is not None]
    if not present:
        return None
    if any(isinstance(flow, tuple) for flow in present):
        return unseen(analysis, call)
    if len(present) == 2:
        return analysis.union(present[0], present[1], label)
    other = next((side for side, flow in zip(sides, flows, strict=True) if flow is None), None)
    shape = analysis.shape(other)
    constant = other is not None and not analysis.derived(other) and shape is not None and math.prod(shape) == 1
    if len(sides) == 2 and not constant and call.target not in ("mul", "div"):
        analysis.refuse(present[0], f"a value that is no unit is added to them ({label})")
    return replace(present[0].through(label if len(sides) == 2 else ""), positive=False)


def _cat(analysis: Analysis, call: Call) -> Any:
    """Concatenation along the units: segments one after the other; along another dim the pieces must be the same."""
    refs = call.args[0]
    dim = call.args[1] if len(call.args) > 1 else call.kwargs.get("dim", call.kwargs.get("axis", 0))
    flows = [analysis.value(ref) for ref in refs]
    present = [flow for flow in flows if isinstance(flow, Flow)]
    if not present:
        return None
    shape = analysis.shape(call.out)
    axis = present[0].axis
    if dim >= 0:
        dim = dim - (len(shape) if shape else -axis if axis == -1 and dim == 0 else 1 - axis)
    if any(flow.axis != axis for flow in present) or (dim != axis and len(present) < len(flows)):
        return unseen(analysis, call)
    if dim != axis:
        merged: Flow | None = present[0]
        for flow in present[1:]:
            merged = analysis.union(merged, flow, "cat") if merged is not None else None
        return merged
    segments: list[Segment] = []
    for ref, flow in zip(refs, flows, strict=True):
        if flow is not None:
            segments += flow.segments
            continue
        size = analysis.shape(ref)
        if size is None:
            analysis.refuse(tuple(present), "concatenated with a value of unknown size: give example inputs to find()")
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
