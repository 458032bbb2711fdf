"""Where units live: their entries in tensors, the layers that read them, the norms on the way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .norms import norm_of


@dataclass(frozen=True)
class Slot:
    """The entries that units own in one tensor: unit i has `start + i * stride + j * step`, j < repeat, along `dim`.

    The tensor is looked up by name each time, so a Parameter that was swapped (load, `.to`) is never edited stale.
    """

    owner: nn.Module
    name: str
    dim: int
    start: int = 0
    stride: int = 1
    repeat: int = 1
    step: int = 1
    value: float | None = 0.0  # what a newborn's entries in a norm start from; None: the median of what stands there

    def tensor(self) -> Tensor:
        """The tensor itself, not a copy."""
        value: Tensor | None = self.owner._parameters.get(self.name)  # a quarter of the time of a module's attribute
        return value if value is not None else getattr(self.owner, self.name)

    @property
    def plain(self) -> bool:
        """Whether unit i has entry i."""
        return self.repeat == self.stride == 1 and not self.start

    def entries(self, index: Tensor) -> Tensor:
        """Positions along `dim` of the units `index` [k], unit by unit: [k * repeat]."""
        if self.plain:  # most layers: no arithmetic
            return index
        base = self.start + index * self.stride
        if self.repeat == 1:
            return base
        inner = torch.arange(self.repeat, device=index.device) * self.step
        return (base[:, None] + inner).reshape(-1)

    def start_(self, index: Tensor) -> None:
        """Put the entries of the units `index` [k] to where a newborn's start, in place."""
        tensor, entries = self.tensor(), self.entries(index)
        if self.value is not None:
            tensor.index_fill_(self.dim, entries, self.value)
        else:
            shape = [len(entries) if d == self.dim % tensor.ndim else size for d, size in enumerate(tensor.shape)]
            tensor.index_copy_(self.dim, entries, tensor.median().expand(shape))

    def span(self, values: Tensor, width: int) -> Tensor:
        """Sum of one value per entry along `dim` [size] over the entries of each unit: [width]."""
        size = width * self.repeat
        if len(values) != size:
            values = values.narrow(0, self.start, size)
        if self.repeat == 1:
            return values
        return values.view(self.repeat, width).sum(0) if self.stride == 1 else values.view(width, -1).sum(1)


@dataclass(frozen=True)
class Reader:
    """A layer that reads units: `block` consecutive inputs per unit, from input `start` on.

    Args:
        module: the reading layer.
        start: where the first unit sits in the reader's input (behind what it is concatenated with).
        block: inputs per unit: height times width after conv -> flatten, else 1.
        recurrent: the layer reads its own units from the step before; they are watched at its output.
        source: readers with the same number read the very same tensor.
        centre: a batch norm right behind a reader without bias: its running mean takes the mean contribution over.
        positive: what it reads is known to be at least 0 (behind a ReLU), so that |h| is h.
    """

    module: nn.Module
    start: int = 0
    block: int = 1
    recurrent: bool = False
    source: int = 0
    centre: nn.Module | None = None
    positive: bool = False


@dataclass(frozen=True)
class Norm:
    """What stands between units and their readers with entries of its own for every unit: a norm, a bare gain.

    Args:
        module: holds the tensors.
        start: entry of the first unit.
        block: consecutive entries per unit (a norm behind flatten), else 1.
        values: tensor name -> what a newborn's entries start from, None: the median of what stands there; as a
            whole None: as surgery knows it of the module (torch's own norms, `surgery.register_norm`).
        dim: of those tensors, that counts units.
    """

    module: nn.Module
    start: int = 0
    block: int = 1
    values: Mapping[str, float | None] | None = None
    dim: int = 0

    def slots(self) -> list[Slot]:
        """Where the units' entries are."""
        known = norm_of(self.module)
        values = self.values if self.values is not None else known.start if known else {}
        names = [name for name in values if getattr(self.module, name, None) is not None]
        return [Slot(self.module, n, self.dim, self.start, self.block, self.block, value=values[n]) for n in names]
