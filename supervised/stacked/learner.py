"""A stack that learns: forward, loss, backward, optimizer, operations, for chunks of a stream."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from continual_agents.methods import OPERATIONS, Method
from continual_agents.surgery.compiler import CompilerError

from ..draws import Draw, torch_draws
from ..losses import LOSSES
from ..networks import Mlp
from .native import Native, obstacle, side_by_side
from .network import StackedMlp
from .operations import Operation, make_operations
from .optimizers import OPTIMIZERS
from .steps import Captured, one_by_one

BLOCK = 8192
"""Dropout draws of a run at once, at least one step's."""


class StackedLearner:
    """R runs of one network shape and one kind of method.

    Args:
        network: the common shape.
        methods: one per run; equal in kind of optimizer and names of operations, free in their numbers.
        seeds: one per run.
        loss: "cross_entropy" or "squared_error".
        batch: examples per gradient step.
        device, dtype: of everything.
        fast: take the steps in native code (CPU) or a CUDA graph where there is some for this network and method, else
            as ever; numbers then agree to float rounding only.

    Attributes:
        code: how the steps are taken: "native", "graph", or "torch".

    Raises:
        ValueError: methods that do not fit into one stack, or settings out of range.
    """

    def __init__(
        self,
        network: Mlp,
        methods: Sequence[Method],
        seeds: Sequence[int],
        *,
        loss: str,
        batch: int = 1,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        fast: bool = False,
    ):
        kinds = {(method.optimizer.get("kind", "adam"), tuple(method.operations)) for method in methods}
        if len(kinds) != 1 or len(methods) != len(seeds):
            raise ValueError(f"{len(seeds)} runs of one stack need one kind of method each, got {sorted(kinds)}")
        if loss not in LOSSES:
            raise ValueError(f"loss={loss!r}: one of {', '.join(LOSSES)}")
        ((kind, names),) = kinds
        self.network, self.methods, self.seeds, self.loss, self.batch = network, methods, list(seeds), loss, batch
        native = fast and torch.device(device).type == "cpu"
        rows = native and not side_by_side(network)
        self.stack = StackedMlp(network, seeds, batch=batch, device=device, dtype=dtype, rows=rows)
        self.optimizer = OPTIMIZERS[kind](self.stack, [method.optimizer for method in methods])
        self.operations: dict[str, Operation] = make_operations(self.stack, self.optimizer, methods)
        self.optimizer.per_unit = any(OPERATIONS[name].renews for name in names)
        self.steps = 0
        self._fast = self._native(loss) if native else self._captured() if fast else None
        self.code = "torch" if self._fast is None else "native" if native else "graph"
        self._masks: list[Tensor] | None = None

    @property
    def runs(self) -> int:
        """Number of runs."""
        return len(self.seeds)

    @torch.no_grad()
    def learn(self, x: Tensor, y: Tensor) -> Tensor:
        """Learn from consecutive batches, one gradient step each.

        Args:
            x: `[steps, runs, batch, inputs]`, or images that are flattened here.
            y: classes `[steps, runs, batch]` (int64), or targets `[steps, runs, batch, outputs]`.

        Returns:
            The measure before each step's update, averaged over the batch, `[steps, runs]`: 1 for a right class and 0
            for a wrong one, or the squared error.
        """
        x = x.flatten(3)
        targets = LOSSES[self.loss].prepare(y, self.network.outputs, self.stack.dtype)
        outputs = torch.empty(*x.shape[:3], self.network.outputs, device=x.device, dtype=self.stack.dtype)
        done, count = 0, len(x)
        while done < count:
            # all steps until somebody acts are one call of the fast code
            due = {name: operation.next_step for name, operation in self.operations.items()}
            until = min(count, done + int(min([*due.values(), self.steps + count - done])) - self.steps)
            piece = x[done:until], targets[done:until], outputs[done:until]
            if self._fast is None:
                one_by_one(self.step, *piece, self.steps)
            else:
                self._fast(*piece, self.steps)
            self.stack.see(x[done:until])
            self.steps += until - done
            for operation in self.operations.values():
                operation.steps = self.steps
            done = until
            for name, step in due.items():
                if step == self.steps:
                    self.operations[name].act_now()
        return LOSSES[self.loss].measure(outputs, y)

    def _native(self, loss: str) -> Native | None:
        """Native code for the steps; None where there is none."""
        if obstacle(self.network, self.batch, self.operations, self.optimizer) is not None:
            return None
        followed = [operation for operation in self.operations.values() if operation.follows]
        try:
            return Native(self.stack, self.optimizer, followed, loss=loss)
        except CompilerError as error:
            warnings.warn(
                f"{error}: steps are taken in torch, several times slower, as experiment.fast=false asks for",
                stacklevel=3,
            )
            return None

    def _captured(self) -> Captured | None:
        """A CUDA graph of the steps; None for methods that draw numbers at every step, which no graph can repeat."""
        drawing = self.optimizer.draws or any(one.follows and one.draws for one in self.operations.values())
        if self.network.dropout or drawing:
            return None
        return Captured(self.step, self.state_dict, self.load_state_dict)

    def step(self, x: Tensor, target: Tensor, output: Tensor, number: int) -> None:
        """One gradient step of every run.

        Args:
            x: `[runs, batch, inputs]`.
            target: one-hot classes or values `[runs, batch, outputs]`.
            output: where the network's outputs are written, like `target`.
            number: steps before this one.
        """
        masks = self._dropout(number) if self.network.dropout else None
        output.copy_(self.stack.forward(x, masks=masks))
        deltas, affines = self.stack.backward(LOSSES[self.loss].gradient(output, target))
        self.optimizer.step(deltas, affines)
        for operation in self.operations.values():
            operation.follow_step(number)

    def start_task(self, task: int) -> None:
        """Called before the first step of every task; operations that act at tasks do."""
        for operation in self.operations.values():
            operation.start_task(task)

    @torch.no_grad()
    def evaluate(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Outputs and hidden layers `[runs, examples, width]`, without learning."""
        return self.stack.evaluate(x.flatten(2).to(self.stack.dtype))

    def weights(self) -> dict[str, Tensor]:
        """Weight matrices (without biases) by name, `[runs, inputs, outputs]`."""
        return {f"layer_{number}": layer.weight for number, layer in enumerate(self.stack.layers)}

    def trained(self) -> dict[str, Tensor]:
        """Everything that is trained, by layer, `[runs, ...]`."""
        layers = {f"layer_{number}": layer.full[..., : layer.outputs] for number, layer in enumerate(self.stack.layers)}
        norms = {f"norm_{number}": norm.affine for number, norm in enumerate(self.stack.norms) if norm is not None}
        return layers | norms

    def kinds(self) -> dict[str, str]:
        """How dead units of each hidden layer are told."""
        return {f"hidden_{number}": self.stack.activation.flat for number in range(len(self.network.hidden))}

    def report(self) -> dict[str, np.ndarray]:
        """What the operations tell, each `[runs]`."""
        return {key: value for operation in self.operations.values() for key, value in operation.report().items()}

    def _dropout(self, step: int) -> list[Tensor]:
        """This step's masks `[runs, batch, width]`, divided by the share kept."""
        widths = [inputs for inputs, _ in self.network.shapes[1:]]
        size = self.batch * sum(widths)
        length = max(1, BLOCK // size)
        block, place = divmod(step, length)
        if place == 0 or self._masks is None:
            draws = torch.stack(
                [
                    torch.rand(length, self.batch, sum(widths), generator=torch_draws(seed, Draw.DROPOUT, block))
                    for seed in self.seeds
                ]
            )
            kept = (draws >= self.network.dropout).to(self.stack.device, self.stack.dtype)
            self._masks = list(kept.div_(1 - self.network.dropout).split(widths, -1))
        return [mask[:, place] for mask in self._masks]

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to continue exactly."""
        return {
            "steps": self.steps,
            "stack": self.stack.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "operations": {name: operation.state_dict() for name, operation in self.operations.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict()`."""
        self.steps, self._masks = int(state["steps"]), None
        self.stack.load_state_dict(state["stack"])
        self.optimizer.load_state_dict(state["optimizer"])
        for name, operation in self.operations.items():
            operation.load_state_dict(state["operations"][name])
