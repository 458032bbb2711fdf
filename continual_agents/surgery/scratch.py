"""Memory that is used again: fresh temporaries of 128 kB and more cost page faults, several times the arithmetic."""

from __future__ import annotations

import torch
from torch import Tensor


class Scratch:
    """One buffer per device and type, as large as the largest request; valid until the next one."""

    def __init__(self) -> None:
        self._buffers: dict[tuple[torch.device, torch.dtype], Tensor] = {}
        self._places: dict[int, Tensor] = {}
        self._views: dict[tuple[torch.device, torch.dtype, torch.Size], Tensor] = {}

    def like(self, tensor: Tensor) -> Tensor:
        """An uninitialised contiguous tensor of the same shape, type and device."""
        key = (tensor.device, tensor.dtype, tensor.shape)
        view = self._views.get(key)
        if view is None:
            buffer = self._buffers.get(key[:2])
            if buffer is None or buffer.numel() < tensor.numel():
                buffer = torch.empty(tensor.numel(), dtype=tensor.dtype, device=tensor.device)
                self._buffers[key[:2]] = buffer
                self._views = {k: v for k, v in self._views.items() if k[:2] != key[:2]}
            if len(self._views) > 64:  # shapes that never come back
                self._views.clear()
            view = self._views[key] = buffer[: tensor.numel()].view(tensor.shape)
        return view

    def at(self, place: int, tensor: Tensor) -> Tensor:
        """A buffer of its own for `place`, of the same shape, type and device; it is not disturbed by other places."""
        kept = self._places.get(place)
        if kept is None or kept.shape != tensor.shape or kept.dtype != tensor.dtype or kept.device != tensor.device:
            kept = self._places[place] = torch.empty_like(tensor, requires_grad=False)
        return kept

    def __deepcopy__(self, memo: dict) -> Scratch:
        return Scratch()
