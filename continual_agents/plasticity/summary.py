"""All diagnostics of a network at once, under the names that tables and TensorBoard use."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from .magnitudes import feature_norm, weight_magnitude
from .ranks import (
    abs_approximate_rank_of,
    approximate_rank_of,
    effective_rank_of,
    singular_values,
    stable_rank_of,
)
from .units import FLAT, dead_units, dormant_units

RANKS = {
    "effective_rank": effective_rank_of,
    "approximate_rank": approximate_rank_of,
    "abs_approximate_rank": abs_approximate_rank_of,
    "stable_rank": stable_rank_of,
}


def summarise(
    activations: Mapping[str, Tensor],
    weights: Mapping[str, Tensor] | None = None,
    *,
    kinds: Mapping[str, str] | None = None,
) -> dict[str, Tensor]:
    """Diagnostics of every hidden layer, and of the network as a whole.

    Args:
        activations: layer name -> outputs on one evaluation batch, `[..., batch, width]`; leading dims count runs.
        weights: name -> weight tensor `[..., *shape]` with the same leading dims; output layers may be among them.
        kinds: layer name -> "relu", "tanh" or "sigmoid": what counts as dead (see `saturation`); "relu" if not named.

    Returns:
        `plasticity/<measure>/<name>` for each layer or weight and `plasticity/<measure>` for the network, each
        `[...]`: `dead_units` and `dormant_units` are fractions (of all hidden units, for the network), the four ranks
        and `feature_norm` are averaged over layers, `weight_magnitude` over all entries of all weights.

    Raises:
        ValueError: no layer at all.
    """
    if not activations:
        raise ValueError("no hidden layer given: there is nothing to diagnose")
    kinds = kinds or {}
    result: dict[str, dict[str, Tensor]] = {}
    widths = {name: h.shape[-1] for name, h in activations.items()}
    for name, h in activations.items():
        kind = kinds.get(name, "relu")
        dead = dead_units(h, kind if kind in FLAT else "relu")
        singular = singular_values(h)
        layer = {
            "dead_units": dead.double().mean(-1),
            "dormant_units": dormant_units(h).double().mean(-1),
            **{measure: rank(singular) for measure, rank in RANKS.items()},
            "feature_norm": feature_norm(h),
        }
        for measure, value in layer.items():
            result.setdefault(measure, {})[name] = value
    summary = {f"plasticity/{measure}": _whole(measure, layers, widths) for measure, layers in result.items()}
    summary |= {f"plasticity/{m}/{name}": value for m, layers in result.items() for name, value in layers.items()}
    if weights:
        runs_dims = next(iter(activations.values())).dim() - 2
        summary["plasticity/weight_magnitude"] = weight_magnitude(weights.values(), runs_dims=runs_dims)
        for name, weight in weights.items():
            summary[f"plasticity/weight_magnitude/{name}"] = weight_magnitude(weight, runs_dims=runs_dims)
    return summary


def _whole(measure: str, layers: Mapping[str, Tensor], widths: Mapping[str, int]) -> Tensor:
    """The network's value: fractions count every unit the same, ranks and norms every layer."""
    values = torch.stack(list(layers.values()))
    share = torch.tensor([widths[name] if measure.endswith("_units") else 1 for name in layers], dtype=torch.float64)
    share = (share / share.sum()).to(values)
    return torch.tensordot(share, values, dims=1)
