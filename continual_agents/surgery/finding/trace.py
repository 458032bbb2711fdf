"""See what a network computes: a flat list of calls, from torch.fx or from one forward pass on example inputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.overrides import TorchFunctionMode

from .layers import axes_of
from .norms import norm_of
from .quiet import evaluating, quietly


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
    within: nn.Module | None = None  # the layer that nobody knows whose inside this is


@dataclass
class Trace:
    """What a network computes.

    Attributes:
        calls: in order of execution.
        inputs: values given to the network.
        outputs: what it returns, nested as returned, pass by pass.
        shapes: value id -> shape, where known (in a symbolic trace only of parameters and buffers).
        owners: value id -> the module that holds it as a parameter or buffer, and its name there.
    """

    calls: list[Call] = field(default_factory=list)
    inputs: list[Ref] = field(default_factory=list)
    outputs: tuple[Any, ...] = ()
    shapes: dict[int, tuple[int, ...]] = field(default_factory=dict)
    owners: dict[int, tuple[nn.Module, str]] = field(default_factory=dict)


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
    """Whether a module is one step of the trace: a layer of torch.nn, or one that somebody registered. Everything else
    is looked into."""
    if axes_of(module) is not None or norm_of(module) is not None or isinstance(module, nn.MultiheadAttention):
        return True
    return type(module).__module__.startswith("torch.nn.modules") and not any(True for _ in module.children())


def is_stranger(module: nn.Module) -> bool:
    """Whether a module is a layer that nobody knows: parameters of its own, no parts, and not one step of the trace."""
    own = any(True for _ in module.parameters(recurse=False))
    return own and not is_leaf(module) and not any(True for _ in module.children())


@dataclass
class Pass:
    """The arguments of one forward pass."""

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)


def trace(net: nn.Module, passes: Sequence[Pass]) -> Trace:
    """The calls of `net`: by forward passes when there are inputs for any, else symbolically by torch.fx.

    Raises:
        ValueError: there is no way to follow the network, and what to do about it.
    """
    if not is_leaf(net) and type(net).forward is nn.Module.forward and "forward" not in vars(net):
        parts = ", ".join(f"{name!r}: net.{name}" for name, _ in net.named_children())
        raise ValueError(
            f"{type(net).__name__} has no forward, so there is nothing to follow: pass its parts as a mapping, "
            f"surgery.find({{{parts}}})"
        )
    lazy = [name for name, module in net.named_modules() if getattr(module, "has_uninitialized_params", bool)()]
    if passes:
        if lazy:  # what the first pass does anyway, with draws that stay drawn
            with evaluating(net):
                net(*passes[0].args, **passes[0].kwargs)
        return _by_forward(net, passes)
    if lazy:
        raise ValueError(
            f"{type(net).__name__}: layers {lazy} are lazy and have no parameters yet: run the network once, or give "
            "example inputs: surgery.find(net, *inputs)"
        )
    try:
        return _by_fx(net)
    except Exception as error:
        guess = _guess(net)
        if guess is not None:
            return guess
        raise ValueError(
            f"torch.fx cannot trace {type(net).__name__} symbolically ({type(error).__name__}: {str(error)[:120]}); "
            "give example inputs: surgery.find(net, *inputs)"
        ) from error


def _guess(net: nn.Module) -> Trace | None:
    """A pass of zeros through a stack that begins with a Linear, which says how wide they are (TorchRL's MLP)."""
    first = next((module for module in net.modules() if is_leaf(module)), None)
    if not isinstance(net, nn.Sequential) or not isinstance(first, nn.Linear):
        return None
    zeros = torch.zeros(2, first.in_features, dtype=first.weight.dtype, device=first.weight.device)
    try:
        return _by_forward(net, [Pass((zeros,))])
    except Exception:
        return None


def _owners(net: nn.Module) -> Iterator[tuple[Tensor, nn.Module, str]]:
    for module in net.modules():
        for name, tensor in (*module._parameters.items(), *module._buffers.items()):
            if tensor is not None:
                yield tensor, module, name


def _by_fx(net: nn.Module) -> Trace:
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


def _by_forward(net: nn.Module, passes: Sequence[Pass]) -> Trace:
    recorder, outputs = _Recorder(), []
    for tensor, module, name in _owners(net):
        recorder.trace.owners[recorder.ref(tensor).id] = (module, name)
    for given in passes:
        recorder.trace.inputs += refs((recorder.ref(given.args), recorder.ref(given.kwargs)))
        with quietly(net), _wrapped(net, recorder), recorder:
            outputs.append(net(*given.args, **given.kwargs))
    recorder.trace.outputs = tuple(recorder.ref(output) for output in outputs)
    return recorder.trace


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


_ALIASES = {"truediv": "div", "true_divide": "div", "divide": "div", "subtract": "sub", "multiply": "mul"}
_ALIASES |= {"concat": "cat", "concatenate": "cat", "swapaxes": "transpose", "swapdims": "transpose"}


def canonical(function: Any) -> str:
    """One name per operation: `operator.iadd`, `Tensor.__radd__`, `torch.add` and `Tensor.add_` are all "add"."""
    name: str = getattr(function, "__name__", type(function).__name__).strip("_")
    if name in ("radd", "iadd", "rsub", "isub", "rmul", "imul", "rtruediv", "itruediv", "rdiv", "idiv", "rpow", "ipow"):
        name = name[1:]
    if name == "get":  # a property such as `x.T`
        name = getattr(getattr(function, "__self__", None), "__name__", name)
    if name in ("batch_norm", "instance_norm") and getattr(function, "__module__", "") != "torch.nn.functional":
        return f"torch.{name}"  # the same name, other arguments
    return _ALIASES.get(name, name)
