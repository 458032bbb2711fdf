"""Arrays that went through a checkpoint come back as tensors."""

import numpy as np
import torch


def array_of(value: np.ndarray | torch.Tensor) -> np.ndarray:
    """A NumPy array of one's own from what a state holds."""
    return value.cpu().numpy().copy() if isinstance(value, torch.Tensor) else np.array(value)
