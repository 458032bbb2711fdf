"""A stack of runs as what the operations of `continual_agents.methods` act on."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from continual_agents.methods import Layer, Target

from ..draws import Draw, torch_draws
from .network import StackedMlp
from .optimizers import StackedOptimizer

BLOCK = 8192
"""Random numbers that a run draws at once, at least one step's."""


class StackTarget(Target):
    """Implements `continual_agents.methods.Target`; every draw follows from a run's seed, as everywhere in streams.

    Args:
        stack: the networks.
        optimizer: what trains them.
    """

    def __init__(self, stack: StackedMlp, optimizer: StackedOptimizer):
        self.stack, self.optimizer = stack, optimizer
        self._block: tuple[int, list[Tensor]] | None = None
        self.listeners = []

    def per_run(self, values: Sequence[float]) -> Tensor:
        """A setting of each run, as the operations' formulas read it."""
        return torch.tensor(values, device=self.stack.device, dtype=self.stack.dtype).view(-1, 1, 1)

    @property
    def networks(self) -> list[list[Layer]]:
        """The one network that all runs share the shape of."""
        return [
            [
                Layer(f"layer_{number}", layer.weight.transpose(1, 2), layer.bias[..., None])
                for number, layer in enumerate(self.stack.layers)
            ]
        ]

    @property
    def tensors(self) -> list[Tensor]:
        """Layers with their biases as last row, then norms; without padding."""
        layers = [layer.full[..., : layer.outputs] for layer in self.stack.layers]
        return layers + [norm.affine for norm in self.stack.norms if norm is not None]

    def add_noise_(self, scale: Any, number: int) -> None:
        """As the protocol; the `number`-th draw of every run is the same however often it is asked for."""
        tensors = self.tensors
        sizes = [tensor[0].numel() for tensor in tensors]
        length = max(1, BLOCK // sum(sizes))
        block, place = divmod(number, length)
        if self._block is None or self._block[0] != block:
            draws = [
                torch.randn(length, sum(sizes), generator=torch_draws(seed, Draw.NOISE, block))
                for seed in self.stack.seeds
            ]
            parts = torch.stack(draws).to(self.stack.device, self.stack.dtype).split(sizes, -1)
            self._block = (block, list(parts))
        for tensor, part in zip(tensors, self._block[1], strict=True):
            tensor.addcmul_(part[:, place].view_as(tensor), scale)

    def born_as(self, birth: str | None) -> None:
        """As the protocol.

        Raises:
            ValueError: anything but None.
        """
        if birth is not None:
            raise ValueError(f"birth={birth!r}: a stack draws new weights as the network began, give birth=null")

    def each(self, value: float) -> np.ndarray:
        """As the protocol, `[runs]`."""
        return np.full(self.stack.runs, float(value))

    def fresh(self, index: int) -> list[Tensor]:
        """As the protocol."""
        drawn = [torch.zeros_like(layer.full[..., : layer.outputs]) for layer in self.stack.layers]
        for run, seed in enumerate(self.stack.seeds):
            for tensor, weight in zip(drawn, self.stack.network.initial(seed, start=index), strict=True):
                tensor[run, :-1].copy_(weight.T)
        norms = [torch.zeros_like(norm.affine) for norm in self.stack.norms if norm is not None]
        for affine in norms:
            affine[:, 0] = 1.0
        return drawn + norms

    def draw_(self, last: int | None, index: int) -> None:
        """As the protocol."""
        self.stack.draw(range(self.stack.runs), start=index, layers=self._numbers(last))

    def forget(self, last: int | None) -> None:
        """As the protocol."""
        self.optimizer.restart(range(self.stack.runs), self._numbers(last))

    def _numbers(self, last: int | None) -> list[int] | None:
        return None if last is None else list(range(len(self.stack.layers)))[-last:]

    def inject(self, index: int) -> None:
        """As the protocol: the stack adds the frozen pairs to its outputs."""
        old = self.stack.twin()
        self.draw_(None, index)
        self.stack.frozen.append((old, self.stack.twin()))

    def sums(self, tensors: Sequence[Tensor]) -> np.ndarray:
        """As the protocol, `[runs]`."""
        total: np.ndarray = sum(tensor.double().flatten(1).sum(1) for tensor in tensors).cpu().numpy()  # type: ignore[union-attr]
        return total

    def state_dict(self) -> dict[str, Any]:
        """Nothing: draws follow from seeds, and what is frozen is the stack's."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Draws follow from the number of the step."""
        self._block = None
