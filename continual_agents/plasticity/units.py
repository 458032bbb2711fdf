"""Which hidden units have stopped computing: dead, saturated, dormant."""

from collections.abc import Callable

import torch
from torch import Tensor

FLAT: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": lambda h: h == 0,
    "tanh": lambda h: h.abs() > 0.9,
    "sigmoid": lambda h: (h < 0.1) | (h > 0.9),
}
"""Where each kind of activation is flat, so that (almost) no gradient passes."""


def saturation(activations: Tensor, kind: str = "relu") -> Tensor:
    """Fraction of the evaluation batch on which each unit sits on a flat part of its activation function.

    ReLU: `h == 0`; tanh: `|h| > 0.9`; sigmoid: `h < 0.1` or `h > 0.9` (Dohare et al., arXiv 2306.13812, section 5).

    Args:
        activations: outputs after the activation function, `[..., batch, width]`.
        kind: "relu", "tanh" or "sigmoid".

    Returns:
        `[..., width]`, each in [0, 1].

    Raises:
        ValueError: another `kind`, or an empty batch.
    """
    if kind not in FLAT:
        raise ValueError(f"kind={kind!r}: saturation is defined for {sorted(FLAT)}")
    check_batch(activations)
    return FLAT[kind](activations).to(torch.get_default_dtype()).mean(-2)


def dead_units(activations: Tensor, kind: str = "relu") -> Tensor:
    """Units that are flat on the *whole* evaluation batch: the ReLU is 0 everywhere, the tanh saturated everywhere.

    A mask; `dead_units(h).float().mean(-1)` is the published fraction (Nature 632:768, 2024, Methods).

    Args:
        activations: `[..., batch, width]`.
        kind: as in `saturation`.

    Returns:
        Boolean mask `[..., width]`.
    """
    return saturation(activations, kind) == 1


def dormancy_scores(activations: Tensor) -> Tensor:
    """ReDo's score: mean |h| of a unit over the batch, divided by the layer's mean of that (Sokar et al. 2023, eq. 1).

    The scores of a layer average 1. A layer whose every unit is 0 has score 0 throughout.

    Args:
        activations: `[..., batch, width]`.

    Returns:
        Scores `[..., width]`, at least 0.
    """
    check_batch(activations)
    magnitude = activations.abs().mean(-2)
    layer = magnitude.mean(-1, keepdim=True)
    # where all are 0 a quotient would be nan, and a dead layer look as if nothing were known of it
    return torch.where(layer > 0, magnitude / layer.clamp_min(torch.finfo(layer.dtype).tiny), magnitude)


def dormant_units(activations: Tensor, threshold: float = 0.025) -> Tensor:
    """Units whose ReDo score is at or under `threshold` (Sokar et al. 2023, definition 3.1).

    Args:
        activations: `[..., batch, width]`.
        threshold: tau, a fraction of the layer's mean; .025 when measuring, .1 when ReDo itself recycles.

    Returns:
        Boolean mask `[..., width]`.
    """
    if threshold < 0:
        raise ValueError(f"threshold={threshold}: a fraction of the layer's mean, at least 0")
    return dormancy_scores(activations) <= threshold


def check_batch(activations: Tensor) -> None:
    """Refuse what is not a floating `[..., batch, width]` with at least one example and one unit."""
    if activations.dim() < 2 or 0 in activations.shape[-2:]:
        raise ValueError(
            f"activations of shape {tuple(activations.shape)}: expected [..., batch, width] with at least one of each"
        )
    if not activations.is_floating_point():
        raise TypeError(f"activations are {activations.dtype}: expected a floating-point tensor")
