"""Watch the units of a layer in training passes: per-unit statistics, reduced inside the forward hook."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch._compile import _disable_dynamo  # torch.compiler.disable would load torch._dynamo here: a second of CPU
from torch.utils.hooks import RemovableHandle

from . import kernels
from .finding import Reader, axes_of
from .hooks import Hook
from .scratch import Scratch

_OF_ONE = frozenset(("activity", "deviation"))
"""Statistics that follow from the mean when there is one sample."""

_OF_POSITIVE = frozenset(("activity",))
"""Statistics that follow from the mean when no sample is negative."""


class Watch:
    """Forward hooks on the readers of one tensor of units (or on their recurrent layer's output).

    There is a hook on every reader, since any of them may be left out of a pass (one head of several); a tensor that
    several read in one pass is recorded once. Recorded are passes that build a graph alone, and no activation is kept:
    `torch.compile` may reuse the memory of one that a hook holds on to. A copied or pickled module carries an inert
    copy of the hook.

    Args:
        readers: whose input is the units' output.
        width: units.
        wants: statistics to record besides the mean: any of activity, deviation, sensitivity, firing.
        centre: mean of this pass [width] -> bias-corrected running mean [width], for the deviation.
        scratch: shared memory for temporaries.
        overdue: called when `LIMIT` passes were recorded and nobody took them, and at every `LIMIT` from then on.

    Statistics: `mean`, one per input of the reader: [width * block], for conv layers the mean map [width, *space]; the
    others [width], averaged over batch and positions. Several passes before one optimizer step (gradient
    accumulation) are averaged by their sample counts.

    Attributes:
        in_place: one pass was recorded since the last `take`, and its mean stands there.
        lone: that pass was of one sample, which is its mean: other statistics follow from it when they are asked for.
        due: what stands there is still the sum of so many samples, since one division serves several watches. 0: done.
    """

    LIMIT = 16

    def __init__(
        self,
        readers: Sequence[Reader],
        width: int,
        wants: frozenset[str],
        centre: Callable[[Tensor], Tensor] | None = None,
        scratch: Scratch | None = None,
        overdue: Callable[[], None] | None = None,
    ) -> None:
        self.reader, self.width, self.wants, self.centre = readers[0], width, wants, centre
        axes = axes_of(self.reader.module)
        assert axes is not None  # Units has checked it
        self.axis = axes.axis if self.reader.recurrent else axes.read_axis
        self.size = width * self.reader.block
        self.active = True
        self.samples = 0  # of what was taken last
        self.aim(None)
        self.in_place = self.lone = False
        self.due = 0
        self.scratch = Scratch() if scratch is None else scratch
        self.overdue = overdue
        self._records: list[tuple[int, dict[str, Tensor]]] = []
        self._gradients: list[tuple[int, Tensor]] = []
        self._several = len(readers) > 1
        self._latest: weakref.ref[Tensor] | None = None
        self._handles: list[RemovableHandle] = []
        for reader in readers:
            hook = Hook(self, output=reader.recurrent)
            if reader.recurrent:
                self._handles.append(reader.module.register_forward_hook(hook))
            else:
                self._handles.append(reader.module.register_forward_pre_hook(hook, with_kwargs=True))

    def close(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self.clear()

    def aim(self, place: Tensor | None) -> None:
        """Put the mean of the first pass of a step there, if it has that shape; None: into memory of its own."""
        self._place = place
        self._library = None if place is None else kernels.library_for((place,))

    @property
    def recorded(self) -> bool:
        """Whether there was a training pass since the last `take`."""
        return bool(self._records)

    def clear(self) -> None:
        """Forget what was recorded."""
        self._records.clear()
        self._gradients.clear()
        self._latest, self.in_place, self.lone, self.due = None, False, False, 0

    def _condense(self) -> None:
        """Many passes without a step, as in an evaluation that builds graphs: keep their average alone."""
        self._records = [self._average_record()]
        if self._gradients:
            self._gradients = [(sum(count for count, _ in self._gradients), average(self._gradients))]
        if self.overdue is not None:
            self.overdue()

    def take(self) -> dict[str, Tensor] | None:
        """The statistics since the last call, or None if there was no training pass."""
        if not self._records:
            return None
        self.settle()
        if len(self._records) > 1:
            self._records = [self._average_record()]
        self.samples, statistics = self._records[0]
        if self._gradients:
            statistics["sensitivity"] = average(self._gradients)
        self.clear()
        return statistics

    def _average_record(self) -> tuple[int, dict[str, Tensor]]:
        # what a watch is asked for may have changed between two passes
        names = [n for n in self._records[0][1] if all(n in record for _, record in self._records)]
        total = sum(count for count, _ in self._records)
        return total, {n: average([(count, record[n]) for count, record in self._records]) for n in names}

    def record(self, value: Tensor) -> None:
        """Reduce one activation tensor to per-unit statistics and keep those."""
        if self._several:
            if self._latest is not None and self._latest() is value:
                return
            self._latest = weakref.ref(value)
        place = self._place
        if place is None or self._records or value.dtype != place.dtype or value.device != place.device:
            self._record_more(value)
            return
        h, shape = value, value.shape
        if len(shape) != 2 or shape[1] != self.size:
            h = self._share(value.detach())
            shape = h.shape
        self.in_place = shape[1:] == place.shape
        flat = self.in_place and len(shape) == 2
        self.lone = flat and shape[0] == 1 and self.wants <= _OF_ONE
        if self.lone or (flat and (not self.wants or (self.reader.positive and self.wants <= _OF_POSITIVE))):
            if self._library is not None and type(h) is Tensor and h.is_contiguous():
                self._library.sum_of_rows(h.data_ptr(), *shape, place.data_ptr())
            else:  # of a single sample: a copy
                torch.sum(h.detach(), 0, out=place)
            self._records.append((shape[0], {"mean": place}))
            self.due = 0 if self.lone else shape[0]
        else:
            self._reduce(value, h.detach(), place if self.in_place else None)

    def _record_more(self, value: Tensor) -> None:
        """Where there is no place for the mean, or it holds the first pass's."""
        self.settle()
        self.in_place = False
        if len(self._records) == self.LIMIT:
            self._condense()
        self._reduce(value, self._share(value.detach()))

    @torch.no_grad()
    def settle(self) -> None:
        """Get what was put off: the first pass's mean from its sum, and the statistics that follow from it."""
        if not (self.lone or self.due):
            return
        mean = self._records[0][1]["mean"]
        if self.due:
            mean.div_(self.due)
        self._records[0][1].update(self._statistics(mean.unsqueeze(0), mean))
        self.lone, self.due = False, 0

    def _reduce(self, value: Tensor, h: Tensor, place: Tensor | None = None) -> None:
        dtype = h.dtype if h.dtype in (torch.float32, torch.float64) else torch.float32
        mean = h.mean(0, dtype=dtype).contiguous() if place is None else torch.mean(h, 0, out=place)
        self._records.append((h.numel() // self.size, self._statistics(h, mean)))
        if "sensitivity" in self.wants and value.requires_grad:
            value.register_hook(lambda gradient: self._record_gradient(value, gradient))

    def _statistics(self, h: Tensor, mean: Tensor) -> dict[str, Tensor]:
        dtype = mean.dtype
        statistics = {"mean": mean}
        if "activity" in self.wants:
            if self.reader.positive:
                statistics["activity"] = self._flat(mean)
            else:
                statistics["activity"] = self._per_unit(torch.abs(h, out=self._scratch(h)), dtype)
        if "firing" in self.wants:
            statistics["firing"] = (h > 0).any(0).view(self.width, -1).any(1).to(dtype)
        if "deviation" in self.wants and self.centre is not None:
            centre = self.centre(self._flat(mean))
            if self.reader.block > 1:
                centre = centre.repeat_interleave(self.reader.block)
            centre = centre.to(h.dtype).view(-1, *[1] * (h.ndim - 2))
            statistics["deviation"] = self._per_unit(torch.sub(h, centre, out=self._scratch(h)).abs_(), dtype)
        return statistics

    def record_compiled(self, value: Tensor) -> None:
        """As `record`, inside a compiled graph; hooks on gradients have to stay outside and break it. A number of
        records that is looked at would recompile the network."""
        if "sensitivity" in self.wants:
            self._record_outside(value)
        else:
            self._reduce(value, self._share(value.detach()))

    @_disable_dynamo
    def _record_outside(self, value: Tensor) -> None:
        self.record(value)

    @torch.no_grad()
    def _record_gradient(self, value: Tensor, gradient: Tensor) -> None:
        product = self._share((value.detach() * gradient).abs())
        self._gradients.append((product.numel() // self.size, self._per_unit(product, product.dtype)))

    def _share(self, h: Tensor) -> Tensor:
        """The units' part: [samples, width * block], where positions of a sequence are samples; [batch, width, *space]
        in conv layers."""
        if h.shape[self.axis] != self.size:
            h = h.narrow(self.axis, self.reader.start, self.size)
        if self.axis == -1:
            return h if h.ndim == 2 else h.reshape(-1, self.size)
        return h if h.ndim > -self.axis else h.unsqueeze(0)

    def _flat(self, mean: Tensor) -> Tensor:
        """One number per unit of a mean per input, or of a mean map (also one of a single position)."""
        return mean.view(self.width) if mean.numel() == self.width else mean.view(self.width, -1).mean(1)

    def _scratch(self, h: Tensor) -> Tensor | None:
        return None if torch.compiler.is_compiling() else self.scratch.like(h)

    def _per_unit(self, h: Tensor, dtype: torch.dtype) -> Tensor:
        """Mean over all but the units."""
        if h.ndim > 2:
            return h.mean([0, *range(2, h.ndim)], dtype=dtype)
        values = h.mean(0, dtype=dtype)
        return values if self.reader.block == 1 else values.view(self.width, -1).mean(1)


def average(parts: list[tuple[int, Tensor]]) -> Tensor:
    """Mean of statistics, each with the number of samples that it is of."""
    if len({value.shape for _, value in parts}) > 1:  # mean maps of different sizes: only the units are common
        parts = [(count, value.flatten(1).mean(1)) for count, value in parts]
    total = sum(count for count, _ in parts)
    result = parts[0][1] * (parts[0][0] / total)
    for count, value in parts[1:]:
        result = result + value * (count / total)
    return result
