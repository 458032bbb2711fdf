"""Learners whose output grows with the classes, and which end a task with the weights of their best epoch."""

import copy
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from continual_agents.surgery.optimizer_state import forget_

from .draws import Draw, torch_draws
from .looped import LoopedLearner
from .networks import Mlp
from .states import array_of


class IncrementalLearner(LoopedLearner):
    """A `LoopedLearner` with an output for every class that has come.

    The output layer has a row for each class from the start, so that parameters keep their identity. The rows of
    classes still to come are 0 and have no part in the loss: nothing reads them, no gradient moves them, and they count
    for nothing in surgery's utility. With its class a row is drawn anew, as the network began, and the optimizer knows
    nothing of it.

    Args:
        given, settings: as in `LoopedLearner`.
        seen: classes of the first task.

    Attributes:
        seen: classes so far.
    """

    def __init__(self, *given: Any, seen: int, **settings: Any):
        super().__init__(*given, **settings)
        self.seen = seen
        self._step_sizes = [[group["lr"] for group in optimizer.param_groups] for optimizer in self.optimizers]
        self._best: list[dict[str, Tensor] | None] = [None] * self.runs
        self._best_accuracy = np.full(self.runs, -np.inf)

    def _baked(self) -> Hashable:
        return super()._baked(), self.seen

    def _forward(self, module: nn.Module, x: Tensor) -> Tensor:
        output: Tensor = module(x.flatten(1) if isinstance(self.network, Mlp) else x)
        return output[:, : self.seen]

    @torch.no_grad()
    def start_increment(self, task: int, seen: int) -> None:
        """Take in the classes of a task, and do what the methods do at one.

        Args:
            task: its number.
            seen: classes so far, its own included.
        """
        before = 0 if task == 0 else self.seen
        self.seen = seen
        heads = [[layer for layer in module.modules() if isinstance(layer, nn.Linear)][-1] for module in self.modules]
        for head, seed, optimizer in zip(heads, self.seeds, self.optimizers, strict=True):
            rows, bound = torch.arange(before, seen, device=head.weight.device), (3 / head.in_features) ** 0.5
            drawn = torch.empty(len(rows), head.in_features)
            head.weight[rows] = drawn.uniform_(-bound, bound, generator=torch_draws(seed, Draw.HEAD, task)).to(
                rows.device
            )
            head.bias[rows] = 0.0
            for parameter in (head.weight, head.bias):
                forget_([optimizer], parameter, 0, rows)
        self.start_task(task)
        for head in heads:
            head.weight[seen:] = 0.0
            head.bias[seen:] = 0.0
        self._best = [None] * self.runs
        self._best_accuracy[:] = -np.inf

    def scale_step_size(self, factor: float) -> None:
        """Multiply every step size of the methods with `factor`."""
        for optimizer, step_sizes in zip(self.optimizers, self._step_sizes, strict=True):
            for group, step_size in zip(optimizer.param_groups, step_sizes, strict=True):
                group["lr"] = step_size * factor

    @torch.no_grad()
    def predict(self, x: Tensor) -> Tensor:
        """Outputs `[runs, n, seen]` for images `[runs, n, *shape]`, as in evaluation."""
        for module in self.modules:
            module.eval()
        return torch.stack([self._forward(module, inputs) for module, inputs in zip(self.modules, x, strict=True)])

    def evaluate(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """As `LoopedLearner.evaluate`, of the classes so far."""
        outputs, hidden = super().evaluate(x.flatten(2) if isinstance(self.network, Mlp) else x)
        return outputs[..., : self.seen], hidden

    def keep_best(self, accuracy: np.ndarray) -> None:
        """Remember the weights of the runs whose `accuracy [runs]` is the best of this task."""
        for run in np.flatnonzero(accuracy > self._best_accuracy):
            self._best[run] = {name: value.clone() for name, value in self.modules[run].state_dict().items()}
            self._best_accuracy[run] = accuracy[run]

    def take_best(self) -> np.ndarray:
        """Put back the remembered weights, where there are some; their accuracy `[runs]`.

        Optimizer and surgery go on from where they are, as published.
        """
        for module, best in zip(self.modules, self._best, strict=True):
            if best is not None:
                module.load_state_dict(best)
        return np.where(np.isfinite(self._best_accuracy), self._best_accuracy, np.nan)

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to continue exactly."""
        best = {"best": copy.deepcopy(self._best), "best_accuracy": self._best_accuracy.copy()}
        return {**super().state_dict(), "seen": self.seen, **best}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict()`."""
        super().load_state_dict(state)
        self.seen = int(state["seen"])
        self._best = [None if best is None else dict(best) for best in state["best"]]
        self._best_accuracy = array_of(state["best_accuracy"])
