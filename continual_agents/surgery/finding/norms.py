"""Which tensors of a norm have an entry for every unit, and what a newborn's starts from; `register_norm`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

START: dict[str, float] = {"weight": 1.0, "bias": 0.0, "running_mean": 0.0, "running_var": 1.0}
"""Per-unit tensors of torch's own norms -> the value a newborn's entry starts from."""


@dataclass(frozen=True)
class NormKind:
    """What surgery knows about a kind of norm.

    Attributes:
        start: tensor name -> the value a newborn's entry starts from.
        mixes: whether a unit's normalised value depends on the other units'.
    """

    start: Mapping[str, float]
    mixes: bool


NORMS: dict[type[nn.Module], NormKind] = {
    nn.modules.batchnorm._NormBase: NormKind(START, mixes=False),  # batch and instance norm, all dims
    nn.LayerNorm: NormKind(START, mixes=True),
    nn.GroupNorm: NormKind(START, mixes=True),
    nn.RMSNorm: NormKind(START, mixes=True),
}


def norm_of(module: nn.Module) -> NormKind | None:
    """The `NormKind` of a module by its class or the nearest registered base class; None for whatever is no norm.

    A norm that goes its own way inside (a subclass with a `forward` of its own, say norm and activation in one) is
    not one of torch's any more: it is looked into.
    """
    for kind in type(module).__mro__:
        if kind in NORMS:
            own = kind.__module__.startswith("torch.nn") and not _forward_is_torchs(module)
            return None if own else NORMS[kind]
    if isinstance(module, nn.PReLU) and module.num_parameters > 1:
        return NormKind({"weight": 0.25}, mixes=False)  # one slope per unit
    return None


def register_norm(layer: type[nn.Module], start: Mapping[str, float], *, mixes: bool = True) -> None:
    """Teach surgery a norm of your own: a layer with one entry per unit in some vectors, which it does not mix.

    Args:
        layer: the class; subclasses are covered too.
        start: tensor name -> the value a newborn's entry starts from: 1 for a gain, 0 for an offset.
        mixes: whether a unit's normalised value depends on the other units' (layer norm: yes, batch norm: no). Then the
            readers behind it keep their mean only roughly, which `print(units)` says.

    Raises:
        TypeError: `layer` is not a Module class, or a start is not a number.
        ValueError: `start` is empty.

    Example:
        >>> register_norm(LlamaRMSNorm, {"weight": 1.0})
    """
    if not (isinstance(layer, type) and issubclass(layer, nn.Module)):
        raise TypeError(f"register_norm() wants a subclass of torch.nn.Module, got {layer!r}")
    if not start:
        raise ValueError(
            f"register_norm({layer.__name__}): start is empty: name the per-unit tensors, {{'weight': 1.0}}"
        )
    for name, value in start.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(f"register_norm({layer.__name__}): the start of {name!r} must be a number, got {value!r}")
    NORMS[layer] = NormKind({name: float(value) for name, value in start.items()}, mixes)


def _forward_is_torchs(module: nn.Module) -> bool:
    owner = next(kind for kind in type(module).__mro__ if "forward" in vars(kind))
    return owner.__module__.startswith("torch.nn")
