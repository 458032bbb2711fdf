"""A network with a memory: `Linear -> activation -> GRU -> Linear`."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence, pad_packed_sequence

from .activations import activation_of
from .mlp import linear


class RecurrentBody(nn.Sequential):
    """A GRU between two linear layers (Cho et al. 2014).

    Args:
        inputs: size of the input.
        outputs: size of the output.
        hidden: width of the first layer and of the GRU.
        activation: a key of `ACTIVATIONS`, of the first layer.
        init: distribution of the linear layers' initial weights, a key of `INITS`; the GRU's are PyTorch's own.
        generator: source of the initial weights.

    Raises:
        ValueError: not two widths, or an unknown activation.
    """

    embed: nn.Linear
    activation: nn.Module
    memory: nn.GRU
    head: nn.Linear

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        hidden: Sequence[int] = (64, 64),
        activation: str = "relu",
        init: str = "lecun_uniform",
        generator: torch.Generator,
    ):
        if len(hidden) != 2:
            raise ValueError(
                f"network.hidden={list(hidden)}: a recurrent network has two, the first layer's and the GRU's"
            )
        act = activation_of(activation)
        embed, head = linear(inputs, hidden[0], init, generator), linear(hidden[1], outputs, init, generator)
        # by way of the meta device: nn.GRU's own initialisation would draw from the global generator
        memory = nn.GRU(act.outputs * hidden[0], hidden[1], batch_first=True, device="meta").to_empty(device="cpu")
        with torch.no_grad():
            for parameter in memory.parameters():
                parameter.uniform_(-(hidden[1] ** -0.5), hidden[1] ** -0.5, generator=generator)
        super().__init__(OrderedDict(embed=embed, activation=act.module(), memory=memory, head=head))
        self.width = hidden[1]

    def forward(self, observation: Tensor) -> Tensor:
        """Outputs `[..., time, outputs]` for sequences `[..., time, inputs]` that begin without a memory."""
        features, _ = self.memory(self.activation(self.embed(observation)))
        return self.head(features)

    def unroll(self, observation: Tensor, state: Tensor, first: Tensor) -> Tensor:
        """The GRU's outputs `[rows, time, width]`, forgetting at every beginning of an episode.

        Args:
            observation: `[rows, time, inputs]`.
            state: memory before the first step, `[rows, width]`.
            first: whether a step is the first of its episode, bool `[rows, time]`.
        """
        rows, time = first.shape
        starts = first.clone()
        starts[:, 0] = True
        at = starts.flatten().nonzero().squeeze(1)
        lengths = torch.diff(at, append=at.new_tensor([rows * time]))
        before = torch.where(first.flatten()[at, None], 0.0, state[at // time])
        pieces = self.activation(self.embed(observation)).flatten(0, 1).split(lengths.tolist())
        # packed: what is watched of it are the steps that there were
        packed, _ = self.memory(pack_sequence(pieces, enforce_sorted=False), before[None])
        padded, _ = pad_packed_sequence(packed, batch_first=True)
        there = torch.arange(padded.shape[1]) < lengths[:, None]
        return padded[there].view(rows, time, self.width)

    def step(self, observation: Tensor, state: Tensor) -> Tensor:
        """The memory after one step, `[..., width]`, of observations `[..., inputs]` and the memory before."""
        memory = self.memory
        weights: Any = (memory.weight_ih_l0, memory.weight_hh_l0, memory.bias_ih_l0, memory.bias_hh_l0)
        seen = self.activation(self.embed(observation))
        after: Tensor = torch.gru_cell(seen.flatten(0, -2), state.flatten(0, -2), *weights)
        return after.view_as(state)
