"""What every replacement promises, checked on any network without asking surgery where anything lives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from continual_agents import surgery
from continual_agents.surgery.finding import axes_of


def tensors(value: Any) -> Iterator[Tensor]:
    """Every tensor in what a network returned."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from tensors(list(value.values()))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors(item)


def rows(value: Tensor, axis: int) -> Tensor:
    """Samples and positions [n, size of dim `axis`]."""
    return value.movedim(axis, -1).reshape(-1, value.shape[axis])


def heard(units: surgery.Units, run: Callable[[], Any]) -> dict[int, list[Tensor]]:
    """What each reader was given in one pass, by its place in `units.outgoing`."""
    seen: dict[int, list[Tensor]] = {}
    handles = []
    for i, reader in enumerate(units.outgoing):
        if not reader.recurrent:

            def keep(module: nn.Module, args: tuple, kwargs: dict, i: int = i) -> None:
                given = args[0] if args else next(iter(kwargs.values()))
                seen.setdefault(i, []).append(given.detach().clone())

            handles.append(reader.module.register_forward_pre_hook(keep, with_kwargs=True))
    run()
    for handle in handles:
        handle.remove()
    return seen


def mean_input(reader: surgery.Reader, width: int, given: Tensor) -> Tensor:
    """Mean of the units' share of a reader's input: [width * block], or a map [width, *space] for a convolution."""
    axis = axes_of(reader.module).read_axis
    share = given.narrow(axis, reader.start, width * reader.block)
    if axis == -1:
        return rows(share, -1).mean(0)
    return share.mean(0) if share.ndim > -axis else share


def check(net: nn.Module, units: surgery.Units, gone: list[int], run: Callable[[], Any], optimizer: Any = None) -> None:
    """Replace units and see: parameters are the same objects; every reader's output keeps its mean on what it got;
    the output does not depend on what the newborns are (the leak test)."""
    with torch.no_grad():
        given = heard(units, run)
        once = {i: seen[0] for i, seen in given.items() if len(seen) == 1}  # cells in a loop are their own test
        readers = dict(enumerate(units.outgoing))
        means = [mean_input(r, units.width, once[i]) if i in once else None for i, r in readers.items()]
        old = {i: _output_mean(readers[i], once[i]) for i in once}
        behind = {i: getattr(readers[i].centre, "running_mean", torch.zeros(1)).clone() for i in once}
        parameters = {name: id(p) for name, p in net.named_parameters()}

        surgery.replace_(units, gone, optimizer, means=means, generator=torch.Generator().manual_seed(3))

        assert parameters == {name: id(p) for name, p in net.named_parameters()}
        for i, mean in old.items():
            if units.takes_mean(readers[i]) and mean is not None:
                moved = _output_mean(readers[i], once[i]) - mean
                moved -= getattr(readers[i].centre, "running_mean", torch.zeros(1)) - behind[i]
                stays = [k for k in range(len(moved)) if k not in gone or readers[i].module not in units.incoming]
                torch.testing.assert_close(moved[stays], torch.zeros_like(moved[stays]), rtol=0, atol=_tolerance(moved))
        if not any("depend on each other" in note for note in units.notes):
            before = [value.clone() for value in tensors(run())]
            for slot in units.made:
                entries = slot.entries(torch.tensor(gone, device=slot.tensor().device))
                part = slot.tensor().index_select(slot.dim, entries)
                own = _own_columns(units, slot, gone, part)
                part = torch.where(own, part, torch.randn_like(part))
                slot.tensor().index_copy_(slot.dim, entries, part)
            for value, was in zip(tensors(run()), before, strict=True):
                torch.testing.assert_close(value, was, rtol=0, atol=_tolerance(was), msg=lambda m: f"leak: {m}")


def _tolerance(value: Tensor) -> float:
    return 1e-9 if value.dtype == torch.float64 else 1e-4


def _own_columns(units: surgery.Units, slot: Any, gone: list[int], part: Tensor) -> Tensor:
    """Entries of in-weights that are out-weights too (from one unit of a group to another): they stay 0."""
    mask = torch.zeros_like(part, dtype=torch.bool)
    for slots in units.read:
        for read in slots:
            if read.owner is slot.owner and read.name == slot.name:
                mask.index_fill_(read.dim, read.entries(torch.tensor(gone, device=part.device)), True)
    return mask


def _output_mean(reader: surgery.Reader, given: Tensor) -> Tensor | None:
    """Mean of the reader's output over samples and positions: [outputs]; None where it is no linear map."""
    module = reader.module
    if isinstance(module, (nn.RNNBase, nn.RNNCellBase)):
        return None
    return rows(module(given), axes_of(module).axis).mean(0)
