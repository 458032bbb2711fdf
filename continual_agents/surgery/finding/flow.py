"""Follow the units of every layer through a trace: who makes them, what lies on the way, who reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from .layers import Axes, axes_of
from .ledger import Ledger
from .rules import module_rule, operation_rule
from .trace import Call, Trace, refs


class Unknown(TypeError):
    """A layer with parameters that surgery does not know."""


def follow(trace: Trace, names: Mapping[int, str]) -> Ledger:
    """Go through the calls of a trace in order and write down what each does to units.

    Args:
        trace: of one network.
        names: id of a module -> its name, for the reasons.
    """
    ledger = Ledger(trace.shapes, names)
    ledger.derive(trace.inputs)
    for call in trace.calls:
        if isinstance(call.target, nn.Module):
            result = _layer(ledger, call.target, call)
        else:
            looks_only = call.out is not None and not any(True for _ in refs(call.out))  # `x.is_nested`, `x.shape`
            result = None if looks_only else operation_rule(call.target)(ledger, call)
        if ledger.derived((call.args, call.kwargs)):
            ledger.derive(call.out)
        ledger.assign(call.out, result)
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
    stranger = not type(module).__module__.startswith("torch.nn.modules")
    if touched and stranger and any(True for _ in module.parameters(recurse=False)):
        raise Unknown(
            f"surgery does not know the layer {ledger.names.get(id(module), '')!r} ({kind}), which reads units; say "
            f"which dim of which tensor is a unit with surgery.register({kind}, out={{...}}, inp={{...}})"
        )
    ledger.refuse(touched, f"flows into {kind}, which surgery cannot see through")
    return None


def _known(ledger: Ledger, module: nn.Module, axes: Axes, call: Call) -> Any:
    """A layer of the table: it reads its first argument and makes units of its own."""
    first = call.args[0] if call.args else next(iter(call.kwargs.values()), None)
    reason = axes.refuse(module) if axes.refuse else None
    if reason:
        ledger.refuse((*call.args, *call.kwargs.values()), f"read by a {reason}")
        return _outputs(module, ledger.make(module, axes))
    ledger.read(module, axes, ledger.value(first), first)
    # Whatever else goes in is an initial state: fine if it is the layer's own last one, as in a loop over cells.
    for extra in ledger.flows((*call.args[1:], *(v for v in call.kwargs.values() if v is not first))):
        if not ledger.made_by(module, extra):
            ledger.refuse(extra, f"initial state of {ledger.names.get(id(module), '')} ({type(module).__name__})")
    return _outputs(module, ledger.make(module, axes))


def _outputs(module: nn.Module, flow: Any) -> Any:
    """The units, nested as the layer returns them."""
    state = replace(flow, state=True)
    if isinstance(module, nn.LSTM):
        return flow, (state, state)
    if isinstance(module, (nn.GRU, nn.RNN, nn.LSTMCell)):
        return flow, state
    return flow
