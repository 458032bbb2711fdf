"""Keep the copies of a network on several processes the same through surgery."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

AVAILABLE = dist.is_available()


def several() -> bool:
    """Whether this process is one of several (torch.distributed is set up)."""
    return AVAILABLE and dist.is_initialized() and dist.get_world_size() > 1


def average_(tensors: Sequence[Tensor]) -> None:
    """Replace each tensor by its mean over the processes, in one message. Every process must call it."""
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(part.view(tensor.shape))


def share_generator_(generator: torch.Generator, device: torch.device) -> None:
    """Give every process the generator state of the first one."""
    state = generator.get_state().to(device)
    dist.broadcast(state, 0)
    generator.set_state(state.cpu())
