"""What a trace of a network is made of: calls of layers and functions on values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from .layers import axes_of
from .norms import norm_of


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
