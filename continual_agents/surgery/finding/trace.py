"""See what a network computes: a flat list of calls, from torch.fx or from one forward pass on example inputs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from .calls import Trace, is_leaf
from .quiet import evaluating
from .recorder import Pass, by_forward
from .symbolic import by_fx


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
        return by_forward(net, passes)
    if lazy:
        raise ValueError(
            f"{type(net).__name__}: layers {lazy} are lazy and have no parameters yet: run the network once, or give "
            "example inputs: surgery.find(net, *inputs)"
        )
    try:
        return by_fx(net)
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
        return by_forward(net, [Pass((zeros,))])
    except Exception:
        return None
