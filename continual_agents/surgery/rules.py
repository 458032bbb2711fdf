"""What each operation between layers does to units: the table that `flow.Analysis` looks up."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import nn

if TYPE_CHECKING:
    from .flow import Analysis, Flow, Segment
    from .trace import Call

Rule = Callable[["Analysis", "Call"], Any]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


NORMS = (
    nn.modules.batchnorm._NormBase,  # batch and instance norm, all dims
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
)
_ACTIVATIONS = _words(
    "ReLU ReLU6 LeakyReLU RReLU ELU CELU SELU GELU SiLU Mish Tanh Sigmoid Softplus Softsign Hardtanh "
    "Hardsigmoid Hardswish Hardshrink Softshrink Tanhshrink Threshold LogSigmoid Dropout Dropout1d Dropout2d "
    "Dropout3d AlphaDropout FeatureAlphaDropout Identity PReLU "
)
_POOLS = {f"{kind}Pool{n}d": n for kind in ("Max", "Avg", "AdaptiveMax", "AdaptiveAvg", "LP") for n in (1, 2, 3)}
_POOLS |= {
    f"{kind}Pad{n}d": n for kind in ("Zero", "Reflection", "Replication", "Constant", "Circular") for n in (1, 2, 3)
}
_FUNCTION_POOLS = {
    f"{kind}_pool{n}d": n for kind in ("max", "avg", "lp", "adaptive_max", "adaptive_avg") for n in (1, 2, 3)
}
_ELEMENTWISE = _words(
    "relu relu6 leaky_relu rrelu elu celu selu gelu silu mish tanh sigmoid softplus softsign hardtanh "
    "hardsigmoid hardswish hardshrink softshrink tanhshrink threshold logsigmoid dropout dropout1d dropout2d "
    "dropout3d alpha_dropout feature_alpha_dropout clone contiguous detach float double half bfloat16 to type "
    "type_as abs neg exp log log1p expm1 sqrt rsqrt square pow sin cos erf clamp clip clamp_min clamp_max sign "
    "requires_grad cpu cuda nan_to_num identity data "
)
POSITIVE = _words("relu ReLU relu6 ReLU6 sigmoid Sigmoid hardsigmoid Hardsigmoid softplus Softplus abs exp square")
"""Steps whose result is at least 0, whatever goes in."""

KEEPS_SIGN = _words("Flatten dropout Dropout dropout1d dropout2d dropout3d Dropout1d Dropout2d Dropout3d tanh Tanh") | {
    name for name in (*_POOLS, *_FUNCTION_POOLS) if not name.startswith(("Constant", "LP", "lp"))
}
"""Steps whose result is at least 0 if that is so for what goes in."""

_QUIET = {
    "clone",
    "contiguous",
    "detach",
    "float",
    "double",
    "to",
    "type",
    "identity",
    "Identity",
    "requires_grad",
    "data",
}
_LOOKS = _words(
    "get size grad is_leaf layout dim ndim numel shape is_floating_point item len eq ne lt gt le ge isnan "
    "isinf all any bool is_complex stride device dtype data_ptr backward register_hook retain_grad repr str format "
    "assert getattr "
)


def module_rule(module: nn.Module) -> Rule | None:
    """The rule for a layer of torch.nn that makes no units of its own; None if there is none."""
    name = type(module).__name__
    if isinstance(module, NORMS):
        return _norm
    if not type(module).__module__.startswith("torch.nn.modules"):
        return None
    if isinstance(module, nn.PReLU) and module.num_parameters > 1:
        return _norm  # one slope per unit: reset with the unit
    if name in _ACTIVATIONS:
        return lambda analysis, call: _pass(analysis, call, "" if name in _QUIET else name)
    if name in _POOLS:
        return lambda analysis, call: _pool(analysis, call, _POOLS[name], name)
    if name == "Flatten":
        start, end = int(module.start_dim), int(module.end_dim)  # type: ignore[arg-type]
        return lambda analysis, call: _flatten(analysis, call.args[0], call.out, start, end)
    if name == "Embedding":
        return lambda analysis, call: None
    return None


def operation_rule(name: str) -> Rule:
    """The rule for a function or method; what is not in the table mixes units as far as anyone knows."""
    if name in _ELEMENTWISE:
        return lambda analysis, call: _pass(analysis, call, "" if name in _QUIET else name)
    if name in _FUNCTION_POOLS:
        return lambda analysis, call: _pool(analysis, call, _FUNCTION_POOLS[name], name)
    if name in _LOOKS:
        return lambda analysis, call: None
    return _OPERATIONS.get(name, _unseen)


def _first(analysis: Analysis, call: Call) -> Any:
    source = call.args[0] if call.args else next(iter(call.kwargs.values()), None)
    value = analysis.value(source)
    return None if isinstance(value, tuple) else value


def _pass(analysis: Analysis, call: Call, label: str) -> Any:
    value = _first(analysis, call)
    return value.through(label) if value is not None else None


def _unseen(analysis: Analysis, call: Call) -> None:
    analysis.refuse((*call.args, *call.kwargs.values()), f"flows into {call.target}, which surgery cannot see through")


def _norm(analysis: Analysis, call: Call) -> Any:
    value, module = _first(analysis, call), call.target
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
    value = _first(analysis, call)
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
        return _unseen(analysis, call)
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
    from .flow import Flow, Segment

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
        return _unseen(analysis, call)
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


def _flatten(analysis: Analysis, source: Any, out: Any, start: int, end: int) -> Any:
    value, shape = analysis.value(source), analysis.shape(source)
    if value is None:
        return None
    if shape is not None:
        return _reshaped(analysis, value, shape, analysis.shape(out) or ())
    ndim = 1 - value.axis  # one batch dim, as in every symbolic trace of conv -> flatten
    if start in (1, 1 - ndim) and end in (-1, ndim - 1):
        block = 1 if value.axis == -1 else None
        return replace(value, axis=-1, segments=_blocks(value, block), path=_said(value, "Flatten", block))
    analysis.refuse(value, "flattened in a way that needs shapes: give example inputs to find()")
    return None


def _reshaped(analysis: Analysis, value: Flow, before: tuple[int, ...], after: tuple[int, ...]) -> Flow | None:
    """Row-major reshape: the units keep their place if what lies before their dim still does, and own what follows."""
    at = len(before) + value.axis
    ahead, size = math.prod(before[:at]), before[at]
    for i, entries in enumerate(after):
        if math.prod(after[:i]) == ahead and entries % size == 0 and (size > 1 or entries == 1):
            block = entries // size
            return replace(
                value, axis=i - len(after), segments=_blocks(value, block), path=_said(value, "Flatten", block)
            )
    analysis.refuse(value, f"reshaped from {list(before)} to {list(after)}, which splits or mixes them")
    return None


def _said(value: Flow, label: str, block: int | None) -> tuple[str, ...]:
    return value.path if block == 1 else (*value.path, label)


def _blocks(value: Flow, block: int | None) -> tuple[Segment, ...]:
    return tuple(
        replace(segment, block=None if block is None or segment.block is None else segment.block * block)
        for segment in value.segments
    )


def _view(analysis: Analysis, call: Call) -> Any:
    value = _first(analysis, call)
    if value is None:
        return None
    before, after = analysis.shape(call.args[0]), analysis.shape(call.out)
    if before is None or after is None:
        if call.args[2:] == (-1,) or call.kwargs == {"start_dim": 1}:  # x.view(n, -1): flatten all but the batch
            return _flatten(analysis, call.args[0], call.out, 1, -1)
        analysis.refuse(value, f"{call.target} needs shapes: give example inputs to find()")
        return None
    return _reshaped(analysis, value, before, after)


def _flatten_call(analysis: Analysis, call: Call) -> Any:
    start = call.args[1] if len(call.args) > 1 else call.kwargs.get("start_dim", 0)
    end = call.args[2] if len(call.args) > 2 else call.kwargs.get("end_dim", -1)
    return _flatten(analysis, call.args[0], call.out, start, end)


def _permute(analysis: Analysis, call: Call) -> Any:
    """permute, transpose, movedim: units keep their entries and change their dim."""
    value = _first(analysis, call)
    if value is None:
        return None
    shape = analysis.shape(call.args[0])
    if shape is None:
        analysis.refuse(value, f"{call.target} needs shapes: give example inputs to find()")
        return None
    ndim, rest = len(shape), call.args[1:] or tuple(call.kwargs.values())
    if call.target in ("T", "mT", "t"):
        rest = tuple(reversed(range(ndim))) if call.target == "T" else (-1, -2)
    at = ndim + value.axis
    if call.target in ("transpose", "mT", "t"):
        a, b = (dim % ndim for dim in rest)
        place = b if at == a else a if at == b else at
    else:
        order = [dim % ndim for dim in (rest[0] if isinstance(rest[0], (tuple, list)) else rest)]
        place = order.index(at)
    return replace(value, axis=place - ndim)


def _reduce(analysis: Analysis, call: Call) -> Any:
    """mean, sum, amax over positions; over the units themselves nothing is left of them."""
    value = _first(analysis, call)
    if value is None:
        return None
    dims = call.args[1] if len(call.args) > 1 else call.kwargs.get("dim", call.kwargs.get("axis"))
    keep = call.args[2] if len(call.args) > 2 else call.kwargs.get("keepdim", False)
    if dims is None:
        return _unseen(analysis, call)
    shape = analysis.shape(call.args[0])
    ndim = len(shape) if shape else 1 - value.axis
    places = {dim % ndim for dim in (dims if isinstance(dims, (tuple, list)) else [dims])}
    at = ndim + value.axis
    if at in places:
        return _unseen(analysis, call)
    behind = 0 if keep else sum(place > at for place in places)
    return replace(value, axis=value.axis + behind, path=(*value.path, str(call.target)))


def _squeeze(analysis: Analysis, call: Call) -> Any:
    value = _first(analysis, call)
    before, after = analysis.shape(call.args[0]), analysis.shape(call.out)
    if value is None:
        return None
    if before is None or after is None:
        analysis.refuse(value, f"{call.target} needs shapes: give example inputs to find()")
        return None
    return _reshaped(analysis, value, before, after)


def _getitem(analysis: Analysis, call: Call) -> Any:
    """An element of a layer's several outputs, or a slice of a tensor that leaves the units whole."""
    source, key = call.args[0], call.args[1]
    value = analysis.value(source)
    if isinstance(value, tuple):
        return value[key] if isinstance(key, int) else None
    if value is None:
        return None
    before, after = analysis.shape(source), analysis.shape(call.out)
    if before is None or after is None:
        return _unseen(analysis, call)
    keys = list(key) if isinstance(key, tuple) else [key]
    if Ellipsis in keys:
        at = keys.index(Ellipsis)
        gap = len(before) - sum(k is not None for k in keys) + 1
        keys[at : at + 1] = [slice(None)] * gap
    if any(not isinstance(k, (int, slice, type(None))) for k in keys):
        return _unseen(analysis, call)
    keys += [slice(None)] * (len(before) - sum(k is not None for k in keys))
    own = [k for k in keys if k is not None][len(before) + value.axis]
    if own != slice(None):
        analysis.refuse(value, "only a part of them is used (slice)")
        return None
    place = [k is None or isinstance(k, slice) for k in keys]
    position = [i for i, k in enumerate(keys) if k is not None][len(before) + value.axis]
    return replace(value, axis=sum(place[: position + 1]) - 1 - len(after))


def _select(analysis: Analysis, call: Call) -> Any:
    """`x.select(dim, i)`, `x.unbind(dim)`, `x.chunk`, `x.split`: fine along every dim but the units'."""
    value = _first(analysis, call)
    if value is None:
        return None
    shape = analysis.shape(call.args[0])
    position = 2 if call.target in ("chunk", "split", "tensor_split") else 1
    dim = call.args[position] if len(call.args) > position else call.kwargs.get("dim", 0)
    if shape is None or (dim % len(shape)) == len(shape) + value.axis:
        analysis.refuse(value, f"cut apart by {call.target}")
        return None
    shift = call.target in ("select", "unbind") and (dim % len(shape)) > len(shape) + value.axis
    result = replace(value, axis=value.axis + 1) if shift else value
    return result if not isinstance(call.out, tuple) else (result,) * len(call.out)


_OPERATIONS: dict[str, Rule] = {
    **dict.fromkeys(("add", "sub", "mul", "div", "maximum", "minimum"), _binary),
    "cat": _cat,
    "flatten": _flatten_call,
    **dict.fromkeys(("view", "reshape"), _view),
    **dict.fromkeys(("permute", "transpose", "T", "mT", "t"), _permute),
    **dict.fromkeys(("mean", "sum", "amax", "amin"), _reduce),
    **dict.fromkeys(("squeeze", "unsqueeze"), _squeeze),
    "getitem": _getitem,
    **dict.fromkeys(("select", "unbind", "chunk", "split", "tensor_split"), _select),
}
