"""What a value of a network carries: units in segments, and the groups of units that go together."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from torch import nn

from .slots import Norm
from .torch_names import KEEPS_SIGN, POSITIVE


@dataclass(frozen=True)
class Segment:
    """`width * block` consecutive entries of a tensor: the units of `group` (None: entries nobody may edit)."""

    group: int | None
    width: int
    block: int | None = 1  # None: flattened by an amount that only the reader tells


@dataclass(frozen=True)
class Flow:
    """A tensor whose dim `axis` (negative) consists of units, in segments."""

    axis: int
    segments: tuple[Segment, ...]
    path: tuple[str, ...] = ()
    positive: bool = False  # known to be at least 0
    state: bool = False  # the last hidden state of a recurrent layer: may be returned without being an output
    stacked: int = 1  # dim 0 counts the layers of a deep recurrent layer, and the units are the last one's

    def through(self, label: str) -> Flow:
        """The same units after an elementwise step."""
        positive = label in POSITIVE or (self.positive and (not label or label in KEEPS_SIGN))
        return replace(self, path=(*self.path, label) if label else self.path, positive=positive)


@dataclass(frozen=True)
class Read:
    """One look of a layer at the units of a group.

    Attributes:
        module: the reading layer.
        start: where its first unit sits in the layer's input.
        block: inputs per unit.
        value: the value it reads.
        positive: whether that is known to be at least 0.
        call: bit of this call; `after`: bits of all layers whose output went into the value.
    """

    module: nn.Module
    start: int
    block: int
    value: int
    positive: bool
    call: int = field(default=0, compare=False)
    after: int = field(default=0, compare=False)


@dataclass
class Group:
    """Units that must be replaced together: one layer, or all layers that add to one residual stream."""

    width: int
    makers: list[nn.Module] = field(default_factory=list)
    norms: list[Norm] = field(default_factory=list)
    mixed: list[str] = field(default_factory=list)  # kinds of norms on the way that make units depend on each other
    readers: list[Read] = field(default_factory=list)
    path: tuple[str, ...] = ()
    refused: str | None = None
    output: bool = False

    def feeds_back(self) -> bool:
        """Whether a layer reads these units in a value that an earlier reader of them had a part in."""
        earlier = 0
        for reader in self.readers:
            earlier |= reader.call
        return any(reader.after & earlier for reader in self.readers)


def resolve(segments: tuple[Segment, ...], size: int) -> tuple[Segment, ...] | None:
    """The segments with their blocks made to fill `size` inputs, or None if they cannot."""
    if any(segment.block is None for segment in segments):
        total = sum(segment.width for segment in segments)
        if size % total:
            return None
        return tuple(replace(segment, block=size // total) for segment in segments)
    return segments if sum(s.width * (s.block or 1) for s in segments) == size else None
