"""What an operation is: something done to the networks after each gradient step, every so many steps, or at a task."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from .target import Setting, Target


class AfterStep(Protocol):
    """What runs after `optimizer.step()`. Surgery's companions satisfy it as they are.

    One that also has `start_task()` is told when a new task begins, before its first step.
    """

    def step(self) -> Any:
        """Do it once; called after every gradient step."""

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to continue exactly, as tensors and numbers."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict()`."""

    def report(self) -> dict[str, float]:
        """Numbers for the log, with names that need no prefix but the group's."""


class Operation:
    """Base of the operations on a `Target`: subclasses write `act`, and `follow` if every step matters.

    Args:
        target: the networks.

    Attributes:
        period: gradient steps between two acts; None: never by steps.
        at_task: whether it acts at the start of every task but the first.
        steps: gradient steps done.
        draws: whether it draws random numbers.
        remembers: names of its attributes that a continued run needs: numbers, or lists of tensors.
    """

    remembers: tuple[str, ...] = ()
    period: int | None = 1
    at_task = False
    draws = False

    def __init__(self, target: Target):
        self.target, self.steps, self.tasks = target, 0, 0
        target.on_restart(self.restart)

    def act(self, index: int) -> None:
        """Do it: for the `index`-th time (from 1) if it acts by steps, or at the start of task `index`."""
        raise NotImplementedError

    def follow(self) -> None:
        """What every step needs, before `act`."""

    def restart(self) -> None:
        """All weights were drawn anew."""

    @property
    def follows(self) -> bool:
        """Whether there is something to do at every step."""
        return self.period == 1 or type(self).follow is not Operation.follow

    @property
    def next_step(self) -> float:
        """The next step after which it acts, beyond those of `follow_step`; inf if never."""
        return float("inf") if self.period in (None, 1) else self.steps + self.period - self.steps % self.period

    @torch.no_grad()
    def follow_step(self, number: int) -> None:
        """The part of every step (number `number` from 0); a stack calls it, and `act` when `next_step` is reached."""
        self.follow()
        if self.period == 1:
            self.act(number + 1)

    @torch.no_grad()
    def step(self) -> None:
        """After a gradient step."""
        self.follow_step(self.steps)
        due = self.next_step
        self.steps += 1
        if self.steps == due:
            self.act_now()

    @torch.no_grad()
    def act_now(self) -> None:
        """What `next_step` announced, `steps` having been counted on."""
        assert self.period is not None
        self.act(self.steps // self.period)

    @torch.no_grad()
    def start_task(self, index: int | None = None) -> None:
        """At the start of task `index`, from 0; None: of the next one."""
        self.tasks = self.tasks + 1 if index is None else index
        if self.at_task and self.tasks > 0:
            self.act(self.tasks)

    def schedule(self, *, period: int | None = None, at_task: bool | None = None) -> None:
        """When it acts: every `period` steps, at every new task, or both; nothing given leaves its own default.

        Raises:
            ValueError: a period below 1.
        """
        if period is not None and period < 1:
            raise ValueError(f"period={period}: a number of gradient steps is at least 1")
        if period is not None or at_task:
            self.period, self.at_task = period, bool(at_task)
        elif at_task is False:
            self.at_task = False

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to continue exactly."""
        own = {name: getattr(self, name) for name in self.remembers}
        own = {name: [t.clone() for t in value] if isinstance(value, list) else value for name, value in own.items()}
        return {"steps": self.steps, "tasks": self.tasks, "target": self.target.state_dict(), **own}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict()`; tensors are filled in place."""
        self.steps, self.tasks = int(state["steps"]), int(state["tasks"])
        self.target.load_state_dict(state["target"])
        for name in self.remembers:
            if isinstance(getattr(self, name), list):
                fill_(getattr(self, name), state[name])
            else:
                setattr(self, name, state[name])

    def report(self) -> dict[str, Any]:
        """Numbers for the log: floats, or arrays `[runs]`."""
        return {}


@torch.no_grad()
def fill_(tensors: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    """Copy the values into the tensors."""
    for tensor, value in zip(tensors, values, strict=True):
        tensor.copy_(value)


def in_range(name: str, value: Setting, least: float, most: float = float("inf"), *, what: str) -> None:
    """Refuse a setting outside `[least, most]`.

    Raises:
        ValueError: it is, naming it and `what` it has to be.
    """
    if isinstance(value, torch.Tensor) and value.is_meta:  # a rehearsal without numbers: there is nothing to look at
        return
    # float32's digits beyond what was written say nothing
    several = isinstance(value, torch.Tensor)
    values = [float(f"{one:.6g}") for one in value.flatten().tolist()] if several else [value]  # type: ignore[union-attr]
    for one in values:
        if not least <= one <= most:
            raise ValueError(f"{name}={one}: {what}")
