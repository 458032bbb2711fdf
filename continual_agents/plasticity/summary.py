"""All diagnostics of a network at once, under the names that tables and TensorBoard use."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from .magnitudes import weight_magnitude
from .measures import MEASURES, Layer


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
        `[...]`, for every row of `measures.MEASURES`: fractions of units are of all hidden units, for the network; the
        others are averaged over layers, `weight_magnitude` over all entries of all weights.

    Raises:
        ValueError: no layer at all.
    """
    if not activations:
        raise ValueError("no hidden layer given: there is nothing to diagnose")
    kinds = kinds or {}
    result: dict[str, dict[str, Tensor]] = {}
    widths = {name: h.shape[-1] for name, h in activations.items()}
    for name, h in activations.items():
        layer = Layer(h, kinds.get(name, "relu"))
        for measure in MEASURES.values():
            if measure.of is not None:
                result.setdefault(measure.name, {})[name] = measure.of(layer)
    summary = {f"plasticity/{measure}": _whole(measure, layers, widths) for measure, layers in result.items()}
    summary |= {f"plasticity/{m}/{name}": value for m, layers in result.items() for name, value in layers.items()}
    if weights:
        runs_dims = next(iter(activations.values())).dim() - 2
        summary["plasticity/weight_magnitude"] = weight_magnitude(weights.values(), runs_dims=runs_dims)
        for name, weight in weights.items():
            summary[f"plasticity/weight_magnitude/{name}"] = weight_magnitude(weight, runs_dims=runs_dims)
    return summary


def _whole(measure: str, layers: Mapping[str, Tensor], widths: Mapping[str, int]) -> Tensor:
    """The network's value: fractions count every unit the same, other measures every layer."""
    values = torch.stack(list(layers.values()))
    share = torch.tensor([widths[name] if MEASURES[measure].of_units else 1 for name in layers], dtype=torch.float64)
    share = (share / share.sum()).to(values)
    return torch.tensordot(share, values, dims=1)
