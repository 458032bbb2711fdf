"""Weight clipping."""

from .operation import Operation, in_range
from .target import Setting, Target, last_layers


class WeightClipping(Operation):
    """Keep every weight and bias in `[-b, b]`, `b = bound / sqrt(fan_in)` (Elsayed et al. 2024).

    Weights that cannot grow leave no unit saturated and keep gradients from vanishing or exploding.

    Args:
        target: the networks, output layers included.
        bound: multiple of PyTorch's own initial bound `1 / sqrt(fan_in)`, > 0; the paper's 1 to 5.
    """

    def __init__(self, target: Target, *, bound: Setting = 1.0):
        super().__init__(target)
        in_range("weight_clipping.bound", bound, 1e-30, what="a positive multiple of 1 / sqrt(fan_in) is needed")
        self.bound = bound

    def act(self, index: int) -> None:
        """Clip once."""
        for layer in last_layers(self.target, None):
            most = self.bound / layer.weight.shape[-1] ** 0.5
            for tensor in (layer.weight, layer.bias):
                if tensor is not None:
                    tensor.clamp_(-most, most)
