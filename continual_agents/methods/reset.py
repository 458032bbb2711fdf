"""Resets: the output layer, the last layers, or everything begins anew."""

from typing import Any

from .operation import Operation
from .target import Target, last_layers

RESETS = {"head": 1, "last": 2, "all": None}
"""How many of a network's last layers that is."""


class Reset(Operation):
    """Reset layers at every change of the task, or every `period` steps (Nikishin et al. 2022; D'Oro et al. 2023).

    `head`: the output layer of each network becomes 0. `last`: its last two layers are drawn anew. `all`: every layer
    is drawn anew and everything else that is trained (a norm's gain, a policy's log-deviation) is what it was at first:
    a *fresh* network, which has lost nothing and kept nothing. The optimizer forgets what is reset.

    Args:
        target: the networks.
        layers: one of `RESETS`.
        keep_momentum: leave the optimizer's state alone, as the published ImageNet code does.
        birth: distribution of the new weights, a name that `surgery.BIRTHS` knows; None: as the network began.

    Raises:
        ValueError: an unknown part of the network or distribution.
    """

    remembers = ("resets",)
    period = None
    at_task = True

    def __init__(self, target: Target, *, layers: str = "head", keep_momentum: bool = False, birth: str | None = None):
        super().__init__(target)
        if layers not in RESETS:
            raise ValueError(f"reset.layers={layers!r}: head, last or all")
        target.born_as(birth)
        self.layers, self.keep_momentum, self.resets = layers, keep_momentum, 0

    def act(self, index: int) -> None:
        """Reset."""
        last = RESETS[self.layers]
        if self.layers == "head":
            for layer in last_layers(self.target, 1):
                layer.weight.zero_()
                if layer.bias is not None:
                    layer.bias.zero_()
        else:
            self.target.draw_(last, index)
        if not self.keep_momentum:
            self.target.forget(last)
        self.resets += 1
        if last is None:
            self.target.restarted()

    def report(self) -> dict[str, Any]:
        """How often it has acted."""
        return {"resets": self.target.each(self.resets)}
