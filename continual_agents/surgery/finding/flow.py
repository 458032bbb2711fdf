"""Follow the units of every layer through a trace: who makes them, what lies on the way, who reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from .calls import Call, Ref, Trace, refs
from .groups import Flow
from .layers import Axes, axes_of, is_depthwise
from .ledger import Ledger
from .rules import module_rule, operation_rule


def follow(trace: Trace, names: Mapping[int, str]) -> Ledger:
    """Go through the calls of a trace in order and write down what each does to units.

    Args:
        trace: of one network.
        names: id of a module -> its name, for the reasons.
    """
    ledger = Ledger(trace, names)
    ledger.derive(trace.inputs)
    for call in trace.calls:
        ledger.begin(call)
        if call.within is not None and any(len(ledger.shape(ref) or ()) > 1 for ref in _owned(ledger, call)):
            ledger.meet(call.within)  # a matrix of a layer that nobody knows: whatever it does, it may well make units
        if isinstance(call.target, nn.Module):
            result = _layer(ledger, call.target, call)
        else:
            looks_only = call.out is not None and not any(True for _ in refs(call.out))  # `x.is_nested`, `x.shape`
            result = None if looks_only else operation_rule(call.target)(ledger, call)
        ledger.end(call, result)
        if call.target in _VIEWS and isinstance(call.args[0] if call.args else None, Ref):
            ledger.same_owner(call.out, call.args[0])
    ledger.within = None
    ledger.returned(trace.outputs)
    ledger.check_readers()
    return ledger


def _layer(ledger: Ledger, module: nn.Module, call: Call) -> Any:
    axes = axes_of(module)
    if axes is not None:
        return _known(ledger, module, axes, call)
    rule = module_rule(module)
    if rule is not None:
        return rule(ledger, call)
    touched = tuple(ledger.flows((*call.args, *call.kwargs.values())))
    kind = type(module).__name__
    if any(True for _ in module.parameters()):
        ledger.unknown[ledger.name(module)] = f"surgery cannot see through {kind}"
    ledger.refuse(touched, f"flows into {kind}, which surgery cannot see through")
    return None


def _owned(ledger: Ledger, call: Call) -> list[Ref]:
    """The parameters of the layer that nobody knows among what goes into a call."""
    return [ref for ref in refs((call.args, call.kwargs)) if (ledger.owner(ref) or (None,))[0] is call.within]


_VIEWS = frozenset(("view", "reshape", "unsqueeze", "getitem", "to", "type_as", "float", "expand", "contiguous"))


def _known(ledger: Ledger, module: nn.Module, axes: Axes, call: Call) -> Any:
    """A layer of the table: it reads its first argument and makes units of its own."""
    first = call.args[0] if call.args else next(iter(call.kwargs.values()), None)
    reason = axes.refuse(module) if axes.refuse else None
    if reason:
        ledger.refuse((*call.args, *call.kwargs.values()), f"read by a {reason}")
        return _outputs(module, ledger.make(module, axes))
    value = ledger.value(first)
    if is_depthwise(module):
        made = ledger.make(module, axes)
        if not isinstance(value, Flow):
            return made
        both = ledger.union(value, made, type(module).__name__)
        return both if both is None else replace(both, positive=False)
    partly = axes.refuse_reading(module) if axes.refuse_reading else None
    if partly:
        ledger.refuse(value, f"read by a {partly}")
    elif axes.inp:
        ledger.read(module, axes, value, first)
    else:
        ledger.refuse(value, f"{ledger.name(module)} ({type(module).__name__}) was registered as reading no units")
    # Whatever else goes in is an initial state: fine if it is the layer's own last one, as in a loop over cells.
    for extra in ledger.flows((*call.args[1:], *(v for v in call.kwargs.values() if v is not first))):
        if not ledger.made_by(module, extra):
            ledger.refuse(extra, f"initial state of {ledger.names.get(id(module), '')} ({type(module).__name__})")
    return _outputs(module, ledger.make(module, axes)) if axes.out else None


def _outputs(module: nn.Module, flow: Any) -> Any:
    """The units, nested as the layer returns them."""
    state = replace(flow, state=True, stacked=getattr(module, "num_layers", 1))
    if isinstance(module, nn.LSTM):
        return flow, (state, state)
    if isinstance(module, (nn.GRU, nn.RNN, nn.LSTMCell)):
        return flow, state
    return flow
