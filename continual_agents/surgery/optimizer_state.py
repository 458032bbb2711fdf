"""Forget what an optimizer remembers about single entries of a parameter, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.optim import Optimizer

from .adam import Adam
from .finding import own, whole


def forget_(optimizers: Sequence[Optimizer], parameter: Tensor, dim: int, index: Tensor) -> None:
    """Put the optimizer state of `parameter`'s entries `index` along `dim` back to where it starts.

    Every state tensor that has an entry per entry of the parameter is found by its shape, whatever its name: momentum
    of SGD and RMSprop; both moments of Adam, AdamW, NAdam, RAdam, Adamax and the third of amsgrad; Adagrad's sum
    (back to its initial value); Rprop's step sizes. A scalar `step` shared by the whole parameter cannot forget a
    part of it, which makes reborn entries leap under the Adam family: `surgery.Adam` counts steps per unit.

    Args:
        optimizers: those that may train the parameter; the others are left alone.
        parameter: a parameter (tensors without gradient have no state and are skipped).
        dim: dim of `parameter` that `index` counts along.
        index: int64 [k], on the parameter's device.
    """
    for optimizer in optimizers:
        for _, entries, start in states_of(optimizer, parameter, dim):
            entries.index_fill_(dim, index, start)
        if isinstance(optimizer, Adam) and whole(parameter) is parameter:  # one step count for all members
            optimizer.forget_(parameter, dim, index)


def states_of(optimizer: Optimizer, parameter: Tensor, dim: int) -> Iterator[tuple[str, Tensor, float]]:
    """The optimizer's state with entries along `dim` of `parameter`: its name, the parameter's part of it, and what
    entries start from."""
    trained = whole(parameter)
    for name, value in (optimizer.state.get(trained) or {}).items():
        if not isinstance(value, Tensor) or value.ndim != trained.ndim or name.startswith(Adam.AGE):
            continue
        entries = own(parameter, value)
        # Adafactor's rows and columns have entries of their own along one dim
        if entries.ndim and entries.shape[dim] == parameter.shape[dim]:
            yield name, entries, _start(optimizer, trained, name)


def _start(optimizer: Optimizer, parameter: Tensor, name: str) -> float:
    """The value a state tensor starts from."""
    if isinstance(optimizer, torch.optim.Adagrad) and name == "sum":
        return float(_group(optimizer, parameter)["initial_accumulator_value"])
    if isinstance(optimizer, torch.optim.Rprop) and name == "step_size":
        return float(_group(optimizer, parameter)["lr"])
    return 0.0


def _group(optimizer: Optimizer, parameter: Tensor) -> dict:
    return next(g for g in optimizer.param_groups if any(p is parameter for p in g["params"]))
