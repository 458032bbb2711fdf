"""What a unit is worth: pure functions of activations, gradients and weights.

Shapes: every per-unit tensor is [..., width]; leading dims are independent runs. `|.|` are means over the batch, and
over positions in conv and sequence layers. Formulas: Dohare et al. 2021, 2024; Sokar et al. 2023 (dormancy).
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from . import kernels


def absolute_sum(weight: Tensor, dim: int | list[int]) -> Tensor:
    """Sum of |weight| over `dim`.

    A GPU reads the weights once, and nothing is written between; on a CPU torch's norm takes several times as long as
    the two calls.
    """
    return weight.abs().sum(dim) if weight.device.type == "cpu" else torch.linalg.vector_norm(weight, 1, dim)


def magnitude(weight: Tensor, dim: int, out: Tensor | None = None) -> Tensor:
    """Sum of |weight| over every dim but `dim`: how strongly the entries along `dim` are wired.

    Args:
        weight: of two dims at least.
        dim: the one that is kept.
        out: memory of the weight's type for the sums.
    """
    library = kernels.library_for((weight,))
    if library is None or (out is not None and len(out) != weight.shape[dim]):  # the latter torch refuses
        total = absolute_sum(weight, [d for d in range(weight.ndim) if d != dim % weight.ndim])
        return total if out is None else out.copy_(total)
    total = weight.new_empty(weight.shape[dim]) if out is None else out
    library.absolute_sums(ctypes.byref(kernels.absolute_sum(weight, dim, total)), 1)
    return total


def contribution(activity: Tensor, out: Tensor) -> Tensor:
    """mean|h| * sum|w_out|."""
    return activity * out


def mean_corrected_contribution(deviation: Tensor, out: Tensor) -> Tensor:
    """mean|h - f_hat| * sum|w_out|: what is lost after the mean was handed to the readers' biases."""
    return deviation * out


def adaptable_contribution(deviation: Tensor, out: Tensor, incoming: Tensor) -> Tensor:
    """mean|h - f_hat| * sum|w_out| / sum|w_in|: large in-weights make a unit slow to change."""
    return deviation * out / incoming


def weight(out: Tensor) -> Tensor:
    """sum|w_out|: the utility of generate-and-test (Mahmood and Sutton 2012)."""
    return out


def adaptation(incoming: Tensor) -> Tensor:
    """1 / sum|w_in|."""
    return 1 / incoming


def dormancy(activity: Tensor) -> Tensor:
    """ReDo's score: mean|h| over the layer's mean of it (0 in a layer that is silent altogether)."""
    mean = activity.mean(-1, keepdim=True)
    return torch.where(mean > 0, activity / mean, torch.zeros_like(activity))


def finite(utility: Tensor) -> Tensor:
    """The rule for broken scores, in place: a score that is NaN or infinite counts as 0, so the unit goes first."""
    return utility.nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)


@dataclass
class Signals:
    """What a utility may look at, each [width] and fresh from this step; those not asked for are None.

    Attributes:
        activity: mean|h|.
        deviation: mean|h - f_hat|, with f_hat the bias-corrected running mean of h.
        sensitivity: mean|h * dL/dh|, the first-order change of the loss if the unit were removed.
        out: sum|w_out| over every reader, after the optimizer's step.
        incoming: sum|w_in| over every layer that makes the units, biases left out.
        noise: uniform in [0, 1).
    """

    activity: Tensor | None = None
    deviation: Tensor | None = None
    sensitivity: Tensor | None = None
    out: Tensor | None = None
    incoming: Tensor | None = None
    noise: Tensor | None = None


@dataclass(frozen=True)
class Utility:
    """A utility and what it looks at.

    Args:
        score: Signals -> [width], larger is more useful, at least 0.
        needs: names of `Signals`; what is not named is not computed.
        elementwise: a unit's score depends on its own signals alone, so that several layers can be scored in one go.
        product: the score is the product of what it needs, `incoming` dividing.

    Example:
        >>> loud = Utility(lambda s: s.activity**2, needs=("activity",))
    """

    score: Callable[..., Tensor]
    needs: Sequence[str] = ("activity", "deviation", "out", "incoming")
    elementwise: bool = False
    product: bool = False

    def __post_init__(self) -> None:
        unknown = set(self.needs) - set(Signals.__dataclass_fields__)
        if unknown:
            raise ValueError(f"a utility cannot need {sorted(unknown)}: known are {list(Signals.__dataclass_fields__)}")


UTILITIES: dict[str, Utility] = {
    name: Utility(score, needs, elementwise=True, product=True)
    for name, score, needs in (
        ("contribution", lambda s: contribution(s.activity, s.out), ("activity", "out")),
        (
            "mean_corrected_contribution",
            lambda s: mean_corrected_contribution(s.deviation, s.out),
            ("deviation", "out"),
        ),
        (
            "adaptable_contribution",
            lambda s: adaptable_contribution(s.deviation, s.out, s.incoming),
            ("deviation", "out", "incoming"),
        ),
        ("weight", lambda s: weight(s.out), ("out",)),
        ("adaptation", lambda s: adaptation(s.incoming), ("incoming",)),
        ("random", lambda s: s.noise, ("noise",)),
        ("gradient", lambda s: s.sensitivity, ("sensitivity",)),
    )
}


def utility_of(choice: str | Utility | Callable[[Signals], Tensor]) -> Utility:
    """The `Utility` meant by a name, a Utility, or a function of `Signals`.

    Raises:
        ValueError: an unknown name, listing the known ones.
        TypeError: neither a name nor callable.
    """
    if isinstance(choice, Utility):
        return choice
    if isinstance(choice, str):
        if choice not in UTILITIES:
            raise ValueError(f"unknown utility {choice!r}: known are {', '.join(UTILITIES)}, or pass a function")
        return UTILITIES[choice]
    if callable(choice):
        return Utility(choice)
    raise TypeError(f"utility must be a name, a surgery.Utility or a function of surgery.Signals, got {choice!r}")
