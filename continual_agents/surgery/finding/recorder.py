"""The calls of a network, written down while it runs on example inputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from .calls import Call, Ref, Trace, canonical, is_leaf, is_stranger, refs
from .quiet import quietly


@dataclass
class Pass:
    """The arguments of one forward pass."""

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)


def by_forward(net: nn.Module, passes: Sequence[Pass]) -> Trace:
    """One trace of all passes, with the shape of every value."""
    recorder, outputs = _Recorder(), []
    for tensor, module, name in _owners(net):
        recorder.trace.owners[recorder.ref(tensor).id] = (module, name)
    for given in passes:
        recorder.trace.inputs += refs((recorder.ref(given.args), recorder.ref(given.kwargs)))
        with quietly(net), _wrapped(net, recorder), recorder:
            outputs.append(net(*given.args, **given.kwargs))
    recorder.trace.outputs = tuple(recorder.ref(output) for output in outputs)
    return recorder.trace


class _Recorder(TorchFunctionMode):
    """Writes down every torch function and leaf module that runs; keeps all values alive so that ids are unique."""

    def __init__(self) -> None:
        super().__init__()
        self.trace = Trace()
        self.kept: list[Tensor] = []
        self.inside = 0  # depth of leaf modules: what happens in there is theirs
        self.within: list[nn.Module] = []  # strangers that are running

    def ref(self, value: Any) -> Any:
        """The value with every tensor replaced by its Ref; containers and plain objects are looked into."""
        if isinstance(value, Tensor):
            if id(value) not in self.trace.shapes:
                self.kept.append(value)
            self.trace.shapes[id(value)] = tuple(value.shape)
            return Ref(id(value))
        if hasattr(value, "batch_sizes") and hasattr(value, "data"):  # PackedSequence
            return self.ref(value.data)
        if isinstance(value, (list, tuple)):
            return tuple(self.ref(item) for item in value)
        if isinstance(value, Mapping):
            return {key: self.ref(item) for key, item in value.items()}
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return {f.name: self.ref(getattr(value, f.name)) for f in dataclasses.fields(value)}
        if isinstance(value, torch.distributions.Distribution):
            return {name: self.ref(item) for name, item in vars(value).items() if isinstance(item, Tensor)}
        return value

    def __torch_function__(self, func: Callable, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.inside:
            return func(*args, **kwargs)
        given = self.ref(tuple(args)), self.ref(dict(kwargs))
        result = func(*args, **kwargs)
        self._note(canonical(func), given, result)
        return result

    def around(self, module: nn.Module, forward: Callable) -> Callable:
        """`forward` of a leaf module, written down as one step."""

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            if self.inside:
                return forward(*args, **kwargs)
            given = self.ref(args), self.ref(kwargs)
            self.inside += 1
            try:
                result = forward(*args, **kwargs)
            finally:
                self.inside -= 1
            self._note(module, given, result)
            return result

        return wrapped

    def look_into(self, module: nn.Module, forward: Callable) -> Callable:
        """`forward` of a layer that nobody knows: its steps are written down as its own."""

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            self.within.append(module)
            try:
                return forward(*args, **kwargs)
            finally:
                self.within.pop()

        return wrapped

    def _note(self, target: nn.Module | str, given: tuple[Any, Any], result: Any) -> None:
        within = self.within[-1] if self.within else None
        self.trace.calls.append(Call(target, *given, self.ref(result), within))


def _owners(net: nn.Module) -> Iterator[tuple[Tensor, nn.Module, str]]:
    for module in net.modules():
        for name, tensor in (*module._parameters.items(), *module._buffers.items()):
            if tensor is not None:
                yield tensor, module, name


@contextmanager
def _wrapped(net: nn.Module, recorder: _Recorder) -> Iterator[None]:
    leaves = {module: recorder.around for module in net.modules() if is_leaf(module)}
    strangers = {module: recorder.look_into for module in net.modules() if is_stranger(module)}
    before = {module: vars(module).get("forward") for module in (*leaves, *strangers)}
    for module, wrap in (*leaves.items(), *strangers.items()):
        module.__dict__["forward"] = wrap(module, module.forward)
    try:
        yield
    finally:
        for module, own in before.items():
            if own is None:
                del module.__dict__["forward"]
            else:
                module.__dict__["forward"] = own
