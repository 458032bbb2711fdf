"""The diagnostics, a row each: how one is measured, what it is called, where it is shown.

`summarise` and `Probe` compute every row, tables have a column `plasticity/NAME` for each, and `shown` says who else
looks: TensorBoard's overview ("chart", under the row's `chart`), the figures' panels ("figure") and the table of first
against last tasks ("table"). A diagnostic of your own is a function and a row, `add_measure(Measure(...))`, before the
run is built.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor

from .magnitudes import feature_norm, weight_magnitude
from .ranks import abs_approximate_rank_of, approximate_rank_of, effective_rank_of, singular_values, stable_rank_of
from .units import FLAT, dead_units, dormant_units

Place = Literal["chart", "figure", "table"]


@dataclasses.dataclass(frozen=True)
class Layer:
    """What a diagnostic may look at.

    Attributes:
        activations: outputs of one hidden layer on the evaluation batch, `[..., batch, width]`; leading dims are runs.
        kind: "relu", "tanh" or "sigmoid": what counts as flat, see `saturation`.
    """

    activations: Tensor
    kind: str = "relu"

    @functools.cached_property
    def singular(self) -> Tensor:
        """Singular values of the activations, computed once for all the ranks."""
        return singular_values(self.activations)


@dataclasses.dataclass(frozen=True)
class Measure:
    """One diagnostic.

    Attributes:
        name: the column is `plasticity/NAME`.
        of: hidden layer -> its value `[...]`; None for `weight_magnitude`, which is taken from the weights.
        title: above a figure's panel.
        heading: of the column in `tools.diagnose`.
        meaning: one line for the documentation.
        of_units: a fraction of units: shown in per cent, and the network's value counts every unit the same (of other
            measures every layer).
        shown: where besides the tables.
        chart: name of its chart in TensorBoard's overview; rows of the same name share one.
        scaled: how `glance/NAME` brings it to a scale around 1: over its largest or its first value so far, or as it
            is; None leaves it out.
    """

    name: str
    of: Callable[[Layer], Tensor] | None
    title: str
    heading: str
    meaning: str
    of_units: bool = False
    shown: tuple[Place, ...] = ()
    chart: str = ""
    scaled: Literal["largest", "first", "as it is"] | None = None

    @property
    def column(self) -> str:
        """Of the tables, and the curve's tag."""
        return f"plasticity/{self.name}"

    @property
    def factor(self) -> float:
        """What figures multiply it with."""
        return 100.0 if self.of_units else 1.0

    def text(self, value: float) -> str:
        """The value as `tools.diagnose` prints it."""
        return f"{self.factor * value:.1f}%" if self.of_units else f"{value:.3g}"


def _dead(layer: Layer) -> Tensor:
    return dead_units(layer.activations, layer.kind if layer.kind in FLAT else "relu").double().mean(-1)


MEASURES: dict[str, Measure] = {
    row.name: row
    for row in (
        Measure(
            "dead_units", _dead, "dead units (%)", "dead", "flat on the whole evaluation batch",
            of_units=True, shown=("chart", "figure", "table"), chart="dead and dormant units", scaled="as it is",
        ),
        Measure(
            "dormant_units", lambda layer: dormant_units(layer.activations).double().mean(-1), "dormant units (%)",
            "dormant", "mean activity at most .025 of the layer's (ReDo's score)",
            of_units=True, shown=("chart",), chart="dead and dormant units",
        ),
        Measure(
            "effective_rank", lambda layer: effective_rank_of(layer.singular), "effective rank", "effective rank",
            "exp of the entropy of the normalised singular values",
            shown=("chart", "figure", "table"), chart="effective rank", scaled="largest",
        ),
        Measure(
            "approximate_rank", lambda layer: approximate_rank_of(layer.singular), "approximate rank",
            "approximate rank", "least number of singular values that hold 99% of the squared sum",
        ),
        Measure(
            "abs_approximate_rank", lambda layer: abs_approximate_rank_of(layer.singular), "abs. approximate rank",
            "abs. approx. rank", "least number of singular values that hold 99% of their plain sum",
        ),
        Measure(
            "stable_rank", lambda layer: stable_rank_of(layer.singular), "stable rank", "stable rank",
            "squared sum of the singular values over the largest square",
        ),
        Measure(
            "feature_norm", lambda layer: feature_norm(layer.activations), "feature norm", "feature norm",
            "mean Euclidean norm of the feature vector",
        ),
        Measure(
            "weight_magnitude", None, "mean |weight|", "weight magnitude", "mean absolute value of all weights",
            shown=("chart", "figure", "table"), chart="weight magnitude", scaled="first",
        ),
    )
}  # fmt: skip
"""All of them, in the order of the tables' columns."""


def add_measure(measure: Measure) -> None:
    """Take a diagnostic of your own in; from now on it is computed, written and shown like the others.

    Raises:
        ValueError: there is one of that name, or it has no function.
    """
    if measure.name in MEASURES:
        raise ValueError(f"there is a measure {measure.name!r} already: give yours another name")
    if measure.of is None:
        raise ValueError(f"measure {measure.name!r} has no function of a layer: give of=...")
    MEASURES[measure.name] = measure


def shown(place: Place) -> list[Measure]:
    """The rows that are shown there."""
    return [measure for measure in MEASURES.values() if place in measure.shown]


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
        `[...]`, for every row of `MEASURES`: fractions of units are of all hidden units, for the network; the
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
