"""What the training loop asks of an agent, and what its agents have in common: the gradient step."""

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from tensordict import TensorDict
from torch import Tensor

from continual_agents.methods import AfterStep
from continual_agents.runs import generator_state, set_generator_state

from .errors import NotFiniteError
from .networks import Networks


class Learner:
    """An agent that learns from batches; each kind of agent says how in `update`.

    The training loop, checkpoints, probe, films and reports know this class only.

    Args:
        networks: what acts and what is trained.
        optimizer: trains all of `networks.parameters()`.
        operations: run after every optimizer step, in order.
        max_gradient_norm: gradients are scaled down to this norm; None: never.
        on_not_finite: "stop" when a gradient is not finite, or "skip": leave out the step and count it.
        generator: every random draw of the learner.

    Attributes:
        gradient_steps: optimizer steps so far.
        operation_seconds: wall-clock time that the operations took in the last update.
        frames_per_batch: environment steps that an update wants.
        steps_per_batch: gradient steps of an update; 0: not known beforehand.
        frames_per_row: environment steps per row of the table, a multiple of `frames_per_batch`.
    """

    frames_per_batch: int
    steps_per_batch: int = 0
    frames_per_row: int
    penalises = False
    """Whether `update` adds the operations' penalties (`ChurnPenalty`) to the policy's loss."""

    def __init__(
        self,
        networks: Networks,
        optimizer: torch.optim.Optimizer,
        operations: Sequence[AfterStep] = (),
        *,
        max_gradient_norm: float | None = None,
        on_not_finite: Literal["stop", "skip"] = "stop",
        generator: torch.Generator,
    ):
        self.penalties: list[Any] = [operation for operation in operations if hasattr(operation, "penalty")]
        if self.penalties and not self.penalises:
            given = type(self.penalties[0]).__name__
            raise ValueError(f"{given} is a term of PPO's loss, {type(self).__name__} has no place for it")
        self.networks = networks
        self.optimizer = optimizer
        self.operations = list(operations)
        self.max_gradient_norm = max_gradient_norm
        self.on_not_finite = on_not_finite
        self.generator = generator
        self.gradient_steps = 0
        self.operation_seconds = 0.0
        self._parameters = networks.parameters()

    def update(self, batch: TensorDict) -> dict[str, float]:
        """Learn from a batch as `EnvironmentCollector` yields it; named numbers for the table.

        Raises:
            NotFiniteError: a gradient is not finite, and `on_not_finite` is "stop" or a weight is the reason.
        """
        raise NotImplementedError

    def probe_inputs(self, batch: TensorDict, count: int) -> Any:
        """At most `count` recent inputs of the bodies, as `Probe` takes them: the batch's observations."""
        seen: Tensor = batch["observation"]
        return seen.flatten(0, -1 - self.networks.policy.observed)[:count]

    def start_task(self) -> None:
        """Tell the operations that the next batch is of another task."""
        for operation in self.operations:
            getattr(operation, "start_task", lambda: None)()

    def begin_beside(self, folder: Path) -> None:
        """Told, before anything else, where the run lies."""

    def save_beside(self, folder: Path) -> None:
        """Write what is too large for a checkpoint into `folder`, just before one is written: nothing, here."""

    def load_beside(self, folder: Path) -> None:
        """Continue from what `save_beside` wrote, after `load_state_dict`."""

    def apply_gradients(self, losses: dict[str, Tensor]) -> Tensor | None:
        """One step of the optimizer on the gradients that are there, then the operations.

        Args:
            losses: for the message, should a gradient not be finite.

        Returns:
            The gradients' norm; None if the step was skipped.
        """
        norm = self._gradient_norm()
        if not math.isfinite(norm):
            self._not_finite(losses, norm)
            return None
        self.optimizer.step()
        start = time.perf_counter()
        for operation in self.operations:
            operation.step()
        self.operation_seconds += time.perf_counter() - start
        self.gradient_steps += 1
        return norm

    @torch.no_grad()
    def _gradient_norm(self) -> Tensor:
        """The norm of all gradients together, after which they are at most `max_gradient_norm` long.

        The numbers of torch's `clip_grad_norm_`, which sorts the gradients by device and type at every call.
        """
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        if self.max_gradient_norm is not None:
            torch._foreach_mul_(gradients, (self.max_gradient_norm / (norm + 1e-6)).clamp(max=1.0))
        return norm

    def _not_finite(self, losses: dict[str, Tensor], norm: Tensor) -> None:
        first = self._first_bad()
        if self.on_not_finite == "skip" and not first.startswith("first weight"):  # skipping mends no weight
            for operation in self.operations:
                getattr(operation, "forget_passes", lambda: None)()
            return
        said = ", ".join(f"{name}={value.item():g}" for name, value in losses.items())
        raise NotFiniteError(
            f"gradient norm {float(norm):g} at gradient step {self.gradient_steps} ({said}; {first}): "
            "lower the step size, or set agent.max_gradient_norm or agent.on_not_finite=skip"
        )

    def _first_bad(self) -> str:
        """The first weight that is not finite, else the first gradient: weights poison every gradient."""
        named = self.networks.named_parameters()
        for name, parameter in named:
            if not torch.isfinite(parameter).all():
                return f"first weight: {name}"
        for name, parameter in named:
            if parameter.grad is not None and not torch.isfinite(parameter.grad).all():
                return f"first gradient: {name}"
        return "every gradient is finite, their norm overflows"

    def state_dict(self) -> dict[str, Any]:
        """Networks, optimizer, operations and generator: what the next update depends on."""
        return {
            **self.networks.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "operations": [operation.state_dict() for operation in self.operations],
            "generator": generator_state(self.generator),
            "gradient_steps": self.gradient_steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict()`."""
        self.networks.load_state_dict(state)
        self.optimizer.load_state_dict(state["optimizer"])
        for operation, stored in zip(self.operations, state["operations"], strict=True):
            operation.load_state_dict(stored)
        set_generator_state(self.generator, state["generator"])
        self.gradient_steps = state["gradient_steps"]


def batch_is_finite(batch: TensorDict) -> bool:
    """Whether everything that the environment gave is finite."""
    given = (batch["observation"], batch["next", "observation"], batch["next", "reward"])
    return all(bool(torch.isfinite(one).all()) for one in given)
