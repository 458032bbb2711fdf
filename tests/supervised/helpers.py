"""Small things that the tests of streams share."""

from typing import Any

import torch
from torch import Tensor

from continual_agents.methods import Method
from supervised.networks import Mlp
from supervised.stacked.learner import StackedLearner

CBP = {"rate": 0.02, "maturity": 20, "decay": 0.9, "utility": "adaptable_contribution"}


def method(name: str = "test", *, kind: str = "sgd", step_size: float = 0.02, operations: Any = None, **optimizer: Any):
    return Method(
        name=name,
        optimizer={"kind": kind, "step_size": step_size, **optimizer},
        operations=operations or {},
    )


def examples(steps: int, runs: int, batch: int, network: Mlp, *, loss: str, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Random inputs, and classes or targets that follow from them."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(steps, runs, batch, network.inputs, generator=generator)
    if loss == "cross_entropy":
        return x, (x[..., : network.outputs]).argmax(-1) % network.outputs
    return x, x[..., : network.outputs].tanh() + 0.1


def learner(network: Mlp, methods: list, seeds: list[int], *, loss: str, batch: int = 1, **kind: Any) -> StackedLearner:
    return StackedLearner(network, methods, seeds, loss=loss, batch=batch, **kind)


def tensors_of(state: Any) -> list[Tensor]:
    """Every tensor in a nested state, in order."""
    if isinstance(state, Tensor):
        return [state]
    if isinstance(state, dict):
        return [tensor for value in state.values() for tensor in tensors_of(value)]
    if isinstance(state, list | tuple):
        return [tensor for value in state for tensor in tensors_of(value)]
    return []
