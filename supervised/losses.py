"""Losses of the streams, with their gradients written out, and what is measured under each."""

import torch
from torch import Tensor


class CrossEntropy:
    """Cross-entropy of a softmax, averaged over the batch; measured by accuracy."""

    measured_as = "accuracy"

    @staticmethod
    def prepare(y: Tensor, outputs: int, dtype: torch.dtype) -> Tensor:
        """Classes as one-hot rows; `functional.one_hot` would wait for the device."""
        return torch.zeros(*y.shape, outputs, device=y.device, dtype=dtype).scatter_(-1, y[..., None], 1.0)

    @staticmethod
    def gradient(output: Tensor, target: Tensor) -> Tensor:
        """dL/d output `[runs, batch, outputs]`."""
        difference = output.softmax(-1).sub_(target)
        # at batch 1, of which streams have millions of steps, the division is a kernel for nothing
        return difference if output.shape[1] == 1 else difference.div_(output.shape[1])

    @staticmethod
    def measure(output: Tensor, y: Tensor) -> Tensor:
        """Share of right classes, `[..., runs, batch, outputs]` to `[..., runs]`."""
        return (output.argmax(-1) == y).to(torch.float32).mean(-1)


class SquaredError:
    """`(output - target)^2`, averaged over batch and outputs as `functional.mse_loss` does."""

    measured_as = "squared_error"

    @staticmethod
    def prepare(y: Tensor, outputs: int, dtype: torch.dtype) -> Tensor:
        """Targets as they are."""
        return y.to(dtype)

    @staticmethod
    def gradient(output: Tensor, target: Tensor) -> Tensor:
        """dL/d output `[runs, batch, outputs]`."""
        return (output - target).mul_(2 / (output.shape[1] * output.shape[2]))

    @staticmethod
    def measure(output: Tensor, y: Tensor) -> Tensor:
        """Squared error, `[..., runs, batch, outputs]` to `[..., runs]`."""
        return (output - y).square().mean((-1, -2))


LOSSES: dict[str, type[CrossEntropy] | type[SquaredError]] = {
    "cross_entropy": CrossEntropy,
    "squared_error": SquaredError,
}
"""Losses by name."""
