"""Replace units in place: hand over the mean, draw in, zero out, forget the optimizer's state."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from .births import Birth, Draw, birth_of
from .finding import Reader, Slot, Units, axes_of
from .moving import moved
from .optimizer_state import forget_
from .removal import Removal
from .replacement import check_bias, private


@dataclass
class Renewal:
    """One layer's share of a replacement.

    Attributes:
        units: the layer.
        index: units that go, int64 [k].
        means: per reader, the mean input over time of its share [width * block]; None: no mean is handed over.
        birth: how the new units are drawn.
        inputs: per making layer, some recent inputs; empty unless the birth needs them.
        removal: of this layer's units, from step to step; None: nothing is prepared.
    """

    units: Units
    index: Tensor
    means: Sequence[Tensor | None] = ()
    birth: str | Draw = "default"
    inputs: Sequence[Tensor | None] = field(default_factory=tuple)
    removal: Removal | None = None


def replace_(
    units: Units,
    indices: Tensor | Sequence[int],
    optimizer: Optimizer | Sequence[Optimizer] | None = None,
    *,
    means: Tensor | Sequence[Tensor | None] | None = None,
    birth: str | Draw = "default",
    bias: str = "zero",
    generator: torch.Generator | None = None,
) -> None:
    """Replace units of one layer, in place.

    1. The mean contribution `f_hat * w_out` of each unit goes to the bias of every reader that has one.
    2. In-weights are drawn anew, biases set to 0, entries in norms on the way to their start.
    3. Out-weights are set to 0, so the newborn disturbs nothing.
    4. The optimizer's state of exactly those entries starts anew.

    Args:
        units: the layer.
        indices: int64 [k], each in [0, width).
        optimizer: the one (or several) that trains the network; None: nothing to forget.
        means: the units' mean inputs to each reader [width * block] (conv: [width] or mean maps [width, *space]), or
            one tensor for all of them; None: nothing is handed over.
        birth: name or function, see `surgery.BIRTHS`.
        bias: of the newborn: "zero" or "initial" (PyTorch's own draw).
        generator: source of the draws; None: a private one with a fixed seed.

    Raises:
        IndexError: an index outside the layer.
        ValueError: an unknown birth or bias.

    Example:
        >>> replace_(Units("block", incoming=a, outgoing=(b,)), torch.tensor([3, 7]), optimizer)
    """
    device = units.made[0].tensor().device
    index = torch.as_tensor(indices, dtype=torch.int64)
    if index.ndim != 1 or (index.numel() and not 0 <= int(index.min()) <= int(index.max()) < units.width):
        raise IndexError(f"units {units.name!r}: indices {index.tolist()} outside the width {units.width}")
    if isinstance(means, Tensor) or means is None:
        means = [means] * len(units.outgoing)
    rng = generator if generator is not None else private()
    with torch.no_grad():
        replace_together_([Renewal(units, index.to(device), means, birth)], _as_list(optimizer), rng, bias=bias)


def replace_together_(
    renewals: Sequence[Renewal],
    optimizers: Sequence[Optimizer],
    generator: torch.Generator,
    *,
    bias: str = "zero",
    keep_state: bool = False,
    layer_by_layer: bool = False,
) -> None:
    """Replace units of several layers at once; the order of the layers makes no difference but to the draws.

    All means are handed over with the old weights, then all in-weights are drawn, then all out-weights zeroed: a
    weight from a newborn to a newborn is 0. `layer_by_layer`: see `Replacement`. Call it without gradients.
    """
    check_bias(bias)
    forgetting = () if keep_state else optimizers
    prepared = [r.removal if r.removal is not None and r.removal.ready(r.index, forgetting) else None for r in renewals]
    for renewal, removal in zip(renewals, prepared, strict=True):
        if removal is None or not removal.hand_over(renewal.index, renewal.means):
            _hand_over_all(renewal)
    pairs = list(zip(renewals, prepared, strict=True))
    for part in [[pair] for pair in pairs] if layer_by_layer else [pairs]:
        for renewal, _ in part:
            _draw(renewal, generator, bias)
        for renewal, removal in part:
            if removal is not None:
                removal.erase(renewal.index)
            else:
                _erase(renewal, forgetting)


def _erase(renewal: Renewal, optimizers: Sequence[Optimizer]) -> None:
    """Put to 0 what a newborn begins with at 0, and forget the optimizers' state of its entries."""
    units, index = renewal.units, renewal.index
    read = [slot for slots in units.read for slot in slots]
    for slot in read:
        slot.tensor().index_fill_(slot.dim, slot.entries(index), 0.0)
    for slot in (*units.made, *units.normed, *read):
        forget_(optimizers, slot.tensor(), slot.dim, slot.entries(index))


def _hand_over_all(renewal: Renewal) -> None:
    """Give every reader what it loses on average."""
    units = renewal.units
    for reader, slots, mean in zip(units.outgoing, units.read, renewal.means or (), strict=bool(renewal.means)):
        if mean is not None:
            _hand_over(reader, slots, renewal.index, mean)


def _hand_over(reader: Reader, slots: Sequence[Slot], index: Tensor, mean: Tensor) -> None:
    """bias += sum over removed units (and kernel positions, on average over output positions) of w_out * mean.

    Without a bias the running mean of a batch norm right behind the reader goes down by as much; without either,
    nothing takes it over.
    """
    axes = axes_of(reader.module)
    for slot in slots:
        name = axes.bias.get(slot.name) if axes else None
        bias = reader.module._parameters.get(name) if name else None
        if bias is None and name:
            bias = getattr(reader.module, name, None)
        if bias is None:
            target, sign = getattr(reader.centre, "running_mean", None), -1.0
        else:
            target, sign = bias, 1.0
        if target is None:
            continue
        columns = slot.tensor().index_select(slot.dim, slot.entries(index))
        if columns.ndim == 2 and mean.ndim == reader.block == 1:
            value = moved(mean.index_select(0, index), columns)
            share = columns @ value if slot.dim == 1 else value @ columns
        elif isinstance(reader.module, nn.modules.conv._ConvNd) and (mean.ndim > 1 or reader.module.transposed):
            share = _mean_of_conv(reader.module, columns, mean.index_select(0, index))
        else:
            columns = columns.movedim(slot.dim, 0)
            columns = columns.flatten(2).sum(2) if columns.ndim > 2 else columns
            share = mean.view(-1, reader.block).index_select(0, index).reshape(-1).to(columns.dtype) @ columns
        target.add_(share, alpha=sign)


def _mean_of_conv(conv: Any, weight: Tensor, maps: Tensor) -> Tensor:
    """Mean over positions of the convolution of mean maps [k, *space]: exact, borders and stride included.

    A transposed one without maps (numbers [k], the same everywhere) gives each output its share of the kernel, on
    average one entry in `stride`.
    """
    maps = maps.to(weight.dtype)
    if not conv.transposed:
        made = conv._conv_forward(maps[None], weight, None)
    elif maps.ndim > 1:
        dims = len(conv.kernel_size)
        functions: Any = (
            nn.functional.conv_transpose1d,
            nn.functional.conv_transpose2d,
            nn.functional.conv_transpose3d,
        )
        more = {"output_padding": conv.output_padding, "dilation": conv.dilation}
        made = functions[dims - 1](maps[None], weight, None, conv.stride, conv.padding, **more)
    else:
        return maps @ weight.flatten(2).sum(2) / math.prod(conv.stride)
    return made.flatten(2).mean(2)[0]


def _draw(renewal: Renewal, generator: torch.Generator, bias: str) -> None:
    draw = birth_of(renewal.birth)
    given: dict[int, Tensor] = {}  # module -> biases that came with the weights
    for slot in renewal.units.made:
        tensor, entries = slot.tensor(), slot.entries(renewal.index)
        weight = tensor.movedim(slot.dim, 0) if slot.dim else tensor
        if tensor.ndim > 1:
            inputs = renewal.inputs[renewal.units.incoming.index(slot.owner)] if renewal.inputs else None
            birth = _birth(slot, weight, entries, generator, renewal, inputs)
            drawn = draw(birth)
            rows, biases = drawn if isinstance(drawn, tuple) else (drawn, None)
            if rows.shape != birth.shape:
                raise ValueError(
                    f"birth {renewal.birth!r} gave weights of shape {tuple(rows.shape)}, not {birth.shape}"
                )
            if biases is not None:
                given[id(slot.owner)] = biases
        elif id(slot.owner) in given:
            rows = given[id(slot.owner)]
        elif bias == "zero":
            tensor.index_fill_(0, entries, 0.0)
            continue
        else:
            birth = _birth(slot, weight, entries, generator, renewal, None)
            rows = birth.uniform(birth.bound)
        weight.index_copy_(0, entries, moved(rows, tensor))
    for slot in renewal.units.normed:
        slot.start_(renewal.index)


def _birth(
    slot: Slot, weight: Tensor, entries: Tensor, generator: torch.Generator, renewal: Renewal, inputs: Tensor | None
) -> Birth:
    matrix = weight if weight.ndim > 1 else _matrix(slot.owner, renewal.units)
    fan_in, kernel = math.prod(matrix.shape[1:]), math.prod(matrix.shape[2:])
    axes = axes_of(slot.owner)
    bound = axes.bound(slot.owner) if axes and axes.bound else fan_in**-0.5
    module: Any = slot.owner
    names = ("stride", "padding", "dilation") if weight.ndim > 2 else ()
    return Birth(
        shape=(entries.numel(), *weight.shape[1:]),
        fan_in=fan_in,
        fan_out=renewal.units.width * kernel,
        bound=bound,
        weight=weight,
        index=entries,
        generator=generator,
        inputs=inputs,
        present_bias=getattr(module, "bias", None) if weight.ndim > 1 else None,
        **{name: getattr(module, name) for name in names if hasattr(module, name)},
    )


def _matrix(module: nn.Module, units: Units) -> Tensor:
    """A layer's in-weights, unit dim first, for what is drawn by their size."""
    slots = (slot for slot in units.made if slot.owner is module)
    return next(t.movedim(slot.dim, 0) for slot in slots if (t := slot.tensor()).ndim > 1)


def _as_list(optimizer: Optimizer | Sequence[Optimizer] | None) -> list[Optimizer]:
    if optimizer is None:
        return []
    return [optimizer] if isinstance(optimizer, Optimizer) else list(optimizer)
