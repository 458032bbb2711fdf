"""What reshapes, permutations, reductions and slices do to units."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from .calls import Call
from .groups import Flow, Segment
from .ledger import Ledger


def first(ledger: Ledger, call: Call) -> Any:
    """The Flow of the first argument; None if it carries no units."""
    source = call.args[0] if call.args else next(iter(call.kwargs.values()), None)
    value = ledger.value(source)
    return None if isinstance(value, tuple) else value


def unseen(ledger: Ledger, call: Call) -> None:
    """An operation that may mix units: no surgery on what flows into it."""
    ledger.refuse((*call.args, *call.kwargs.values()), f"flows into {call.target}, which surgery cannot see through")


def flatten(ledger: Ledger, source: Any, out: Any, start: int, end: int) -> Any:
    """Flatten dims start to end: a unit then owns a block of entries."""
    value, shape = ledger.value(source), ledger.shape(source)
    if value is None:
        return None
    if shape is not None:
        return _reshaped(ledger, value, shape, ledger.shape(out) or ())
    ndim = 1 - value.axis  # one batch dim, as in every symbolic trace of conv -> flatten
    if start in (1, 1 - ndim) and end in (-1, ndim - 1):
        block = 1 if value.axis == -1 else None
        return replace(value, axis=-1, segments=_blocks(value, block), path=_said(value, "Flatten", block))
    ledger.refuse(value, "flattened in a way that needs shapes: give example inputs to find()")
    return None


def _reshaped(ledger: Ledger, value: Flow, before: tuple[int, ...], after: tuple[int, ...]) -> Flow | None:
    """Row-major reshape: the units keep their place if what lies before their dim still does, and own what follows."""
    at = len(before) + value.axis
    ahead, size = math.prod(before[:at]), before[at]
    for i, entries in enumerate(after):
        if math.prod(after[:i]) == ahead and entries % size == 0 and (size > 1 or entries == 1):
            block = entries // size
            return replace(
                value, axis=i - len(after), segments=_blocks(value, block), path=_said(value, "Flatten", block)
            )
    ledger.refuse(value, f"reshaped from {list(before)} to {list(after)}, which splits or mixes them")
    return None


def _said(value: Flow, label: str, block: int | None) -> tuple[str, ...]:
    return value.path if block == 1 else (*value.path, label)


def _blocks(value: Flow, block: int | None) -> tuple[Segment, ...]:
    return tuple(
        replace(segment, block=None if block is None or segment.block is None else segment.block * block)
        for segment in value.segments
    )


def view(ledger: Ledger, call: Call) -> Any:
    """view and reshape."""
    value = first(ledger, call)
    if value is None:
        return None
    before, after = ledger.shape(call.args[0]), ledger.shape(call.out)
    if before is None or after is None:
        if call.args[2:] == (-1,) or call.kwargs == {"start_dim": 1}:  # x.view(n, -1): flatten all but the batch
            return flatten(ledger, call.args[0], call.out, 1, -1)
        ledger.refuse(value, f"{call.target} needs shapes: give example inputs to find()")
        return None
    return _reshaped(ledger, value, before, after)


def flatten_call(ledger: Ledger, call: Call) -> Any:
    """torch.flatten and Tensor.flatten."""
    start = call.args[1] if len(call.args) > 1 else call.kwargs.get("start_dim", 0)
    end = call.args[2] if len(call.args) > 2 else call.kwargs.get("end_dim", -1)
    return flatten(ledger, call.args[0], call.out, start, end)


def permute(ledger: Ledger, call: Call) -> Any:
    """permute, transpose, movedim: units keep their entries and change their dim."""
    value = first(ledger, call)
    if value is None:
        return None
    shape = ledger.shape(call.args[0])
    if shape is None:
        ledger.refuse(value, f"{call.target} needs shapes: give example inputs to find()")
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


def reduce(ledger: Ledger, call: Call) -> Any:
    """mean, sum, amax over positions; over the units themselves nothing is left of them."""
    value = first(ledger, call)
    if value is None:
        return None
    dims = call.args[1] if len(call.args) > 1 else call.kwargs.get("dim", call.kwargs.get("axis"))
    keep = call.args[2] if len(call.args) > 2 else call.kwargs.get("keepdim", False)
    if dims is None:
        return unseen(ledger, call)
    shape = ledger.shape(call.args[0])
    ndim = len(shape) if shape else 1 - value.axis
    places = {dim % ndim for dim in (dims if isinstance(dims, (tuple, list)) else [dims])}
    at = ndim + value.axis
    if at in places:
        return unseen(ledger, call)
    behind = 0 if keep else sum(place > at for place in places)
    return replace(value, axis=value.axis + behind, path=(*value.path, str(call.target)))


def squeeze(ledger: Ledger, call: Call) -> Any:
    """squeeze and unsqueeze."""
    value = first(ledger, call)
    before, after = ledger.shape(call.args[0]), ledger.shape(call.out)
    if value is None:
        return None
    if before is None or after is None:
        ledger.refuse(value, f"{call.target} needs shapes: give example inputs to find()")
        return None
    return _reshaped(ledger, value, before, after)


def getitem(ledger: Ledger, call: Call) -> Any:
    """An element of a layer's several outputs, or a slice of a tensor that leaves the units whole."""
    source, key = call.args[0], call.args[1]
    value = ledger.value(source)
    if isinstance(value, tuple):
        return value[key] if isinstance(key, int) else None
    if value is None:
        return None
    before, after = ledger.shape(source), ledger.shape(call.out)
    if before is None or after is None:
        return unseen(ledger, call)
    keys = _spelled_out(key, len(before))
    if value.stacked > 1:  # the last states of all layers of a deep recurrent layer
        if keys[0] not in (-1, value.stacked - 1, slice(None)):
            ledger.refuse(value, "the state of an inner layer is used, whose units are others")
            return None
        value = replace(value, stacked=1 if isinstance(keys[0], int) else value.stacked)
    if any(isinstance(k, bool) or not isinstance(k, (int, slice, type(None))) for k in keys):
        # a list or mask of indices reorders and drops
        return unseen(ledger, call)
    # An int takes a dim away, None adds one, a slice keeps it: the key that meets the units' dim must keep all of it,
    # and its place among the keys that leave a dim behind is the units' dim afterwards.
    own = [i for i, k in enumerate(keys) if k is not None][len(before) + value.axis]
    units = range(before[value.axis])
    if isinstance(keys[own], int) or units[keys[own]] != units:
        ledger.refuse(value, "only a part of them is used (slice)")
        return None
    return replace(value, axis=sum(not isinstance(k, int) for k in keys[:own]) - len(after))


def _spelled_out(key: Any, ndim: int) -> list[Any]:
    """One entry for every dim that was there (int, slice, indices) or is added (None), instead of `...` and nothing."""
    keys = list(key) if isinstance(key, tuple) else [key]
    missing = ndim - sum(k is not None and k is not Ellipsis for k in keys)
    at = next((i for i, k in enumerate(keys) if k is Ellipsis), len(keys))
    return [*keys[:at], *[slice(None)] * missing, *keys[at + 1 :]]


def select(ledger: Ledger, call: Call) -> Any:
    """`x.select(dim, i)`, `x.unbind(dim)`, `x.chunk`, `x.split`: fine along every dim but the units'."""
    value = first(ledger, call)
    if value is None:
        return None
    shape = ledger.shape(call.args[0])
    position = 2 if call.target in ("chunk", "split", "tensor_split") else 1
    dim = call.args[position] if len(call.args) > position else call.kwargs.get("dim", 0)
    if shape is None or (dim % len(shape)) == len(shape) + value.axis:
        ledger.refuse(value, f"cut apart by {call.target}")
        return None
    shift = call.target in ("select", "unbind") and (dim % len(shape)) > len(shape) + value.axis
    result = replace(value, axis=value.axis + 1) if shift else value
    return result if not isinstance(call.out, tuple) else (result,) * len(call.out)
