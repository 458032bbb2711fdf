"""Many fully connected networks as one: every tensor has a leading runs dim, forward and backward are written by hand.

Each run of a stack gets bit for bit what it gets alone (eager, CPU, float32). That rests on three choices, each kept by
a test: a run's matrix product never depends on where in memory the run lies (so widths are padded to a multiple of 4,
16 bytes, wherever the BLAS library is used); functions whose last entries round otherwise than the rest are avoided
(`derivatives.py`); no sum runs over the runs dim.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from continual_agents.networks import activation_of, norm_of
from continual_agents.networks.norms import NormOfRuns

from ..networks import Mlp
from .derivatives import derivative_of

PAD = 4
"""Widths are multiples of this many entries (16 bytes of float32)."""

ROW = 16
"""The same for native code: rows of a layer are whole vectors."""

RECENT = 64
"""Latest examples of a run that are kept where somebody asks for them."""

SMALL = 400
"""Below this many products per run PyTorch multiplies with its own loop, not BLAS, and needs no padding."""


class StackedLayer:
    """One linear layer of every run: weights and biases in one tensor, so that an optimizer touches one.

    Attributes:
        full: `[runs, inputs + 1, padded outputs]`; the last row is the bias, padding stays 0.
        weight: view `[runs, inputs, outputs]`.
        bias: view `[runs, outputs]`.
        wide_weight, wide_bias: the same with padding, `[runs, inputs, padded]` and `[runs, 1, padded]`.
    """

    def __init__(
        self, runs: int, inputs: int, outputs: int, *, pad: int, rows: bool, device: torch.device, dtype: torch.dtype
    ):
        self.inputs, self.outputs = inputs, outputs
        padded = -(-outputs // pad) * pad
        self.extra = padded - outputs
        if pad == 1 and outputs < inputs and not rows:
            # PyTorch's own loops are fastest along the longer dim
            self.full = torch.zeros(runs, padded, inputs + 1, device=device, dtype=dtype).transpose(1, 2)
        else:
            self.full = torch.zeros(runs, inputs + 1, padded, device=device, dtype=dtype)
        self.view()

    def view(self) -> None:
        """Make the views of `full`."""
        self.wide_weight, self.wide_bias = self.full[:, :-1], self.full[:, -1:]
        self.weight, self.bias = self.wide_weight[..., : self.outputs], self.wide_bias[:, 0, : self.outputs]

    def __call__(self, h: Tensor) -> Tensor:
        """`[runs, batch, inputs]` to `[runs, batch, outputs]`."""
        z = torch.baddbmm(self.wide_bias, h, self.wide_weight)
        return z[..., : self.outputs] if self.extra else z

    def back(self, delta: Tensor) -> Tensor:
        """Gradient of the layer's input from that of its padded output."""
        across = self.wide_weight.transpose(1, 2)
        return delta * across if across.shape[1] == 1 else torch.bmm(delta, across)

    def widen(self, delta: Tensor) -> Tensor:
        """Append the padding to a gradient `[runs, batch, outputs]`."""
        return functional.pad(delta, (0, self.extra)) if self.extra else delta


class StackedMlp:
    """R networks of one description.

    Args:
        network: their common shape.
        seeds: one per run; run r starts from the weights that `network.initial(seeds[r])` gives.
        batch: examples per gradient step.
        device: where everything lives.
        dtype: float32, or float64 in tests.
        rows: lay every layer out in rows of whole vectors, as native code reads wide ones.

    Attributes:
        layers: the linear layers.
        norms: normalisation after each hidden layer, or None.
        inputs: of each linear layer in the last `forward`, `[runs, batch, width]`.
        recent: the latest examples, `[runs, n, inputs]`, from `remember()` on; else None.
        frozen: pairs of networks that are not trained; the first one's output is added, the second one's taken away.
        sensitivities: gradients of the hidden layers' outputs in the last `backward`, `[runs, batch, width]`.
        deltas: gradients of the linear layers' outputs there, with padding.
    """

    def __init__(
        self,
        network: Mlp,
        seeds: Sequence[int],
        *,
        batch: int = 1,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        rows: bool = False,
    ):
        self.network, self.seeds, self.batch = network, list(seeds), batch
        self.device, self.dtype = torch.device(device), dtype
        self.activation, self.derivative = activation_of(network.activation), derivative_of(network.activation)
        norm = norm_of(network.norm)
        runs = len(self.seeds)
        self.layers = [
            StackedLayer(
                runs,
                inputs,
                outputs,
                pad=ROW if rows else PAD if batch * inputs * outputs >= SMALL else 1,
                rows=rows,
                device=self.device,
                dtype=dtype,
            )
            for inputs, outputs in network.shapes
        ]
        self.norms: list[NormOfRuns | None] = [
            norm.runs(runs, width, device=device, dtype=dtype) if norm is not None else None for width in network.hidden
        ]
        self.rows = rows
        self.frozen: list[tuple[StackedMlp, StackedMlp]] = []
        self.inputs: list[Tensor] = []
        self.recent: Tensor | None = None
        self.sensitivities: list[Tensor] = []
        self.deltas: list[Tensor] = []
        self._before: list[Tensor] = []
        self._norm_caches: list[tuple[Tensor, ...]] = []
        self._masks: Sequence[Tensor] | None = None
        self.draw(range(runs), start=0)

    @property
    def runs(self) -> int:
        """Number of runs."""
        return len(self.seeds)

    @property
    def tensors(self) -> list[Tensor]:
        """Everything that is trained, one tensor per layer and per norm."""
        return [layer.full for layer in self.layers] + [norm.affine for norm in self.norms if norm is not None]

    def draw(self, runs: Sequence[int], *, start: int, layers: Sequence[int] | None = None) -> None:
        """Draw these runs' initial weights (all layers, or some), biases 0."""
        for run in runs:
            weights = self.network.initial(self.seeds[run], start=start)
            for number in layers if layers is not None else range(len(self.layers)):
                self.layers[number].full[run].zero_()  # the bias too
                self.layers[number].weight[run].copy_(weights[number].T)
        if layers is None:
            for norm in self.norms:
                if norm is not None:
                    norm.reset(list(runs))

    def forward(self, x: Tensor, *, masks: Sequence[Tensor] | None = None) -> Tensor:
        """A training pass that keeps what `backward` needs.

        Args:
            x: `[runs, batch, inputs]`.
            masks: dropout masks of the hidden layers, `[runs, batch, width]`, already divided by the share kept.

        Returns:
            `[runs, batch, outputs]`.
        """
        h = x
        self.inputs, self._before, self._norm_caches, self._masks = [x], [], [], masks
        for number, (layer, norm) in enumerate(zip(self.layers, self.norms, strict=False)):
            z = layer(h)
            if norm is not None:
                z, cache = norm.forward(z, training=True)
                self._norm_caches.append(cache)
            h = self.derivative.forward(z)
            if masks is not None:
                h = h * masks[number]
            self._before.append(z)
            self.inputs.append(h)
        return self._output(self.layers[-1](h), x)

    def _output(self, own: Tensor, x: Tensor) -> Tensor:
        # at the injection what is trained equals `new`, so the sum is what it was
        for old, new in self.frozen:
            own = own + (old._pass(x) - new._pass(x))
        return own

    def _pass(self, x: Tensor) -> Tensor:
        """Outputs as in training, bit for bit, but nothing is kept or moves."""
        h = x
        for layer, norm in zip(self.layers, self.norms, strict=False):
            z = layer(h)
            h = self.derivative.forward(norm.forward(z, training=False)[0] if norm is not None else z)
        return self.layers[-1](h)

    def twin(self) -> StackedMlp:
        """A copy that nothing trains."""
        twin = StackedMlp(
            self.network, self.seeds, batch=self.batch, device=self.device, dtype=self.dtype, rows=self.rows
        )
        twin.load_state_dict({**self.state_dict(), "frozen": []})
        return twin

    def backward(self, delta: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Gradients from that of the output.

        Args:
            delta: `[runs, batch, outputs]`.

        Returns:
            The gradient of each linear layer's output, `[runs, batch, padded outputs]`, and that of each norm's gain
            and offset, `[runs, 2, width]`. A weight's gradient is `inputs^T @ delta`; it is not formed here.
        """
        deltas = [self.layers[-1].widen(delta)]
        affines: list[Tensor] = []
        self.sensitivities = []
        for number in reversed(range(len(self.norms))):
            d = self.layers[number + 1].back(deltas[0])
            self.sensitivities.insert(0, d)
            z, h = self._before[number], self.inputs[number + 1]
            if self._masks is not None:
                mask = self._masks[number]
                d = d * mask
                h = self.derivative.forward(
                    z
                )  # what was kept is masked already, and derivatives are told by the output
            d = self.derivative.backward(d, z, h)
            norm = self.norms[number]
            if norm is not None:
                d, affine = norm.backward(d, self._norm_caches[number])
                affines.insert(0, affine)
            deltas.insert(0, self.layers[number].widen(d))
        self.deltas = deltas
        return deltas, affines

    def evaluate(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """An evaluation pass: no dropout, nothing moves.

        Args:
            x: `[runs, examples, inputs]`.

        Returns:
            Outputs `[runs, examples, outputs]` and the hidden layers' outputs by name.
        """
        h, hidden = x, {}
        for number, (layer, norm) in enumerate(zip(self.layers, self.norms, strict=False)):
            z = torch.baddbmm(layer.bias[:, None], h, layer.weight)
            if norm is not None:
                z, _ = norm.forward(z, training=False)
            h = self.derivative.forward(z)
            hidden[f"hidden_{number}"] = h
        return self._output(torch.baddbmm(self.layers[-1].bias[:, None], h, self.layers[-1].weight), x), hidden

    def remember(self) -> None:
        """Keep the latest examples from now on."""
        self.recent = torch.empty(self.runs, 0, self.network.inputs, device=self.device, dtype=self.dtype)

    def see(self, x: Tensor) -> None:
        """Examples `[steps, runs, batch, inputs]` that were learned from."""
        if self.recent is not None:
            latest = x[-RECENT:].transpose(0, 1).flatten(1, 2).to(self.dtype)
            self.recent = torch.cat([self.recent, latest], 1)[:, -RECENT:]

    def recent_inputs(self) -> list[Tensor] | None:
        """What each layer reads of the latest examples, `[runs, n, inputs]` each; None where they are not kept."""
        if self.recent is None:
            return None
        return [self.recent, *self.evaluate(self.recent)[1].values()]

    def state_dict(self) -> dict[str, list]:
        """Weights, gains, running statistics, and the examples that are kept."""
        return {
            "recent": [] if self.recent is None else [self.recent.clone()],
            "tensors": [tensor.clone() for tensor in self.tensors],
            "norms": [{k: v.clone() for k, v in norm.state().items()} for norm in self.norms if norm is not None],
            "frozen": [[one.state_dict() for one in pair] for pair in self.frozen],
        }

    def load_state_dict(self, state: dict[str, list]) -> None:
        """Continue from `state_dict()`, in place."""
        for tensor, stored in zip(self.tensors, state["tensors"], strict=True):
            tensor.copy_(stored)
        for norm, part in zip([n for n in self.norms if n is not None], state["norms"], strict=True):
            for name, tensor in norm.state().items():
                tensor.copy_(part[name])
        if self.recent is not None:
            (self.recent,) = (recent.to(self.device) for recent in state["recent"])
        for number, pair in enumerate(state["frozen"]):
            if number == len(self.frozen):
                self.frozen.append((self.twin(), self.twin()))
            for one, stored in zip(self.frozen[number], pair, strict=True):
                one.load_state_dict(stored)
