"""See what a network computes: a flat list of calls, from torch.fx or from one forward pass on example inputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.overrides import TorchFunctionMode

from .layers import axes_of
from .quiet import paused, quietly


@dataclass(frozen=True)
class Ref:
    """One value of the trace."""

    id: int


@dataclass
class Call:
    """One step: a layer or a function by name; args and outputs hold `Ref`s where the values were tensors."""

    target: nn.Module | str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    out: Any


@dataclass
class Trace:
    """What a network computes.

    Attributes:
        calls: in order of execution.
        inputs: values given to the network.
        outputs: what it returns, nested as returned.
        shapes: value id -> shape, where known (never in a symbolic trace).
    """

    calls: list[Call] = field(default_factory=list)
    inputs: list[Ref] = field(default_factory=list)
    outputs: Any = None
    shapes: dict[int, tuple[int, ...]] = field(default_factory=dict)


def refs(value: Any) -> Iterator[Ref]:
    """Every Ref in a nest of tuples, lists and dicts."""
    if isinstance(value, Ref):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from refs(item)
    elif isinstance(value, dict):
        yield from refs(tuple(value.values()))


def is_leaf(module: nn.Module) -> bool:
    """Whether a module is one step of the trace: a layer of torch.nn or a registered one, or parameters of its own
    without parts; everything else is looked into."""
    if axes_of(module) is not None or isinstance(module, nn.MultiheadAttention):
        return True
    if type(module).__module__.startswith("torch.nn.modules"):
        return not any(True for _ in module.children())
    own = any(True for _ in module.parameters(recurse=False))
    return own and not any(True for _ in module.children())


def trace(net: nn.Module, inputs: tuple[Any, ...]) -> Trace:
    """The calls of `net`: by a forward pass when there are example inputs, else symbolically by torch.fx.

    Raises:
        ValueError: torch.fx cannot follow the network and there are no inputs to run it on.
    """
    if inputs:
        return _by_forward(net, inputs)
    try:
        return _by_fx(net)
    except Exception as error:
        raise ValueError(
            f"torch.fx cannot trace {type(net).__name__} symbolically ({type(error).__name__}: {str(error)[:120]}); "
            "give example inputs: surgery.find(net, *inputs)"
        ) from error


def _by_fx(net: nn.Module) -> Trace:
    class Tracer(fx.Tracer):
        def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
            return is_leaf(m)

    if is_leaf(net):
        net = nn.Sequential(net)
    with paused():
        graph = Tracer().trace(net)
    result = Trace()
    refs: dict[fx.Node, Ref] = {}

    def convert(value: Any) -> Any:
        return fx.node.map_arg(value, lambda node: refs.get(node, node))  # type: ignore

    for node in graph.nodes:
        if node.op == "output":
            result.outputs = convert(node.args[0])
            continue
        refs[node] = Ref(len(refs))
        if node.op == "placeholder":
            result.inputs.append(refs[node])
        elif node.op == "call_module":
            module = net.get_submodule(node.target)
            result.calls.append(Call(module, convert(node.args), convert(node.kwargs), refs[node]))
        elif node.op in ("call_function", "call_method"):
            name = node.target if node.op == "call_method" else canonical(node.target)
            result.calls.append(Call(name, convert(node.args), convert(node.kwargs), refs[node]))
    return result


class _Recorder(TorchFunctionMode):
    """Writes down every torch function and leaf module that runs; keeps all values alive so that ids are unique."""

    def __init__(self) -> None:
        super().__init__()
        self.trace = Trace()
        self.kept: list[Tensor] = []
        self.inside = 0  # depth of leaf modules: what happens in there is theirs

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
        self.trace.calls.append(Call(canonical(func), *given, self.ref(result)))
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
            if any(result is value for value in args):  # nn.Identity hands on the very same tensor
                return result
            self.trace.calls.append(Call(module, *given, self.ref(result)))
            return result

        return wrapped


def _by_forward(net: nn.Module, inputs: tuple[Any, ...]) -> Trace:
    recorder = _Recorder()
    recorder.trace.inputs = [recorder.ref(value) for value in inputs]
    with quietly(net), _wrapped(net, recorder), recorder:
        outputs = net(*inputs)
        recorder.trace.outputs = recorder.ref(outputs)
    return recorder.trace


@contextmanager
def _wrapped(net: nn.Module, recorder: _Recorder) -> Iterator[None]:
    leaves = [module for module in net.modules() if is_leaf(module)]
    before = [vars(module).get("forward") for module in leaves]
    for module in leaves:
        module.__dict__["forward"] = recorder.around(module, module.forward)
    try:
        yield
    finally:
        for module, own in zip(leaves, before, strict=True):
            if own is None:
                del module.__dict__["forward"]
            else:
                module.__dict__["forward"] = own


_ALIASES = {"truediv": "div", "true_divide": "div", "divide": "div", "subtract": "sub", "multiply": "mul"}
_ALIASES |= {"concat": "cat", "concatenate": "cat", "swapaxes": "transpose", "swapdims": "transpose"}


def canonical(function: Any) -> str:
    """One name per operation: `operator.iadd`, `Tensor.__radd__`, `torch.add` and `Tensor.add_` are all "add"."""
    name: str = getattr(function, "__name__", type(function).__name__).strip("_")
    if name in ("radd", "iadd", "rsub", "isub", "rmul", "imul", "rtruediv", "itruediv", "rdiv", "idiv", "rpow", "ipow"):
        name = name[1:]
    if name == "get":  # a property such as `x.T`
        name = getattr(getattr(function, "__self__", None), "__name__", name)
    return _ALIASES.get(name, name)
