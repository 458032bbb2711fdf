"""How units are renewed: the settings that every companion takes, written down once."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch

from .births import Draw, birth_of
from .words import nearest

SEED = 1_812_433_253
"""Seed of the private generator: not one that a network is likely to have been initialised with, or the newborns
would be the first layer's initial units again."""

Init = TypeVar("Init", bound=Callable[..., None])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Replacement:
    """How units are renewed. Every companion takes these as keyword arguments of its own.

    Args:
        birth: how a new unit is drawn: a name in `surgery.BIRTHS` or a function of `surgery.Birth`.
        bias: of new units: "zero" or "initial" (PyTorch's own draw).
        transfer: hand removed units' mean contribution to their readers' biases.
        keep_optimizer_state: do not forget the optimizer's state of replaced entries (published RL results).
        layer_by_layer: renew one layer after the other, as public code does: what a newborn reads from a newborn of the
            layer before is then a draw, not 0.
        generator: source of every random draw; None: a private one with a fixed seed.

    Raises:
        ValueError, TypeError: an unknown birth or bias.
    """

    birth: str | Draw = "default"
    bias: str = "zero"
    transfer: bool = True
    keep_optimizer_state: bool = False
    layer_by_layer: bool = False
    generator: torch.Generator | None = None

    def __post_init__(self) -> None:
        birth_of(self.birth)
        check_bias(self.bias)

    @classmethod
    def of(cls, who: str, settings: dict[str, Any]) -> Replacement:
        """From the keyword arguments that constructor `who` was given besides its own.

        Raises:
            TypeError: an unknown one, with the nearest known.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        for name in settings:
            if name not in known:
                raise TypeError(f"{who}() has no argument {name!r}: {nearest(name, known)}")
        return cls(**settings)


def private() -> torch.Generator:
    """The generator of whoever brings none."""
    return torch.Generator().manual_seed(SEED)


def check_bias(bias: str) -> None:
    """Raise unless a bias of new units is known."""
    if bias not in ("zero", "initial"):
        raise ValueError(f"bias={bias!r}: 'zero' or 'initial'")


def takes_replacement(init: Init) -> Init:
    """Spell out what stands behind the `**` of a companion's constructor: `layers`, `distributed` and `Replacement`.

    Python 3.10 has no way to annotate such arguments one by one; `help()`, editors and whoever reads a constructor as
    a schema of settings see them this way, and they stand in one place.
    """
    signature = inspect.signature(init)
    own = [one for one in signature.parameters.values() if one.kind is not one.VAR_KEYWORD]
    named = {one.name for one in own}
    hints = {
        "layers": Mapping[str, Mapping[str, Any]] | None,
        "distributed": bool,
        **typing.get_type_hints(Replacement),
    }
    defaults = {
        "layers": None,
        "distributed": True,
        **{one.name: one.default for one in dataclasses.fields(Replacement)},
    }
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hints[name])
        for name, default in defaults.items()
        if name not in named
    ]
    init.__signature__ = signature.replace(parameters=[*own, *added])  # type: ignore[attr-defined]
    init.__annotations__ |= {one.name: one.annotation for one in added}
    return init
