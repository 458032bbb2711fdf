"""What a module holds while somebody watches it: a hook that copies and pickles of the network leave behind."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor
from torch._compile import _disable_dynamo  # torch.compiler.disable would load torch._dynamo here: a second of CPU

from .finding import is_paused


class Listener(Protocol):
    """Who is told of training passes."""

    active: bool

    def record(self, value: Tensor) -> None:
        """A pass with this value."""

    def record_compiled(self, value: Tensor) -> None:
        """The same inside of a compiled graph."""


class Hook:
    """What a module holds: calls its watch in graph-building passes. Copies and pickles of it do nothing."""

    def __init__(self, watch: Listener | None = None, *, output: bool = False) -> None:
        self.watch, self.output = watch, output

    def __call__(self, module: torch.nn.Module, args: Any, value: Any) -> None:
        """Forward hook (module, args, output) or forward pre-hook (module, args, kwargs)."""
        watch = self.watch
        if watch is None or not watch.active or not torch.is_grad_enabled() or is_paused():
            return
        given = value if self.output else args[0] if args else next(iter(value.values()))
        if isinstance(given, tuple):  # a PackedSequence: only the steps that exist; else a layer's several outputs
            given = given[0]
            given = given[0] if isinstance(given, tuple) else given
        if torch.compiler.is_compiling():
            watch.record_compiled(given)
        elif isinstance(given, Tensor) and not torch._C._functorch.is_functorch_wrapped_tensor(given):
            watch.record(given)

    def __reduce__(self) -> tuple:  # what copy.deepcopy and pickle make of it
        return Hook, ()


class Recent:
    """Keeps a few samples of the latest training inputs of a layer, for births that look at them."""

    SAMPLES = 32

    def __init__(self, module: torch.nn.Module) -> None:
        self.active = True
        self.inputs: Tensor | None = None
        self._handle = module.register_forward_pre_hook(Hook(self), with_kwargs=True)

    @torch.no_grad()
    def record(self, value: Tensor) -> None:
        """Keep a copy of the first samples."""
        self.inputs = value.detach()[: self.SAMPLES].clone()

    @_disable_dynamo
    def record_compiled(self, value: Tensor) -> None:
        """As `record`, outside of the compiled graph."""
        self.record(value)

    def clear(self) -> None:
        """Nothing to forget between steps."""

    def close(self) -> None:
        """Remove the hook."""
        self._handle.remove()
        self.inputs = None
