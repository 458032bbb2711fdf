"""The calls of a network by torch.fx, which runs nothing: no inputs are needed, and no shapes are told."""

from __future__ import annotations

from typing import Any

from torch import fx, nn

from .calls import Call, Ref, Trace, canonical, is_leaf, is_stranger
from .quiet import quietly


def by_fx(net: nn.Module) -> Trace:
    """The trace, or whatever torch.fx raises where it cannot follow."""

    class Tracer(fx.Tracer):
        proxy_buffer_attributes = True  # or what a forward pass does to them would be done to them

        def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
            return is_leaf(m)

    if is_leaf(net):
        net = nn.Sequential(net)
    with quietly(net):
        graph = Tracer().trace(net)
    result = Trace()
    refs: dict[fx.Node, Ref] = {}

    def convert(value: Any) -> Any:
        return fx.node.map_arg(value, lambda node: refs.get(node, node))  # type: ignore

    for node in graph.nodes:
        if node.op == "output":
            result.outputs = (convert(node.args[0]),)
            continue
        refs[node] = Ref(len(refs))
        if node.op == "placeholder":
            result.inputs.append(refs[node])
            continue
        if node.op == "get_attr":
            place, _, name = node.target.rpartition(".")
            holder = net.get_submodule(place)
            result.shapes[refs[node].id] = tuple(getattr(holder, name).shape)
            result.owners[refs[node].id] = (holder, name)
            continue
        target = net.get_submodule(node.target) if node.op == "call_module" else node.target
        target = canonical(target) if node.op == "call_function" else target
        inside = [net.get_submodule(path) for path, _ in (node.meta.get("nn_module_stack") or {}).values()]
        within = inside[-1] if inside and is_stranger(inside[-1]) else None
        result.calls.append(Call(target, convert(node.args), convert(node.kwargs), refs[node], within))
    return result
