"""Layers, or a whole network, drawn anew at every change of the task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from continual_agents.surgery.births import Birth, birth_of


class Reset:
    """Resets layers, and what the optimizer remembers of them, at every change of the task.

    `head`: the output layer of each network becomes 0. `last`: its last two layers are drawn anew. `all`: every layer
    is drawn anew and every other parameter that the optimizer trains (a norm's gain, a policy's log-deviation) is what
    it was at first: a *fresh* network, which has lost nothing and kept nothing.

    Args:
        modules: the networks.
        optimizer: trains them; what it remembers of a reset parameter is dropped.
        generator: source of the new weights.
        layers: head, last or all.
        keep_momentum: leave the optimizer's state alone, as the published ImageNet code does.
        birth: distribution of the new weights, a name that `surgery.BIRTHS` knows; biases are 0.

    Raises:
        ValueError: an unknown part of the network or distribution.
    """

    def __init__(
        self,
        modules: nn.Module | Mapping[str, nn.Module],
        optimizer: torch.optim.Optimizer,
        *,
        layers: str = "head",
        keep_momentum: bool = False,
        birth: str = "default",
        generator: torch.Generator,
    ):
        if layers not in ("head", "last", "all"):
            raise ValueError(f"reset.layers={layers!r}: head, last or all")
        self.draw = birth_of(birth)
        self.layers, self.optimizer, self.keep_momentum, self.generator = layers, optimizer, keep_momentum, generator
        parts = modules.values() if isinstance(modules, Mapping) else [modules]
        self.networks = [[m for m in part.modules() if _weight(m) is not None] for part in parts]
        drawn = {id(p) for network in self.networks for m in network for p in m.parameters(recurse=False)}
        trained = [p for group in optimizer.param_groups for p in group["params"] if id(p) not in drawn]
        self.others = [(p, p.detach().clone()) for p in trained] if layers == "all" else []
        self.resets = 0

    def step(self) -> None:
        """Nothing: it acts between tasks."""

    @torch.no_grad()
    def start_task(self) -> None:
        """Reset, before the first batch of a new task."""
        for network in self.networks:
            for layer in network[{"head": -1, "last": -2, "all": 0}[self.layers] :]:
                self._reset(layer)
        for parameter, initial in self.others:
            parameter.copy_(initial)
            self._forget(parameter)
        self.resets += 1

    def _reset(self, layer: nn.Module) -> None:
        weight = _weight(layer)
        assert weight is not None
        if self.layers == "head":
            weight.zero_()
        else:
            fan_in = weight[0].numel()
            fan_out = len(weight) * (weight[0, 0].numel() if weight.ndim > 2 else 1)
            index = torch.arange(len(weight), device=weight.device)
            born = self.draw(
                Birth(tuple(weight.shape), fan_in, fan_out, fan_in**-0.5, weight, index, generator=self.generator)
            )
            weight.copy_(born if isinstance(born, torch.Tensor) else born[0])
        for parameter in layer.parameters(recurse=False):
            if parameter is not weight:
                parameter.zero_()
            self._forget(parameter)

    def _forget(self, parameter: torch.Tensor) -> None:
        if not self.keep_momentum:
            self.optimizer.state.pop(parameter, None)

    def state_dict(self) -> dict[str, Any]:
        """Resets done, the generator, and what the parameters that are not drawn return to."""
        initial = [tensor.clone() for _, tensor in self.others]
        return {"resets": self.resets, "generator": self.generator.get_state(), "initial": initial}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict()`."""
        self.resets = state["resets"]
        self.generator.set_state(state["generator"])
        for (_, tensor), stored in zip(self.others, state["initial"], strict=True):
            tensor.copy_(stored)

    def report(self) -> dict[str, float]:
        """How often it has acted."""
        return {"resets": float(self.resets)}


def _weight(module: nn.Module) -> nn.Parameter | None:
    """The weight matrix or kernel of a layer; None for containers, norms and activations."""
    weight = getattr(module, "weight", None)
    return weight if isinstance(weight, nn.Parameter) and weight.ndim >= 2 else None
