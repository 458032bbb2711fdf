"""What a unit leaves behind: its mean for its readers, zeros everywhere else. Prepared once a layer, done in C."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from . import kernels
from .adam import Adam
from .finding import Units, axes_of, whole
from .optimizer_state import states_of


class Removal:
    """The weights behind a layer, and the optimizers' state of these and of what makes its units.

    Everything is noted as (dict, key, tensor, layout), so that what has changed is noticed by looking it up.

    Args:
        units: the layer.
    """

    def __init__(self, units: Units) -> None:
        self._units = units
        self._optimizers: list[Optimizer] | None = None
        self._zeros: Any = None

    def ready(self, index: Tensor, optimizers: Sequence[Optimizer]) -> bool:
        """Whether C can remove the units `index` [k], with these optimizers' state to be forgotten."""
        if list(optimizers) != self._optimizers:
            self._optimizers, self._possible, self._zeros = list(optimizers), True, None
        if self._zeros is not None and not self._holds():
            self._zeros = None
        if self._zeros is None and self._possible:
            self._prepare(optimizers)
        return self._zeros is not None and index.is_contiguous()

    def hand_over(self, index: Tensor, means: Sequence[Tensor | None]) -> bool:
        """Add what units `index` [k] give their readers on average to the readers' biases, once it is `ready`; False:
        nothing was done, as C cannot do it for such readers.

        Args:
            index: int64.
            means: per reader [width]; None, or no means at all: nothing is handed over.
        """
        if not means:
            return True
        if self._readers is None or not all(m is None or self._fits(m) for m in means):
            return False
        library, units = kernels.library(self._dtype), (index.data_ptr(), index.numel())
        for (weight, rows, columns, bias), mean in zip(self._readers, means, strict=True):
            if mean is not None and bias:
                library.hand_over(weight, rows, columns, *units, mean.data_ptr(), bias)  # type: ignore[union-attr]
        torch.autograd.graph.increment_version(self._biases)
        return True

    def _fits(self, mean: Tensor) -> bool:
        return mean.dtype == self._dtype and kernels.dense(mean) and mean.numel() >= self._units.width

    def erase(self, index: Tensor) -> None:
        """Put the entries of units `index` [k] to 0, once it is `ready`."""
        zeros = ctypes.addressof(self._zeros), len(self._zeros)
        kernels.library(torch.float32).fill_zeros(*zeros, index.data_ptr(), index.numel())  # type: ignore[union-attr]
        torch.autograd.graph.increment_version(self._written)
        for adam, parameter, group in self._reborn:
            adam.born(parameter, group)

    def _holds(self) -> bool:
        for held, name, tensor, layout in self._places:
            if held.get(name) is not tensor or (tensor is not None and kernels.layout(tensor) != layout):
                return False
        for optimizer, parameter, state, size in self._states:
            if optimizer.state.get(parameter) is not state or len(state or ()) != size:
                return False
        return True

    def _prepare(self, optimizers: Sequence[Optimizer]) -> None:
        """Note all places, if C can do them. Not possible: never for these units and optimizers."""
        units, library = self._units, kernels.library(torch.float32)
        read = [slot for slots in units.read for slot in slots]
        found: list[tuple[Mapping[Any, Any], Any, Tensor, int]] = []
        self._states, self._reborn = [], []
        self._possible = False
        for slot in (*units.made, *units.normed, *read):
            parameter = slot.owner._parameters.get(slot.name)
            if parameter is None and slot in units.normed:  # running statistics: no optimizer has a state for them
                continue
            if parameter is None or whole(parameter) is not parameter or not slot.plain:
                return
            if slot in read:
                found.append((slot.owner._parameters, slot.name, parameter, slot.dim))
            for optimizer in optimizers:
                state = optimizer.state.get(parameter)
                self._states.append((optimizer, parameter, state, len(state or ())))
                if any(value is None for value in (state or {}).values()):  # nothing tells when there will be something
                    self._possible = True
                    return
                for name, value, start in states_of(optimizer, parameter, slot.dim):
                    if start:
                        return
                    found.append((state, name, value, slot.dim))  # type: ignore[arg-type]
                if isinstance(optimizer, Adam) and state:
                    if type(optimizer).forget_ is not Adam.forget_:
                        return
                    ages = f"{Adam.AGE}{slot.dim % parameter.ndim}"
                    if ages not in state:  # its own `forget_` will put them there
                        self._possible = True
                        return
                    found.append((state, ages, state[ages], slot.dim))
                    self._reborn.append((optimizer, parameter, optimizer.group_of(parameter)))
        if library is None or not all(kernels.dense(t) and t.shape[dim] >= units.width for _, _, t, dim in found):
            return
        self._possible = True
        self._written = [slot.tensor() for slot in read]
        zeros = [
            kernels.Zeros(tensor.data_ptr(), *kernels.sides(tensor.shape, dim % tensor.ndim), tensor.element_size())
            for _, _, tensor, dim in found
        ]
        self._zeros = (kernels.Zeros * len(zeros))(*zeros)
        self._places: list[tuple[Mapping[Any, Any], Any, Tensor | None, Any]] = [
            (held, name, tensor, kernels.layout(tensor)) for held, name, tensor, _ in found
        ]
        self._prepare_readers()

    def _prepare_readers(self) -> None:
        """Note what takes the mean over, if every reader is a plain matrix."""
        self._readers: list[tuple[int, int, int, int]] | None = None
        self._biases: list[Tensor] = []
        found = []
        for reader, slots in zip(self._units.outgoing, self._units.read, strict=True):
            axes, weight = axes_of(reader.module), slots[0].tensor()
            if axes is None or len(slots) > 1 or weight.ndim != 2 or slots[0].dim != 1 or reader.block > 1:
                return
            name = axes.bias.get(slots[0].name)
            bias = reader.module._parameters.get(name) if name else None
            if name:  # one that is not there may come
                known = None if bias is None else kernels.layout(bias)
                self._places.append((reader.module._parameters, name, bias, known))
            if bias is not None:
                if len(bias) != len(weight):
                    return
                self._biases.append(bias)
            elif reader.centre is not None or (name and getattr(reader.module, name, None) is not None):
                return
            found.append((weight.data_ptr(), *weight.shape, 0 if bias is None else bias.data_ptr()))
        tensors = [*self._written, *self._biases]
        if kernels.library_for(tensors) is not None:
            self._readers, self._dtype = found, tensors[0].dtype

    def __reduce__(self) -> tuple:  # addresses mean nothing in a copy
        return Removal, (self._units,)
