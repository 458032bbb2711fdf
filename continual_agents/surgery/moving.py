"""Numbers drawn on the CPU on their way to a GPU."""

from __future__ import annotations

from torch import Tensor


def moved(drawn: Tensor, like: Tensor) -> Tensor:
    """`drawn` on the device and of the type of `like`, without the host waiting for the device.

    A copy from ordinary memory waits until the GPU has done all its work; one from page-locked memory is queued.
    """
    if drawn.dtype == like.dtype and drawn.device == like.device:
        return drawn
    drawn = drawn.to(like.dtype)
    if like.is_cuda and not drawn.is_cuda:
        return drawn.pin_memory().to(like.device, non_blocking=True)
    return drawn.to(like.device)
