"""Run a network for a look: nothing in it, and nobody who watches it, may notice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

_PAUSED: list[bool] = []


@contextmanager
def paused() -> Iterator[None]:
    """No watch records inside: the pass is ours, not training."""
    _PAUSED.append(True)
    try:
        yield
    finally:
        _PAUSED.pop()


def is_paused() -> bool:
    """Whether the present pass is one of ours."""
    return bool(_PAUSED)


@contextmanager
def evaluating(net: nn.Module) -> Iterator[None]:
    """Evaluation mode (no running statistics change), watches paused, gradients on (without them a transformer layer
    takes a fused path that hides its parts)."""
    modes = [(module, module.training) for module in net.modules()]
    try:
        for module, _ in modes:
            module.training = False
        with paused(), torch.enable_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def quietly(net: nn.Module) -> Iterator[None]:
    """As `evaluating`, and the global random state is put back."""
    devices = {p.device for p in net.parameters() if p.device.type == "cuda"}
    with torch.random.fork_rng(devices=list(devices)), evaluating(net):
        yield
