"""One layer under a companion's watch, and the settings that it has of its own."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .births import birth_of, needs_inputs, obstacle
from .finding import Reader, Units
from .hooks import Recent
from .removal import Removal
from .replace import Renewal
from .scratch import Scratch
from .watch import Watch
from .words import nearest


class Layer:
    """One layer under watch: its units, its watches (one per distinct tensor that readers read), its counters."""

    def __init__(self, units: Units, birth: Any) -> None:
        self.units, self.birth = units, birth_of(birth)
        self.removal = Removal(units)
        self.watches: list[Watch] = []
        self.heard: list[int | None] = []
        self.near: list[Recent] = []
        for module in units.incoming:
            reason = obstacle(self.birth, module)
            if reason:
                raise ValueError(f"units {units.name!r}: {reason}")
        self.replaced = 0

    def listen(
        self,
        wants: frozenset[str],
        centre: Callable[[int, Tensor], Tensor] | None = None,
        scratch: Scratch | None = None,
    ) -> None:
        """Watch the units where they are read: each distinct tensor once, the first one (a recurrent layer's own
        output, if it is one) for the statistics `wants` too; the others matter for the means that are handed over.

        Args:
            wants: see `Watch`.
            centre: (number of the watch, mean of a pass) -> running mean.
            scratch: see `Watch`.
        """
        self.near = [Recent(module) for module in self.units.incoming] if needs_inputs(self.birth) else []
        distinct: dict[tuple[int, int], list[Reader]] = {}
        for reader in sorted(self.units.outgoing, key=lambda r: self._place(r, wants)):
            key = (reader.source, reader.start)
            if key in distinct or not distinct or self.units.takes_mean(reader):
                distinct.setdefault(key, []).append(reader)
        for i, readers in enumerate(distinct.values()):
            wanted = frozenset() if i else wants
            own = functools.partial(centre, i) if centre is not None else None
            self.watches.append(Watch(readers, self.units.width, wanted, own, scratch))
        keys = list(distinct)
        # per reader, the watch whose tensor it reads
        self.heard = [keys.index(k) if (k := (r.source, r.start)) in distinct else None for r in self.units.outgoing]

    @staticmethod
    def _place(reader: Reader, wants: frozenset[str]) -> int:
        """Where a reader stands: smaller ones are watched first."""
        # a head may read the last state instead of the output sequence, which then gets no gradient
        sequence = isinstance(reader.module, nn.RNNBase) and "sensitivity" in wants
        return 2 if reader.recurrent and sequence else 0 if reader.recurrent else 1

    def take(self) -> list[dict[str, Tensor] | None]:
        """What each watch recorded since the last call."""
        return [watch.take() for watch in self.watches]

    def close(self) -> None:
        """Remove the hooks."""
        for watch in self.watches:
            watch.close()
        for near in self.near:
            near.close()

    def adopt(self, before: Any) -> None:
        """Take over what is known about the units from `before`, the same layer in a network that was changed."""
        self.replaced = before.replaced

    def begin(self, step: int) -> None:
        """The units are as old as the network's present step: nothing is known about them."""

    @property
    def device(self) -> torch.device:
        """Where the units live now."""
        return self.units.made[0].tensor().device

    def renewal(self, index: Tensor, means: Sequence[Tensor | None]) -> Renewal:
        """These units go; `means`: see `Renewal`."""
        return Renewal(self.units, index, means, self.birth, [near.inputs for near in self.near], self.removal)


def per_layer_settings(
    units: Sequence[Units], common: Mapping[str, Any], layers: Mapping[str, Mapping[str, Any]] | None
) -> list[dict[str, Any]]:
    """The settings of each layer: the common ones, overridden by those under its name.

    Raises:
        KeyError: a layer or a setting that does not exist, with the nearest that does.
    """
    names = [u.name for u in units]
    for name, settings in (layers or {}).items():
        if name not in names:
            raise KeyError(f"there is no layer {name!r}: {nearest(name, names)}")
        for key in settings:
            if key not in common:
                raise KeyError(f"there is no setting {key!r}: {nearest(key, common)}")
    return [{**common, **(layers or {}).get(name, {})} for name in names]
