"""SGD and Adam over a stack, with settings per run."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..draws import Draw, torch_draws
from .derivatives import sigmoid
from .network import StackedLayer, StackedMlp


class StackedOptimizer:
    """What SGD and Adam share: settings as tensors `[runs, 1, 1]`, and moments that surgery can forget.

    Args:
        stack: the networks.
        settings: one mapping per run: `step_size`, `weight_decay` (coupled L2), and what the kind takes.
    """

    draws = False
    """Whether a step draws random numbers, which no CUDA graph can repeat."""

    def __init__(self, stack: StackedMlp, settings: Sequence[Mapping[str, Any]]):
        self.stack = stack
        self.step_size = self._tensor(per_run(settings, "step_size"))
        decays = per_run(settings, "weight_decay", 0.0)
        self.weight_decay = self._tensor(decays)
        self.descent = -self.step_size
        self.per_unit = False  # whether surgery lets units be of different ages
        self.decays = any(decays)

    def _tensor(self, values: Sequence[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float64).to(self.stack.device, self.stack.dtype).view(-1, 1, 1)

    def step(self, deltas: Sequence[Tensor], affines: Sequence[Tensor]) -> None:
        """Update every layer and norm of the stack from its last forward pass.

        Args:
            deltas: gradients of the linear layers' outputs, from `StackedMlp.backward`.
            affines: gradients of the norms' gains and offsets.
        """
        raise NotImplementedError

    def moments(self, number: int) -> list[Tensor]:
        """State tensors shaped like `stack.tensors[number]`."""
        return []

    def form_(self, gradient: Tensor, number: int, deltas: Sequence[Tensor], affines: Sequence[Tensor]) -> None:
        """Write the gradient of `stack.tensors[number]` into `gradient`; `deltas` and `affines` as in `step`."""
        if number < len(deltas):
            add_outer_(gradient.zero_(), self.stack.inputs[number], deltas[number])
        else:
            gradient.copy_(affines[number - len(deltas)])

    def forget(self, number: int, runs: Tensor, *, units: Tensor | None = None, inputs: Tensor | None = None) -> None:
        """Zero the moments of newborn units: of those that tensor `number` makes, or those that it reads.

        Args:
            number: which tensor of `stack.tensors`.
            runs: `[n, 1]`.
            units: `[n, k]`, columns to forget.
            inputs: `[n, k]`, rows to forget.
        """
        for moment in self.moments(number):
            if units is not None:
                moment[runs, :, units] = 0.0
            if inputs is not None:
                moment[runs, inputs] = 0.0

    def restart(self, runs: Sequence[int], numbers: Sequence[int] | None = None) -> None:
        """Zero the moments of whole tensors (all of them if None) of these runs."""
        for number in numbers if numbers is not None else range(len(self.stack.tensors)):
            for moment in self.moments(number):
                moment[list(runs)] = 0.0

    def state_dict(self) -> dict[str, Any]:
        """The moments."""
        numbers = range(len(self.stack.tensors))
        return {"moments": [[moment.clone() for moment in self.moments(number)] for number in numbers]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict()`."""
        for number, stored in enumerate(state["moments"]):
            for moment, value in zip(self.moments(number), stored, strict=True):
                moment.copy_(value)


def per_run(settings: Sequence[Mapping[str, Any]], name: str, default: float | None = None) -> list[float]:
    """Each run's value of a setting, on the host.

    Raises:
        ValueError: one is negative or no number.
    """
    values = [float(one.get(name, default)) for one in settings]  # type: ignore[arg-type]
    if min(values) < 0 or any(value != value for value in values):
        raise ValueError(f"optimizer.{name}={min(values)}: at least 0")
    return values


def add_outer_(target: StackedLayer | Tensor, h: Tensor, delta: Tensor) -> None:
    """Add `h^T @ delta` to the weight rows and the sum of `delta` to the bias row of `target`, in place.

    Args:
        target: a layer, or a tensor `[runs, inputs + 1, padded outputs]`.
        h: `[runs, batch, inputs]`.
        delta: `[runs, batch, padded outputs]`.
    """
    if isinstance(target, Tensor):
        weight, bias = target[:, :-1], target[:, -1:]
    else:
        weight, bias = target.wide_weight, target.wide_bias
    if h.shape[1] == 1:
        weight.addcmul_(h.transpose(1, 2), delta)
        bias.add_(delta)
    else:
        weight.baddbmm_(h.transpose(1, 2), delta)
        bias.add_(delta.sum(1, keepdim=True))


class StackedSgd(StackedOptimizer):
    """`w <- w - step_size * (g + weight_decay * w)`, with momentum `b <- momentum * b + g` in g's place if asked for.

    Without momentum no gradient is formed: weights take the outer product directly.
    """

    def __init__(self, stack: StackedMlp, settings: Sequence[Mapping[str, Any]]):
        super().__init__(stack, settings)
        momentum = per_run(settings, "momentum", 0.0)
        if max(momentum) >= 1:
            raise ValueError(f"optimizer.momentum={max(momentum)}: below 1")
        self.momentum = self._tensor(momentum)
        self.shrink = 1 - self.step_size * self.weight_decay
        self.buffers = [torch.zeros_like(tensor) for tensor in stack.tensors] if any(momentum) else []

    def step(self, deltas: Sequence[Tensor], affines: Sequence[Tensor]) -> None:
        """As the base."""
        if self.buffers:
            return self._step_with_momentum(deltas, affines)
        for layer, h, delta in zip(self.stack.layers, self.stack.inputs, deltas, strict=True):
            if self.decays:
                layer.full.mul_(self.shrink)
            add_outer_(layer, h, delta * self.descent)
        for tensor, gradient in zip(self.stack.tensors[len(deltas) :], affines, strict=True):
            if self.decays:
                tensor.mul_(self.shrink)
            tensor.addcmul_(gradient, self.descent)
        return None

    def _step_with_momentum(self, deltas: Sequence[Tensor], affines: Sequence[Tensor]) -> None:
        layers = len(deltas)
        for number, (tensor, buffer) in enumerate(zip(self.stack.tensors, self.buffers, strict=True)):
            buffer.mul_(self.momentum)
            if number < layers:
                add_outer_(buffer, self.stack.inputs[number], deltas[number])
            else:
                buffer.add_(affines[number - layers])
            if self.decays:
                buffer.addcmul_(tensor, self.weight_decay)
            tensor.addcmul_(buffer, self.descent)

    def moments(self, number: int) -> list[Tensor]:
        """The momentum buffer."""
        return [self.buffers[number]] if self.buffers else []


class StackedAdam(StackedOptimizer):
    """Adam (Kingma and Ba 2015) with coupled L2, whose bias correction counts steps per unit.

    A newborn's moments restart at 0, so its correction `1 - beta^age` restarts too: an entry is as young as its row
    (the unit it reads) or its column (the unit it makes), whichever is younger. Corrections are kept as vectors and
    advanced by `c <- c + (1 - beta) (1 - c)`.
    """

    def __init__(self, stack: StackedMlp, settings: Sequence[Mapping[str, Any]]):
        super().__init__(stack, settings)
        self.betas, self.eps = common(
            "betas and eps", [(tuple(one.get("betas", (0.9, 0.999))), float(one.get("eps", 1e-8))) for one in settings]
        )
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"optimizer.betas={list(self.betas)}: each lies in [0, 1)")
        self.first = [torch.zeros_like(tensor) for tensor in stack.tensors]
        self.second = [torch.zeros_like(tensor) for tensor in stack.tensors]
        self.gradients = [torch.zeros_like(tensor) for tensor in stack.tensors]
        # one pair of corrections (first, second moment) per row and per column of every tensor
        self.rows = [[tensor.new_zeros(tensor.shape[0], tensor.shape[1], 1) for _ in "12"] for tensor in stack.tensors]
        self.columns = [
            [tensor.new_zeros(tensor.shape[0], 1, tensor.shape[2]) for _ in "12"] for tensor in stack.tensors
        ]

    def step(self, deltas: Sequence[Tensor], affines: Sequence[Tensor]) -> None:
        """As the base."""
        for number, (tensor, gradient) in enumerate(zip(self.stack.tensors, self.gradients, strict=True)):
            self.form_(gradient, number, deltas, affines)
            self._update(number, tensor, gradient)

    def _update(self, number: int, tensor: Tensor, gradient: Tensor) -> None:
        if self.decays:
            gradient.addcmul_(tensor, self.weight_decay)
        corrections = []
        for which, beta in enumerate(self.betas):
            rows, columns = self.rows[number][which], self.columns[number][which]
            rows.add_((1 - rows) * (1 - beta))
            columns.add_((1 - columns) * (1 - beta))
            # without surgery all ages are equal and one number per run will do
            corrections.append(torch.minimum(rows, columns) if self.per_unit else rows[:, :1])
        self.first[number].lerp_(gradient, 1 - self.betas[0])
        self.second[number].mul_(self.betas[1]).addcmul_(gradient, gradient, value=1 - self.betas[1])
        denominator = (self.second[number] / corrections[1]).sqrt_().add_(self.eps)
        tensor.addcdiv_(self.first[number] * (self.descent / corrections[0]), denominator)

    def moments(self, number: int) -> list[Tensor]:
        """First and second moments."""
        return [self.first[number], self.second[number]]

    def forget(self, number: int, runs: Tensor, *, units: Tensor | None = None, inputs: Tensor | None = None) -> None:
        """As the base; the corrections restart too."""
        super().forget(number, runs, units=units, inputs=inputs)
        for which in (0, 1):
            if units is not None:
                self.columns[number][which][runs, 0, units] = 0.0
            if inputs is not None:
                self.rows[number][which][runs, inputs, 0] = 0.0

    def restart(self, runs: Sequence[int], numbers: Sequence[int] | None = None) -> None:
        """As the base; the corrections restart too."""
        super().restart(runs, numbers)
        for number in numbers if numbers is not None else range(len(self.stack.tensors)):
            for tensor in (*self.rows[number], *self.columns[number]):
                tensor[list(runs)] = 0.0

    def state_dict(self) -> dict[str, Any]:
        """Moments and corrections."""
        copies = {name: [[t.clone() for t in pair] for pair in getattr(self, name)] for name in ("rows", "columns")}
        return {**super().state_dict(), **copies}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict()`."""
        super().load_state_dict(state)
        for name in ("rows", "columns"):
            for pair, stored in zip(getattr(self, name), state[name], strict=True):
                for tensor, value in zip(pair, stored, strict=True):
                    tensor.copy_(value)


class StackedUpgd(StackedOptimizer):
    """UPGD (Elsayed and Mahmood 2024), formula in `continual_agents.methods.upgd`; the greatest utility is a run's."""

    draws = True

    def __init__(self, stack: StackedMlp, settings: Sequence[Mapping[str, Any]]):
        super().__init__(stack, settings)
        self.betas, self.eps, self.utility_decay = common(
            "betas, eps and utility_decay",
            [
                (tuple(s.get("betas", (0.9, 0.999))), s.get("eps", 1e-8), s.get("utility_decay", 0.999))
                for s in settings
            ],
        )
        self.sigma = self._tensor(per_run(settings, "sigma", 1e-3))
        self.first, self.second, self.utility, self.gradients = (
            [torch.zeros_like(tensor) for tensor in stack.tensors] for _ in range(4)
        )
        self.age = 0

    def step(self, deltas: Sequence[Tensor], affines: Sequence[Tensor]) -> None:
        """As the base."""
        self.age += 1
        kept = 1 - self.utility_decay**self.age
        (beta1, beta2), largest = self.betas, None
        for number, (tensor, gradient) in enumerate(zip(self.stack.tensors, self.gradients, strict=True)):
            self.form_(gradient, number, deltas, affines)
            self.utility[number].mul_(self.utility_decay).addcmul_(gradient, tensor, value=self.utility_decay - 1)
            shown = self.utility[number][..., : self._width(number)]
            most = (shown / kept).amax((1, 2), keepdim=True)
            largest = most if largest is None else torch.maximum(largest, most)
        noises = self._noise()
        for number, (tensor, gradient) in enumerate(zip(self.stack.tensors, self.gradients, strict=True)):
            width = self._width(number)
            self.first[number].lerp_(gradient, 1 - beta1)
            self.second[number].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
            direction = self.first[number] / (1 - beta1**self.age)
            direction /= (self.second[number] / (1 - beta2**self.age)).sqrt_().add_(self.eps)
            direction[..., :width] += self.sigma * noises[number]
            gate = 1 - sigmoid(self.utility[number] / kept / largest)
            tensor.mul_(1 - self.step_size * self.weight_decay).addcmul_(gate * direction, self.descent)

    def _width(self, number: int) -> int:
        """Columns of a tensor without padding, whose noise would not stay 0."""
        layers = self.stack.layers
        return layers[number].outputs if number < len(layers) else self.stack.tensors[number].shape[2]

    def _noise(self) -> list[Tensor]:
        shapes = [(tensor.shape[1], self._width(number)) for number, tensor in enumerate(self.stack.tensors)]
        sizes = [rows * columns for rows, columns in shapes]
        draws = [
            torch.randn(sum(sizes), generator=torch_draws(seed, Draw.NOISE, self.age)) for seed in self.stack.seeds
        ]
        parts = torch.stack(draws).to(self.stack.device, self.stack.dtype).split(sizes, -1)
        return [part.view(-1, *shape) for part, shape in zip(parts, shapes, strict=True)]

    def moments(self, number: int) -> list[Tensor]:
        """Moments and utilities."""
        return [self.first[number], self.second[number], self.utility[number]]

    def state_dict(self) -> dict[str, Any]:
        """Moments, utilities and the number of steps."""
        return {**super().state_dict(), "age": self.age}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict()`."""
        super().load_state_dict(state)
        self.age = int(state["age"])


def common(name: str, values: Sequence[Any]) -> Any:
    """The value that all runs of a stack share.

    Raises:
        ValueError: they differ.
    """
    if len(set(values)) > 1:
        raise ValueError(f"optimizer: {name} are common to a stack, got {sorted(set(values))}")
    return values[0]


OPTIMIZERS: dict[str, type[StackedOptimizer]] = {"sgd": StackedSgd, "adam": StackedAdam, "upgd": StackedUpgd}
"""Optimizers of a stack by the `kind` of a method."""
