"""What each operation between layers does to units: the table that `flow.follow` looks up."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from .calls import Call, Ref
from .groups import Flow, Segment
from .ledger import Ledger
from .norms import START, norm_of
from .shapes import first, flatten, flatten_call, getitem, permute, reduce, select, squeeze, unseen, view
from .slots import Norm
from .torch_names import ACTIVATIONS, ELEMENTWISE, FUNCTION_POOLS, LOOKS, POOLS, QUIET

Rule = Callable[[Ledger, Call], Any]


def module_rule(module: nn.Module) -> Rule | None:
    """The rule for a layer of torch.nn that makes no units of its own; None if there is none."""
    name = type(module).__name__
    if norm_of(module) is not None:
        return _norm
    if not type(module).__module__.startswith("torch.nn.modules"):
        return None
    if isinstance(module, nn.Sequential):  # an empty one, as in shortcuts: the others are looked into
        return lambda ledger, call: _pass(ledger, call, "")
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
    kind, known = type(module).__name__, norm_of(module)
    if known is not None and known.mixes:
        ledger.mixed(value, kind)
    return _normalised(ledger, value, kind, [Norm(module)], getattr(module, "normalized_shape", None))


def _normalised(ledger: Ledger, value: Flow, kind: str, norms: Sequence[Norm], shape: Sequence[int] | None) -> Flow:
    """Units behind a norm; `shape` is that of a layer norm's entries."""
    # a layer norm's entries lie along the last dims: one per unit where the units' is the first of these
    if shape is None or len(shape) == -value.axis:
        if any(segment.block is None for segment in value.segments):  # a symbolic trace knows no kernel positions
            ledger.refuse(value, f"{kind} after flatten: give example inputs to find()")
        for norm in norms:
            ledger.norm(norm, value)
            if not value.path:  # nothing between the layer and the norm, whose running mean can take a mean over
                ledger.stands_behind(norm.module, value)
    elif len(shape) > -value.axis:
        ledger.refuse(value, f"{kind} over several dims has entries that no unit owns")
    return value.through(kind)


_NORM_ARGUMENTS = {
    "batch_norm": ("input", "running_mean", "running_var", "weight", "bias"),
    "instance_norm": ("input", "running_mean", "running_var", "weight", "bias"),
    "layer_norm": ("input", "normalized_shape", "weight", "bias"),
    "group_norm": ("input", "num_groups", "weight", "bias"),
    "rms_norm": ("input", "normalized_shape", "weight"),
}


def _norm_function(ledger: Ledger, call: Call) -> Any:
    """F.batch_norm and the like, on parameters and buffers that some module holds under whatever names."""
    value, kind = first(ledger, call), str(call.target)
    if value is None:
        return None
    given = {**dict(zip(_NORM_ARGUMENTS[kind], call.args, strict=False)), **call.kwargs}
    if kind in ("layer_norm", "group_norm", "rms_norm"):
        ledger.mixed(value, kind)
    held: dict[int, tuple[nn.Module, dict[str, float | None]]] = {}
    for argument, start in START.items():
        if isinstance(given.get(argument), Ref):
            owner = ledger.owner(given[argument])
            if owner is None:
                ledger.refuse(value, f"{kind} with a {argument} that is no parameter or buffer of a module")
                return None
            held.setdefault(id(owner[0]), (owner[0], {}))[1][owner[1]] = start
    norms = [Norm(module, values=values) for module, values in held.values()]
    return _normalised(ledger, value, kind, norms, given.get("normalized_shape"))


def _prelu(ledger: Ledger, call: Call) -> Any:
    """F.prelu: one slope for all, or one per unit."""
    value, slope = first(ledger, call), call.args[1] if len(call.args) > 1 else call.kwargs.get("weight")
    owner, shape = ledger.owner(slope), ledger.shape(slope)
    if value is None:
        return None
    if owner is None or shape is None:
        return unseen(ledger, call)
    if math.prod(shape) > 1:
        ledger.norm(Norm(owner[0], values={owner[1]: 0.25}), value)
    return value.through("prelu")


def _pool(ledger: Ledger, call: Call, dims: int, label: str) -> Any:
    value = first(ledger, call)
    if value is None:
        return None
    if -value.axis <= dims:  # units lie along one of the last dims, which are those that are pooled
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
        return _meet(ledger, present[0], present[1], label)
    other = next((side for side, flow in zip(sides, flows, strict=True) if flow is None), None)
    result = replace(present[0].through(label if len(sides) == 2 else ""), positive=False)
    if other is None:  # a number: the same for all units, so it belongs to none
        return result
    if not ledger.derived(other):
        return _constant(ledger, present[0], other, label, result)
    # a factor from elsewhere (attention, a gate) scales what the unit says, and a silent unit stays silent; a summand
    # would go on speaking for a unit that was renewed
    if call.target not in ("mul", "div"):
        ledger.refuse(present[0], f"a value that is no unit is added to them ({label})")
    return result


def _meet(ledger: Ledger, a: Flow, b: Flow, label: str) -> Flow | None:
    """Units meet units: a value and its gate are one unit, layers that are added share theirs."""
    for gate, gated in ((a, b), (b, a)):  # a squeeze-and-excite of width 1 broadcasts; which side it is on is open
        one = sum(segment.width for segment in gate.segments) == 1
        if label in ("*", "/") and one and sum(segment.width for segment in gated.segments) > 1:
            ledger.refuse(gate, "one factor for all units of another layer")
            return replace(gated.through(label), positive=False)
    return ledger.union(a, b, label)


def _constant(ledger: Ledger, value: Flow, other: Ref, label: str, result: Flow) -> Flow:
    """Units meet a value that does not depend on the input. A bare parameter with an entry per unit belongs to them: an
    offset of a newborn starts at 0, a gain at the median of the gains there are (some start at 1, some at 1e-6)."""
    owner, shape = ledger.owner(other), ledger.shape(other)
    scales = label in ("*", "/")
    width = sum(segment.width * (segment.block or 1) for segment in value.segments)
    per_unit = shape is not None and len(shape) >= -value.axis and shape[value.axis] == width > 1
    if owner is not None and per_unit and isinstance(getattr(*owner), nn.Parameter):
        dim = ledger.owner_dim(other, value.axis)
        ledger.norm(Norm(owner[0], values={owner[1]: None if scales else 0.0}, dim=dim), value)
    elif not scales and (shape is None or math.prod(shape) > 1):
        ledger.refuse(value, f"a value that is no unit is added to them ({label})")
    return result


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
    if not isinstance(refs, (tuple, list)):  # `*inputs` of a symbolic trace, which does not say how many there are
        return unseen(ledger, call) if isinstance(ledger.value(refs), Flow) else None
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
    **dict.fromkeys(_NORM_ARGUMENTS, _norm_function),
    "prelu": _prelu,
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
