"""Units: the outputs of one hidden layer, what makes them and what reads them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from torch import nn

from .layers import Axes, axes_of, matrix_of
from .slots import Norm, Reader, Slot


class Units:
    """The units of one hidden layer.

    Args:
        name: what reports call it.
        incoming: the layer that makes the units, or several that share them (a residual stream, gates).
        outgoing: the layers that read them, as modules or `Reader`s; a module's block is its input width / width.
        norms: norms on the way: their per-unit entries are reset with the unit; as modules or `Norm`s.
        path: what lies between, for printing.
        names: id of a layer -> its name, for printing.
        notes: what else to print: why a promise holds only roughly here.
        network: the module they were found in, where companions look whether the layers are still inside.

    Raises:
        TypeError: a layer that surgery does not know.
        ValueError: widths that do not fit, weight not a plain tensor of the layer.

    Example:
        >>> a, b = nn.Linear(3, 8), nn.Linear(8, 2)
        >>> units = Units("block", incoming=a, outgoing=(b,))
        >>> units.width
        8
    """

    def __init__(
        self,
        name: str,
        incoming: nn.Module | Sequence[nn.Module],
        outgoing: Sequence[nn.Module | Reader],
        norms: Sequence[nn.Module | Reader | Norm] = (),
        *,
        path: Sequence[str] = (),
        names: Mapping[int, str] | None = None,
        notes: Sequence[str] = (),
        network: nn.Module | None = None,
    ) -> None:
        self.name = name
        self._names = dict(names or {})
        self.incoming = (incoming,) if isinstance(incoming, nn.Module) else tuple(incoming)
        if not self.incoming or not outgoing:
            raise ValueError(f"units {name!r} need a layer that makes them and one that reads them")
        self.width = _width(self.incoming[0])
        if any(_width(module) != self.width for module in self.incoming):
            raise ValueError(f"units {name!r}: the layers that make them differ in width")
        self.path = tuple(path)
        self.outgoing = tuple(self._as_reader(reader) for reader in outgoing)
        self.norms = tuple(_as_norm(norm) for norm in norms)
        self.notes = tuple(notes)
        self.network = network
        for module in self.incoming:
            if _axes(module).recurrent and not any(r.module is module and r.recurrent for r in self.outgoing):
                self.outgoing += (Reader(module, recurrent=True, source=-1),)
        self.made = [slot for module in self.incoming for slot in self._made(module)]
        self.read = [self._reads(reader) for reader in self.outgoing]
        self.normed = [slot for norm in self.norms for slot in norm.slots()]

    def __repr__(self) -> str:
        kinds = " + ".join(dict.fromkeys(type(module).__name__ for module in self.incoming))
        also = "".join(f" + {self._names.get(id(m), '?')}" for m in self.incoming[1:])
        readers = " + ".join(self._describe(reader) for reader in self.outgoing if not reader.recurrent)
        own = ", recurrent" if any(reader.recurrent for reader in self.outgoing) else ""
        notes = "".join(f"; {note}" for note in self.notes)
        return " -> ".join([f"{self.name}{also}: {kinds}[{self.width}{own}]", *self.path, readers or "itself"]) + notes

    def _describe(self, reader: Reader) -> str:
        name, kind = self._names.get(id(reader.module)), type(reader.module).__name__
        extra = [f"inputs {reader.start}.."] if reader.start else []
        extra += [f"{reader.block} inputs a unit"] if reader.block > 1 else []
        if not self.takes_mean(reader):
            extra.append("no bias: the mean is not handed over")
        elif not self._has_bias(reader):
            extra.append("no bias: the running mean behind it takes the mean")
        return (f"{name}: " if name else "") + kind + (f" ({', '.join(extra)})" if extra else "")

    def takes_mean(self, reader: Reader) -> bool:
        """Whether there is something to hand a removed unit's mean contribution to."""
        return self._has_bias(reader) or getattr(reader.centre, "running_mean", None) is not None

    @staticmethod
    def _has_bias(reader: Reader) -> bool:
        return any(getattr(reader.module, name, None) is not None for name in _axes(reader.module).bias.values())

    def frozen(self) -> str | None:
        """Which layer keeps these units from learning: one that makes or reads them is not trained; None: none does.

        A frozen in-weight would be drawn anew against the user's word, a frozen out-weight stay at 0 for ever.
        """
        for slot in [*self.made, *(slot for slots in self.read for slot in slots)]:
            tensor = slot.tensor()
            if isinstance(tensor, nn.Parameter) and tensor.ndim > 1 and not tensor.requires_grad:
                return f"{self._names.get(id(slot.owner)) or type(slot.owner).__name__} is frozen (requires_grad=False)"
        return None

    def parameters(self) -> Iterator[nn.Parameter]:
        """Every parameter that surgery on these units may edit."""
        for slot in [*self.made, *(slot for slots in self.read for slot in slots), *self.normed]:
            if isinstance(slot.tensor(), nn.Parameter):
                yield slot.tensor()  # type: ignore[misc]

    def _as_reader(self, reader: nn.Module | Reader) -> Reader:
        module = reader.module if isinstance(reader, Reader) else reader
        axes = _axes(module)
        reason = axes.refuse_reading(module) if axes.refuse_reading else None
        if reason:
            raise ValueError(f"surgery cannot edit what reads units {self.name!r}: {reason}")
        if isinstance(reader, Reader):
            return reader
        tensor, dim = matrix_of(reader, axes.inp)
        size = tensor.shape[dim]
        if size % self.width:
            raise ValueError(
                f"units {self.name!r}: {type(reader).__name__} reads {size} inputs, no multiple of the width "
                f"{self.width}; say which ones with surgery.Reader(module, start=, block=)"
            )
        return Reader(reader, block=size // self.width)

    def _made(self, module: nn.Module) -> list[Slot]:
        axes = _axes(module)
        slots = []
        for name, dim in axes.out.items():
            if _has(module, name, self.name):
                slots.append(Slot(module, name, dim, stride=1, repeat=axes.gates, step=self.width))
        return slots

    def _reads(self, reader: Reader) -> list[Slot]:
        axes = _axes(reader.module)
        names = axes.recurrent if reader.recurrent else axes.inp
        slots = []
        for name, dim in names.items():
            _has(reader.module, name, self.name)
            slots.append(Slot(reader.module, name, dim, reader.start, reader.block, reader.block))
            size = slots[-1].tensor().shape[dim]
            if reader.start + self.width * reader.block > size:
                raise ValueError(
                    f"units {self.name!r}: {self.width} units with {reader.block} inputs each from input "
                    f"{reader.start} on do not fit the {size} inputs of {type(reader.module).__name__}"
                )
        return slots


def _as_norm(norm: nn.Module | Reader | Norm) -> Norm:
    if isinstance(norm, Norm):
        return norm
    return Norm(norm.module, norm.start, norm.block) if isinstance(norm, Reader) else Norm(norm)


def _axes(module: nn.Module) -> Axes:
    axes = axes_of(module)
    if axes is None:
        raise TypeError(
            f"surgery does not know the layer {type(module).__name__}; say which dim of which tensor is a unit with "
            f"surgery.register({type(module).__name__}, out={{...}}, inp={{...}})"
        )
    reason = axes.refuse(module) if axes.refuse else None
    if reason:
        raise ValueError(f"surgery cannot edit this layer: {reason}")
    return axes


def _width(module: nn.Module) -> int:
    axes = _axes(module)
    tensor, dim = matrix_of(module, axes.out)
    return tensor.shape[dim] // axes.gates


def _has(module: nn.Module, name: str, units: str) -> bool:
    """Whether the tensor exists; refuses a weight that is computed from others (weight norm, spectral norm)."""
    if nn.utils.parametrize.is_parametrized(module, name):
        raise ValueError(f"units {units!r}: {name!r} of {type(module).__name__} is parametrised; remove it first")
    value = getattr(module, name, None)
    if value is None:
        return False
    if name not in module._parameters and name not in module._buffers:
        raise ValueError(f"units {units!r}: {name!r} of {type(module).__name__} is not a parameter of the layer")
    return True
