"""Does a companion still look after what the optimizer trains and the network computes? What can be told, cheaply."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from .finding import Slot, Units, whole

REMEDY = "companion.refind(surgery.find(net)) goes on with the network as it is now"


class Standing:
    """What some units hang on: modules in their network, parameters in their modules, their being trained.

    Users replace heads, freeze layers and make new optimizers; nothing tells a companion. Everything is noted as
    (dict, key, what is there), so that looking again costs a few lookups.

    Args:
        units: under watch.
        optimizers: that train them.
    """

    def __init__(self, units: Sequence[Units], optimizers: Sequence[Optimizer]) -> None:
        self.modules: list[tuple[Mapping[str, Any], str, nn.Module, Units]] = []
        self.parameters: list[tuple[Mapping[str, Any], nn.Parameter, bool, bool, Slot, Units]] = []
        self.optimizers = optimizers
        trained = trained_by(optimizers)
        names: dict[int, dict[int, str]] = {}
        for u in units:
            if u.network is not None and id(u.network) not in names:
                names[id(u.network)] = {id(module): name for name, module in u.network.named_modules()}
            for module in {id(m): m for m in (*u.incoming, *(reader.module for reader in u.outgoing))}.values():
                path = names.get(id(u.network), {}).get(id(module), "")
                self.modules += [(*edge, u) for edge in _way(u.network, path)]
            for slot in (*u.made, *(slot for slots in u.read for slot in slots)):
                parameter = slot.owner._parameters.get(slot.name)
                if parameter is not None:
                    known = (parameter.requires_grad, id(whole(parameter)) in trained)
                    self.parameters.append((slot.owner._parameters, parameter, *known, slot, u))

    def check(self, *, optimizers: bool = True) -> None:
        """Look again.

        Args:
            optimizers: also whether they still train the parameters, which is a longer look.

        Raises:
            RuntimeError: something is gone, was replaced or frozen, naming it and the remedy.
        """
        for there, key, module, units in self.modules:
            if there.get(key) is not module:
                raise RuntimeError(f"units {units.name!r}: {key} is no longer in the network, or another one: {REMEDY}")
        trained = trained_by(self.optimizers) if optimizers else set()
        for there, parameter, learned, was_trained, slot, units in self.parameters:
            if there.get(slot.name) is not parameter:
                raise RuntimeError(f"{_name(units, slot)} is another Parameter now: {REMEDY}")
            if learned and not parameter.requires_grad:
                raise RuntimeError(
                    f"{_name(units, slot)} was frozen (requires_grad=False): {REMEDY} and leaves out what is frozen"
                )
            if optimizers and was_trained and id(whole(parameter)) not in trained:
                raise RuntimeError(
                    f"{_name(units, slot)} is no longer trained by the companion's optimizer: companion.optimizers = "
                    "[...] names those that train the network now"
                )


def _name(units: Units, slot: Slot) -> str:
    return f"units {units.name!r}: {slot.name} of {type(slot.owner).__name__}"


def trained_by(optimizers: Iterable[Optimizer]) -> set[int]:
    """Ids of the parameters that these optimizers train."""
    return {id(p) for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]}


def check_trained(units: Sequence[Units], optimizers: Sequence[Optimizer]) -> None:
    """Raise unless there are units, with names of their own, trained by optimizers that surgery can work beside."""
    if not units:
        raise ValueError("no units to look after: surgery.find(net) prints what it found and why not")
    names = [u.name for u in units]
    if len(set(names)) < len(names):
        raise ValueError(f"units need names of their own, got {names}")
    for optimizer in optimizers:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"surgery needs a torch.optim.Optimizer, got {type(optimizer).__name__}")
        if isinstance(optimizer, torch.optim.LBFGS):
            raise TypeError("LBFGS keeps no state per weight that could be forgotten; surgery cannot work beside it")
    trained = trained_by(optimizers)
    for u in units:
        if not any(id(whole(slot.tensor())) in trained for slot in u.made):
            raise ValueError(
                f"the optimizer trains none of the layers that make units {u.name!r}: was it made for a copy of the "
                "network, for its head alone, or before the parameters were replaced?"
            )


def _way(network: nn.Module | None, path: str) -> list[tuple[Mapping[str, Any], str, nn.Module]]:
    """From the network to a module inside it: (children, name, child); empty where the network is not known."""
    way: list[tuple[Mapping[str, Any], str, nn.Module]] = []
    for name in path.split(".") if path and network is not None else ():
        assert network is not None
        child = network._modules[name]
        assert child is not None
        way.append((network._modules, name, child))
        network = child
    return way
