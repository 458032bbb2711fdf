"""Adam's step of parameters with young entries in one pass over them, in C."""

from __future__ import annotations

import ctypes
import functools
import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from . import kernels
from .ages import AGE, Ages

LARGE = 1 << 20
"""Entries from which on torch's threads share a step."""


class AdamInC:
    """Adam's steps of some parameters: p -= lr (m / bc1) / (sqrt(v / bc2) + eps), with corrections entry by entry.

    Args:
        library: from `kernels.library_for`, for these parameters and their moments.
        params: those with young entries and others.
        states: the optimizer's of them; ages along the first two dims alone.
        ages: of those that have some.
    """

    def __init__(
        self, library: kernels.Library, params: Sequence[Tensor], states: Sequence[dict[str, Any]], ages: Ages
    ) -> None:
        self._library, self._params, self._states, self._ages = library, params, states, ages
        self._dtype, self._size = params[0].dtype, params[0].element_size()
        self._shapes = [p.shape for p in params]
        self._moments = [(state["exp_avg"], state["exp_avg_sq"]) for state in states]
        self._parts = (kernels.Part * len(params))()
        for part, p, state in zip(self._parts, params, states, strict=True):
            rows, columns, inner = (*p.shape[:2], math.prod(p.shape[2:])) if p.ndim > 1 else (1, p.numel(), 1)
            part.rows, part.columns, part.inner = rows, columns, inner
            first, second = (state[f"{AGE}{dim}"].data_ptr() if f"{AGE}{dim}" in state else None for dim in (0, 1))
            part.row_ages, part.column_ages = (first, second) if p.ndim > 1 else (None, first)
        self._settings = kernels.Settings()
        self._threads = torch.get_num_threads() if sum(p.numel() for p in params) >= LARGE else 1
        widest = max(part.columns * part.inner for part in self._parts)
        self._scratch = [torch.empty(2 * widest, dtype=self._dtype, device="cpu") for _ in range(self._threads)]

    @classmethod
    def of(cls, params: Sequence[Tensor], states: Sequence[dict[str, Any]], ages: Ages) -> AdamInC | None:
        """None where C cannot do it."""
        moments = [state[name] for state in states for name in ("exp_avg", "exp_avg_sq")]
        sides = {f"{AGE}0", f"{AGE}1"}
        if any(name.startswith(AGE) and name not in sides for state in states for name in state):
            return None
        library = kernels.library_for([*params, *moments])
        return None if library is None else cls(library, params, states, ages)

    def step(self, group: dict[str, Any], grads: Sequence[Tensor]) -> bool:
        """One step with the group's settings, ages counted already. False: nothing was done, since a parameter or
        gradient is not laid out as it was."""
        dtype = self._dtype
        parts = zip(self._parts, self._params, grads, self._states, self._shapes, self._moments, strict=True)
        for part, p, grad, state, shape, moments in parts:
            first, second, step = state["exp_avg"], state["exp_avg_sq"], state["step"]
            same = first is moments[0] and second is moments[1]  # those that `of` has looked at
            for tensor in (p, grad) if same else (p, grad, first, second):
                if tensor.dtype != dtype or tensor.shape != shape or not tensor.is_contiguous():
                    return False
            # torch counts in float64 where that is the default type
            if not (part.row_ages or part.column_ages) and step.dtype != torch.float32:
                return False
            part.parameter, part.gradient = p.data_ptr(), grad.data_ptr()
            part.first, part.second, part.step = first.data_ptr(), second.data_ptr(), step.data_ptr()
        table, settings = self._ages.table, self._settings
        settings.ones, settings.last = table.data_ptr(), table.shape[1] - 1
        settings.roots = settings.ones + table.shape[1] * self._size
        settings.rate, settings.eps, settings.decay = float(group["lr"]), group["eps"], group["weight_decay"]
        settings.beta1, settings.beta2 = map(float, group["betas"])
        settings.decoupled, settings.maximize = group["decoupled_weight_decay"], group["maximize"]
        if self._threads == 1:
            self._share(0)
        else:
            list(_pool(self._threads).map(self._share, range(self._threads)))
        torch.autograd.graph.increment_version(self._params)
        return True

    def _share(self, number: int) -> None:
        parts, settings = ctypes.addressof(self._parts), ctypes.addressof(self._settings)
        self._library.adam(parts, len(self._parts), settings, self._scratch[number].data_ptr(), number, self._threads)

    def __reduce__(self) -> tuple:  # addresses mean nothing in a copy, which prepares its own
        return type(None), ()


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="surgery.Adam")  # ctypes lets go of the interpreter's lock


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # threads stay behind in the parent
