"""Networks whose parameters are slices of stacked ones, `[members, ...]`: TorchRL's ensembles of critics.

The module is called with every member's parameters in turn, or with all of them under vmap; its own are never trained.
So each member gets a twin of the module, whose parameters are views of its slice: surgery edits the stack through them.
A hook on the module hands on to the twins' hooks what each member's layers got.
"""

from __future__ import annotations

import copy
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .quiet import is_paused

functorch: Any = torch._C._functorch


class Member(nn.Parameter):
    """One member's slice of a stacked parameter, in the same memory.

    Attributes:
        stack: the parameter that an optimizer trains.
        place: the member.
    """

    stack: Tensor
    place: int


def whole(parameter: Tensor) -> Tensor:
    """What an optimizer knows of a parameter: itself, or the stack that it is a slice of."""
    # a parameter's isinstance() is Python, and this is asked a dozen times for every replacement
    return parameter.stack if issubclass(type(parameter), Member) else parameter  # type: ignore[attr-defined]


def own(parameter: Tensor, state: Tensor) -> Tensor:
    """The part of an optimizer's `state`, which has an entry per entry of the whole, that belongs to a parameter."""
    return state[parameter.place] if issubclass(type(parameter), Member) else state  # type: ignore[attr-defined]


def members_of(net: nn.Module, parameters: Any) -> dict[str, nn.Module]:
    """A twin of `net` for each member, by its number, over its slices of the stacked parameters.

    Args:
        net: the module that is called with the members' parameters.
        parameters: tensors `[members, ...]` by name: a TorchRL loss's `TensorDictParams`, or what
            `torch.func.stack_module_state` returns first.

    Raises:
        TypeError: `net` is no single module, or the parameters have no names.
        ValueError: names or shapes that do not fit the module's, or parameters that are no stack.
    """
    net, stacks = _fitting(net, parameters)
    counts = {len(stack) for stack in stacks.values()}
    if len(counts) != 1:
        raise ValueError(f"parameters: stacks of {sorted(counts)} members, one number is needed")
    twins = {str(place): _twin(net, stacks, place) for place in range(counts.pop())}
    # a layer is told by one of its parameters
    layers = {path: name for path, _, name in (key.rpartition(".") for key, _ in net.named_parameters())}
    for path, name in layers.items():
        relay = Relay(name, [twin.get_submodule(path) for twin in twins.values()])
        module = net.get_submodule(path)
        module.register_forward_pre_hook(relay.before, with_kwargs=True)
        module.register_forward_hook(relay.after)
    return twins


def _fitting(net: Any, parameters: Any) -> tuple[nn.Module, dict[str, Tensor]]:
    """The plain module, and the stack of each of its parameters and buffers."""
    if not isinstance(net, nn.Module):
        raise TypeError(f"find(net, parameters=...) wants the one module that they belong to, got {type(net).__name__}")
    if not hasattr(parameters, "items"):
        raise TypeError(f"parameters: stacked tensors by name are needed, got {type(parameters).__name__}")
    # a TensorDict is nested, and names its leaves by tuples
    items = parameters.items(True, True) if hasattr(parameters, "batch_size") else parameters.items()
    given = {key if isinstance(key, str) else ".".join(key): value for key, value in items}
    while hasattr(net, "in_keys") and isinstance(getattr(net, "module", None), nn.Module):
        net = net.module  # TorchRL's dress around a network
    shapes = {name: value.shape for name, value in (*net.named_parameters(), *net.named_buffers())}
    ends = [name for name in given if name.endswith(next(iter(shapes), ""))]
    prefix = ends[0].removesuffix(next(iter(shapes))) if ends and shapes else ""
    stacks = {name: given[prefix + name] for name in shapes if prefix + name in given}
    missing = [name for name, _ in net.named_parameters() if name not in stacks]
    if missing or not stacks:
        raise ValueError(f"parameters: nothing of the name {(missing or ['?'])[0]!r}, but {list(given)}")
    for name, stack in stacks.items():
        if stack.shape[1:] != shapes[name]:
            raise ValueError(
                f"parameters: {name!r} has shape {list(stack.shape)}, [members, ...] of the network's "
                f"{list(shapes[name])} is needed"
            )
    return net, stacks


def _twin(net: nn.Module, stacks: Mapping[str, Tensor], place: int) -> nn.Module:
    """A copy of the module over one member's slices, without anybody's hooks."""
    twin = copy.deepcopy(net)
    for module in twin.modules():
        for hooks in (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks):
            hooks.clear()
    for path, stack in stacks.items():
        owner, _, name = path.rpartition(".")
        module = twin.get_submodule(owner)
        view = stack.detach()[place]
        if name in module._parameters:
            member = Member(view, stack.requires_grad)
            member.stack, member.place = stack, place
            module._parameters[name] = member
        else:
            module._buffers[name] = view
    return twin


class Relay:
    """Hooks of one layer of the module: they call those of the members' twins with what each member's layer got.

    Passes count whose parameters are the very ones that are trained: not a target's, nor an actor's through detached
    ones. Copies and pickles do nothing.

    Args:
        name: a parameter of the layer, by which members are told apart.
        twins: the layer in each member's twin.
    """

    def __init__(self, name: str = "", twins: Sequence[nn.Module] = ()) -> None:
        self.name, self.twins = name, [weakref.ref(twin) for twin in twins]

    def before(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        """Forward pre-hook."""
        for twin, place in self._heard(module, "_forward_pre_hooks"):
            for hook in list(twin._forward_pre_hooks.values()):
                hook(twin, _share(args, place, hook), _share(kwargs, place, hook))  # type: ignore[call-arg, arg-type]

    def after(self, module: nn.Module, args: Any, output: Any) -> None:
        """Forward hook."""
        for twin, place in self._heard(module, "_forward_hooks"):
            for hook in list(twin._forward_hooks.values()):
                hook(twin, _share(args, place, hook), _share(output, place, hook))  # type: ignore[call-arg]

    def _heard(self, module: nn.Module, hooks: str) -> list[tuple[nn.Module, int | None]]:
        """The twins that listen to this pass, each with its place along the vmapped dim (None: there is none)."""
        if not torch.is_grad_enabled() or is_paused():
            return []
        listening = [(place, twin) for place, one in enumerate(self.twins) if (twin := one()) is not None]
        listening = [(place, twin) for place, twin in listening if getattr(twin, hooks)]
        if not listening:
            return []
        first = listening[0][1]._parameters[self.name]
        assert isinstance(first, Member)
        stack, seen = first.stack, getattr(module, self.name)
        vmapped = functorch.is_batchedtensor(seen)
        given = functorch.get_unwrapped(seen) if vmapped else seen._base
        start = _start(stack, given)
        if start is None:
            return []
        if vmapped:
            called: list[tuple[nn.Module, int | None]] = [(twin, start + place) for place, twin in listening]
        else:
            at = (seen.storage_offset() - given.storage_offset()) // given.stride(0) - start
            called = [(twin, None) for place, twin in listening if place == at]
        for twin, _ in called:
            _follow(twin)
        return called

    def __reduce__(self) -> tuple:
        return Relay, ()


def _start(stack: Tensor, given: Tensor | None) -> int | None:
    """Where the members' live parameters begin in what the module was called with; None: they are not in it.

    REDQ's loss calls the module once for all: `cat(detached stack, targets, stack)`.
    """
    if given is None or not given.requires_grad:
        return None
    if given is stack:
        return 0
    pieces = given.grad_fn.next_functions if given.grad_fn is not None else ()
    if pieces and getattr(pieces[-1][0], "variable", None) is stack and "Cat" in type(given.grad_fn).__name__:
        return len(given) - len(stack)
    return None


def _follow(twin: nn.Module) -> None:
    """Look at the stack's memory again, if it was moved to another device or type."""
    for member in twin._parameters.values():
        if isinstance(member, Member):
            now = member.stack.detach()[member.place]
            if now.data_ptr() != member.data_ptr():
                member.data = now


def _share(value: Any, place: int | None, hook: Any) -> Any:
    """What belongs to one member of a value under vmap, as an ordinary tensor."""
    if place is None:
        return value
    if isinstance(value, tuple):
        return tuple(_share(one, place, hook) for one in value)
    if isinstance(value, Mapping):
        return {key: _share(one, place, hook) for key, one in value.items()}
    if not isinstance(value, Tensor) or not functorch.is_batchedtensor(value):
        return value
    if "sensitivity" in getattr(getattr(hook, "watch", None), "wants", ()):
        raise RuntimeError("utilities that look at gradients see none under vmap: give the loss deactivate_vmap=True")
    return functorch.get_unwrapped(value).select(functorch.maybe_get_bdim(value), place)
