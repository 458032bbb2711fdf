"""Follow the units of every layer through a trace: who makes them, what lies on the way, who reads them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from torch import nn

from .axes import Axes, axes_of
from .groups import Flow, Group, Segment, resolve
from .rules import module_rule, operation_rule
from .trace import Call, Ref, Trace


class Unknown(TypeError):
    """A layer with parameters that surgery does not know."""


class Analysis:
    """Runs over the calls of a trace and fills `groups`. Values that carry no units are None."""

    def __init__(self, trace: Trace, names: dict[int, str]) -> None:
        self.trace, self.names = trace, names
        self._groups: list[Group] = []
        self._parents: list[int] = []
        self._by_maker: dict[int, int] = {}
        self._values: dict[int, Any] = {}
        self.behind: dict[int, nn.Module] = {}  # layer -> the batch norm right behind it
        self._strangers: dict[int, str] = {}  # readers that (also) read something that is no unit
        self._derived = {ref.id for ref in _refs(trace.inputs)}  # values that depend on the input; others are constants
        for call in trace.calls:
            self._visit(call)
        for flow in self._flows(trace.outputs):
            for segment in flow.segments:
                if segment.group is not None and not flow.state:
                    self.group(segment.group).output = True
        self._check_readers()

    def groups(self) -> list[Group]:
        """The groups, in the order in which the network makes them."""
        roots = sorted({self._root(i) for i in range(len(self._groups))})
        return [self._groups[i] for i in roots]

    def group(self, number: int) -> Group:
        """The group that a number stands for after all mergers."""
        return self._groups[self._root(number)]

    def refuse(self, flows: Any, reason: str) -> None:
        """No surgery on any unit in these values; the first reason stays."""
        for flow in self._flows(flows):
            for segment in flow.segments:
                if segment.group is not None and self.group(segment.group).refused is None:
                    self.group(segment.group).refused = reason

    def value(self, ref: Any) -> Any:
        """The Flow of a Ref (or nest of Refs), None for anything without units."""
        if isinstance(ref, Ref):
            return self._values.get(ref.id)
        if isinstance(ref, tuple):
            return tuple(self.value(item) for item in ref)
        return None

    def shape(self, ref: Any) -> tuple[int, ...] | None:
        """Shape of a value, if the trace knows it."""
        return self.trace.shapes.get(ref.id) if isinstance(ref, Ref) else None

    def derived(self, ref: Ref) -> bool:
        """Whether a value depends on the network's input."""
        return ref.id in self._derived

    def union(self, a: Flow, b: Flow, label: str) -> Flow | None:
        """Units that are added or multiplied entry by entry are one group."""
        if a.axis != b.axis or [(s.width, s.block) for s in a.segments] != [(s.width, s.block) for s in b.segments]:
            self.refuse((a, b), f"units of different layers meet entry by entry in different layouts ({label})")
            return None
        for left, right in zip(a.segments, b.segments, strict=True):
            if left.group is None or right.group is None:
                self.refuse((a, b), f"a value that is no unit is added to them ({label})")
            else:
                self._merge(left.group, right.group)
        both = a.positive and b.positive and label in ("+", "*")
        return replace(a.through(label), positive=both)

    def read(self, module: nn.Module, axes: Axes, value: Any, ref: Any) -> None:
        """Note that a layer reads a value."""
        name = self.names.get(id(module), type(module).__name__)
        if not isinstance(value, Flow):
            if isinstance(ref, Ref) and ref.id in self._derived:
                self._strangers[id(module)] = name
            return
        if value.axis != axes.read_axis:
            self.refuse(value, f"{name} ({type(module).__name__}) does not read them along its input dim")
            return
        tensor, dim = next(iter(axes.inp.items()))
        size = getattr(module, tensor).shape[dim]
        segments = resolve(value.segments, size)
        if segments is None:
            self.refuse(value, f"{name} ({type(module).__name__}) reads {size} inputs, which do not divide into them")
            return
        start = 0
        for segment in segments:
            if segment.group is None:
                self._strangers.setdefault(id(module), "")
            else:
                group = self.group(segment.group)
                entry = (module, start, segment.block or 1, ref.id, value.positive)
                if entry not in group.readers:
                    group.path = group.path or value.path
                    group.readers.append(entry)
            start += segment.width * (segment.block or 1)

    def make(self, module: nn.Module, axes: Axes) -> Flow:
        """The units that a layer makes."""
        if id(module) not in self._by_maker:
            tensor, dim = next(iter(axes.out.items()))
            width = getattr(module, tensor).shape[dim] // axes.gates
            reason = axes.refuse(module) if axes.refuse else None
            self._by_maker[id(module)] = len(self._groups)
            self._parents.append(len(self._groups))
            self._groups.append(Group(width, [module], refused=reason))
        number = self._by_maker[id(module)]
        return Flow(axes.axis, (Segment(number, self._groups[number].width),))

    def norm(self, module: nn.Module, value: Flow) -> None:
        """Note that a norm has entries for these units."""
        start = 0
        for segment in value.segments:
            if segment.group is not None:
                self.group(segment.group).norms.append((module, start, segment.block or 1))
            start += segment.width * (segment.block or 1)

    def follow(self, norm: nn.Module, value: Flow) -> None:
        """Note that a norm stands right behind the layers that make these units."""
        if isinstance(norm, nn.modules.batchnorm._BatchNorm) and len(value.segments) == 1:
            group = value.segments[0].group
            for module in self._groups[group].makers[:1] if group is not None else ():
                self.behind[id(module)] = norm

    def _visit(self, call: Call) -> None:
        if isinstance(call.target, nn.Module):
            result = self._visit_module(call.target, call)
        else:
            looks_only = call.out is not None and not any(True for _ in _refs(call.out))  # `x.is_nested`, `x.shape`
            result = None if looks_only else operation_rule(call.target)(self, call)
        if any(ref.id in self._derived for ref in _refs((call.args, call.kwargs))):
            self._derived.update(ref.id for ref in _refs(call.out))
        self._assign(call.out, result)

    def _visit_module(self, module: nn.Module, call: Call) -> Any:
        first = call.args[0] if call.args else next(iter(call.kwargs.values()), None)
        axes = axes_of(module)
        if axes is not None:
            reason = axes.refuse(module) if axes.refuse else None
            if reason:
                self.refuse(self.value((*call.args, *call.kwargs.values())), f"read by a {reason}")
                return self._outputs(module, axes)
            self.read(module, axes, self.value(first), first)
            for extra in self._flows((*call.args[1:], *(v for v in call.kwargs.values() if v is not first))):
                own = [self._root(s.group) for s in extra.segments if s.group is not None]
                if id(module) not in self._by_maker or own != [self._root(self._by_maker[id(module)])]:
                    self.refuse(extra, f"initial state of {self.names.get(id(module), '')} ({type(module).__name__})")
            return self._outputs(module, axes)
        own_rule = module_rule(module)
        if own_rule is not None:
            return own_rule(self, call)
        touched = list(self._flows((*call.args, *call.kwargs.values())))
        kind = type(module).__name__
        stranger = not type(module).__module__.startswith("torch.nn.modules")
        if touched and stranger and any(True for _ in module.parameters(recurse=False)):
            raise Unknown(
                f"surgery does not know the layer {self.names.get(id(module), '')!r} ({kind}), which reads units; say "
                f"which dim of which tensor is a unit with surgery.register({kind}, out={{...}}, inp={{...}})"
            )
        self.refuse(tuple(touched), f"flows into {kind}, which surgery cannot see through")
        return None

    def _outputs(self, module: nn.Module, axes: Axes) -> Any:
        flow = self.make(module, axes)
        state = replace(flow, state=True)
        if isinstance(module, nn.LSTM):
            return flow, (state, state)
        if isinstance(module, (nn.GRU, nn.RNN)):
            return flow, state
        if isinstance(module, nn.LSTMCell):
            return flow, state
        return flow

    def _assign(self, out: Any, value: Any) -> None:
        if isinstance(out, Ref):
            self._values[out.id] = value
        elif isinstance(out, tuple):
            parts = value if isinstance(value, tuple) else (None,) * len(out)
            for item, part in zip(out, parts, strict=False):
                self._assign(item, part)

    def _flows(self, value: Any) -> Iterator[Flow]:
        if isinstance(value, Ref):
            value = self.value(value)
        if isinstance(value, Flow):
            yield value
        elif isinstance(value, (tuple, list)):
            for item in value:
                yield from self._flows(item)
        elif isinstance(value, dict):
            yield from self._flows(tuple(value.values()))

    def _root(self, number: int) -> int:
        while self._parents[number] != number:
            number = self._parents[number]
        return number

    def _merge(self, a: int, b: int) -> None:
        first, second = sorted((self._root(a), self._root(b)))
        if first == second:
            return
        self._parents[second] = first
        kept, gone = self._groups[first], self._groups[second]
        kept.makers += gone.makers
        kept.norms += gone.norms
        kept.readers += [reader for reader in gone.readers if reader not in kept.readers]
        kept.path = kept.path or gone.path
        kept.refused = kept.refused or gone.refused

    def _check_readers(self) -> None:
        """A layer applied to units of two groups, or to units here and to something else there, cannot be edited."""
        seen: dict[tuple[int, int], int] = {}
        for number, group in ((self._root(i), self._groups[self._root(i)]) for i in range(len(self._groups))):
            for module, start, *_ in group.readers:
                name = self.names.get(id(module), type(module).__name__)
                other = seen.setdefault((id(module), start), number)
                if other != number or self._strangers.get(id(module)):
                    reason = f"their reader {name} is also applied to something else"
                    group.refused = group.refused or reason
                    self._groups[other].refused = self._groups[other].refused or reason


def _refs(value: Any) -> Iterator[Ref]:
    if isinstance(value, Ref):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _refs(item)
    elif isinstance(value, dict):
        yield from _refs(tuple(value.values()))
