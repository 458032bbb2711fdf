"""The book that is kept while a trace is followed: which value carries which units, who makes and who reads them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from .calls import Call, Ref, Trace, refs
from .groups import Flow, Group, Read, Segment, resolve
from .layers import Axes, axes_of, matrix_of
from .slots import Norm


class Ledger:
    """Values and groups of units. Values that carry no units are None.

    Args:
        trace: of the network, for the shapes and owners of values.
        names: id of a module -> its name.
    """

    def __init__(self, trace: Trace, names: Mapping[int, str]) -> None:
        self.names = names
        self.behind: dict[int, nn.Module] = {}  # layer -> the batch norm right behind it
        self.unknown: dict[str, str] = {}  # name of a layer that nobody knows -> what to do
        self.within: nn.Module | None = None  # the layer that nobody knows whose inside the present call is
        self._shapes, self._owners = trace.shapes, dict(trace.owners)
        self._groups: list[Group] = []
        self._parents: list[int] = []  # groups that turned out to be one point to the first of them (union-find)
        self._by_maker: dict[int, int] = {}
        self._values: dict[int, Any] = {}
        self._strangers: dict[int, str] = {}  # readers that (also) read something that is no unit
        self._after: dict[int, int] = {}  # value -> bits of the layers' calls that had a part in it
        self._call = 0  # bit of the present call, 0 if it is no layer's
        self._layers = 0
        self._derived: set[int] = set()  # values that depend on the input; others are constants

    def groups(self) -> list[Group]:
        """The groups, in the order in which the network makes them."""
        roots = sorted({self._root(i) for i in range(len(self._groups))})
        return [self._groups[i] for i in roots]

    def group(self, number: int) -> Group:
        """The group that a number stands for after all mergers."""
        return self._groups[self._root(number)]

    def name(self, module: nn.Module) -> str:
        """What the network calls a module."""
        return self.names.get(id(module), type(module).__name__)

    def begin(self, call: Call) -> None:
        """Turn to the next call."""
        self.within = call.within
        self._call = 0
        if isinstance(call.target, nn.Module) and axes_of(call.target) is not None:
            self._call, self._layers = 1 << self._layers, self._layers + 1

    def end(self, call: Call, result: Any) -> None:
        """Note what the present call gave and what it depends on."""
        given = list(refs((call.args, call.kwargs)))
        after = self._call
        for ref in given:
            after |= self._after.get(ref.id, 0)
        for ref in refs(call.out):
            self._after[ref.id] = after
            if any(source.id in self._derived for source in given):
                self._derived.add(ref.id)
        self._assign(call.out, result)

    def value(self, ref: Any) -> Any:
        """The Flow of a Ref (or nest of Refs), None for anything without units."""
        if isinstance(ref, Ref):
            return self._values.get(ref.id)
        if isinstance(ref, tuple):
            return tuple(self.value(item) for item in ref)
        return None

    def shape(self, ref: Any) -> tuple[int, ...] | None:
        """Shape of a value, if the trace knows it."""
        return self._shapes.get(ref.id) if isinstance(ref, Ref) else None

    def owner(self, ref: Any) -> tuple[nn.Module, str] | None:
        """The module that holds this value as a parameter or buffer, and its name there."""
        return self._owners.get(ref.id) if isinstance(ref, Ref) else None

    def owner_dim(self, ref: Any, axis: int) -> int:
        """The dim of a parameter that lies along dim `axis` (negative) of this value, which is it or a view of it."""
        module, name = self._owners[ref.id]
        shape = getattr(module, name).shape
        wide = [dim for dim, size in enumerate(shape) if size > 1]
        return wide[0] if len(wide) == 1 else len(shape) + axis

    def same_owner(self, view: Any, ref: Any) -> None:
        """Note that a value is a view of a parameter with one entry per unit, however many dims it has by now."""
        owner = self.owner(ref)
        if owner is not None and isinstance(view, Ref) and view.id not in self._owners:
            size = getattr(*owner).numel()
            if max(getattr(*owner).shape, default=0) == size == math.prod(self.shape(view) or (0,)):
                self._owners[view.id] = owner

    def derive(self, value: Any) -> None:
        """Note that these values depend on the network's input."""
        self._derived.update(ref.id for ref in refs(value))

    def derived(self, value: Any) -> bool:
        """Whether any of these values depends on the network's input."""
        return any(ref.id in self._derived for ref in refs(value))

    def flows(self, value: Any) -> Iterator[Flow]:
        """Every Flow in a nest of Refs and Flows."""
        if isinstance(value, Ref):
            value = self.value(value)
        if isinstance(value, Flow):
            yield value
        elif isinstance(value, (tuple, list)):
            for item in value:
                yield from self.flows(item)
        elif isinstance(value, dict):
            yield from self.flows(tuple(value.values()))

    def refuse(self, flows: Any, reason: str) -> None:
        """No surgery on any unit in these values; the first reason stays."""
        if self.within is not None and any(True for _ in self.flows(flows)):
            reason = f"flows into {self.name(self.within)}, {self.meet(self.within)}"
        for flow in self.flows(flows):
            for segment in flow.segments:
                if segment.group is not None and self.group(segment.group).refused is None:
                    self.group(segment.group).refused = reason

    def make(self, module: nn.Module, axes: Axes) -> Flow:
        """The units that a layer makes."""
        if id(module) not in self._by_maker:
            tensor, dim = matrix_of(module, axes.out)
            width = tensor.shape[dim] // axes.gates
            reason = axes.refuse(module) if axes.refuse else None
            self._by_maker[id(module)] = len(self._groups)
            self._parents.append(len(self._groups))
            self._groups.append(Group(width, [module], refused=reason))
        number = self._by_maker[id(module)]
        return Flow(axes.axis, (Segment(number, self._groups[number].width),))

    def made_by(self, module: nn.Module, flow: Flow) -> bool:
        """Whether a value carries the units of this layer and of nobody else."""
        own = [self._root(segment.group) for segment in flow.segments if segment.group is not None]
        return id(module) in self._by_maker and own == [self._root(self._by_maker[id(module)])]

    def read(self, module: nn.Module, axes: Axes, value: Any, ref: Any) -> None:
        """Note that a layer reads a value."""
        name = self.name(module)
        if not isinstance(value, Flow):
            if self.derived(ref):
                self._strangers[id(module)] = name
            return
        if value.stacked > 1:
            self.refuse(
                value, f"{name} reads the states of all {value.stacked} layers at once: take the last one, h[-1]"
            )
            return
        if value.axis != axes.read_axis:
            self.refuse(value, f"{name} ({type(module).__name__}) does not read them along its input dim")
            return
        tensor, dim = matrix_of(module, axes.inp)
        size = tensor.shape[dim]
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
                after = self._after.get(ref.id, 0)
                entry = Read(module, start, segment.block or 1, ref.id, value.positive, self._call, after)
                if entry not in group.readers:
                    group.path = group.path or value.path
                    group.readers.append(entry)
            start += segment.width * (segment.block or 1)

    def norm(self, norm: Norm, value: Flow) -> None:
        """Note that a norm or gain has entries for these units."""
        start = 0
        for segment in value.segments:
            if segment.group is not None:
                block = segment.block or 1
                self.group(segment.group).norms.append(replace(norm, start=start, block=block))
            start += segment.width * (segment.block or 1)

    def mixed(self, value: Flow, kind: str) -> None:
        """Note that something on the way makes units depend on each other."""
        for segment in value.segments:
            if segment.group is not None:
                self.group(segment.group).mixed.append(kind)

    def meet(self, module: nn.Module) -> str:
        """Note a layer that nobody knows; what is said about it."""
        kind = type(module).__name__
        parameters = dict(module.named_parameters(recurse=False))
        if any(parameter.ndim > 1 for parameter in parameters.values()):
            remedy = f"surgery.register({kind}, out={{...}}, inp={{...}})"
        else:
            remedy = f"surgery.register_norm({kind}, {{{', '.join(f'{name!r}: 1.0' for name in parameters)}}})"
        said = f"a kind of layer that surgery does not know ({kind}): teach it with {remedy}"
        self.unknown[self.name(module)] = said
        return said

    def stands_behind(self, norm: nn.Module, value: Flow) -> None:
        """Note that a norm stands right behind the layers that make these units."""
        instance = isinstance(norm, nn.modules.instancenorm._InstanceNorm)
        if getattr(norm, "running_mean", None) is not None and not instance and len(value.segments) == 1:
            group = value.segments[0].group
            for module in self._groups[group].makers[:1] if group is not None else ():
                self.behind[id(module)] = norm

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

    def returned(self, outputs: Any) -> None:
        """Note what the network returns. A recurrent layer's state may be returned without being an output."""
        for flow in self.flows(outputs):
            for segment in flow.segments:
                if segment.group is not None and not flow.state:
                    self.group(segment.group).output = True

    def check_readers(self) -> None:
        """A layer applied to units of two groups, or to units here and to something else there, cannot be edited."""
        seen: dict[tuple[int, int], int] = {}
        for number, group in ((self._root(i), self._groups[self._root(i)]) for i in range(len(self._groups))):
            for reader in group.readers:
                name = self.name(reader.module)
                other = seen.setdefault((id(reader.module), reader.start), number)
                if other != number or self._strangers.get(id(reader.module)):
                    reason = f"their reader {name} is also applied to something else"
                    group.refused = group.refused or reason
                    self._groups[other].refused = self._groups[other].refused or reason

    def _assign(self, out: Any, value: Any) -> None:
        if isinstance(out, Ref):
            self._values[out.id] = value
        elif isinstance(out, tuple):
            parts = value if isinstance(value, tuple) else (None,) * len(out)
            for item, part in zip(out, parts, strict=False):
                self._assign(item, part)

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
        kept.mixed += gone.mixed
        kept.readers += [reader for reader in gone.readers if reader not in kept.readers]
        kept.path = kept.path or gone.path
        kept.refused = kept.refused or gone.refused
