"""What a step without replacement does, in one call of C."""

from __future__ import annotations

import ctypes

from torch import Tensor

from . import kernels
from .row import Row


class QuietStep:
    """Sums of |w|, scores, and the step of every running average towards them.

    Addresses are prepared; weights that have moved are noticed.

    Args:
        library: from `kernels.library_for`, for all these tensors.
        state, row: of `Running`; they must not move.
        activity: the score has it as a factor.
        pace: of the running averages.
    """

    def __init__(self, library: kernels.Library, state: Tensor, row: Row, *, activity: bool, pace: float) -> None:
        self._library, self._kept = library, (state, row)
        # the last weights first: large ones that the optimizer has just written are still in the cache
        wired = [(wire, place, bool(i)) for wires, place in reversed(row.wired) for i, wire in enumerate(wires)]
        sums = [kernels.absolute_sum(wire.weight(), wire.slot.dim, place, more=more) for wire, place, more in wired]
        self._weights = [(wire.slot, kernels.layout(wire.weight())) for wire, _, _ in wired]
        self._sums = (kernels.Sum * len(sums))(*sums)
        values = len(row.values)
        self._averages = kernels.Averages(
            state=state.data_ptr(),
            fresh=row.fresh.data_ptr(),
            activity=row.activity.data_ptr() if activity else None,
            out=row.sums["out"].data_ptr() if "out" in row.sums else None,
            incoming=row.sums["incoming"].data_ptr() if "incoming" in row.sums else None,
            units=len(row.scores),
            values=values,
            ones=len(state) - values,
            pace=pace,
        )
        self._arguments = ctypes.addressof(self._sums), len(sums), ctypes.addressof(self._averages)

    @classmethod
    def of(cls, state: Tensor, row: Row, *, activity: bool, pace: float) -> QuietStep | None:
        """None where C cannot take such a step."""
        wires = [wire for own, _ in row.wired for wire in own]
        library = kernels.library_for((state, *(wire.weight() for wire in wires)))
        if library is None or not all(w.whole and w.weight().shape[w.slot.dim] == w.width for w in wires):
            return None
        return cls(library, state, row, activity=activity, pace=pace)

    def __call__(self, samples: int) -> bool:
        """Take the step, with the sums of so many samples for means (0: means). False: nothing was done, as weights
        are not where they were."""
        for slot, layout in self._weights:
            if kernels.layout(slot.tensor()) != layout:
                return False
        self._averages.samples = samples
        self._library.follow(*self._arguments)
        return True

    def __reduce__(self) -> tuple:  # addresses mean nothing in a copy, which prepares its own
        return type(None), ()
