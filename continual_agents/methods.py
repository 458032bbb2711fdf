"""A method of keeping plasticity: what it asks of the network, of the optimizer, and what it does after each step.

`configs/method/*.yaml` are instances of `Method`; reinforcement learning agents and supervised streams read the same
files. A stack of runs reads the numbers itself; an ordinary network calls
`make_optimizer` and `make_operations`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import nn

from continual_agents import surgery
from continual_agents.settings import check_settings, written
from continual_agents.settings import nearest as nearest


class AfterStep(Protocol):
    """What runs after `optimizer.step()`. Surgery's companions satisfy it as they are."""

    def step(self) -> Any:
        """Do it once; called after every gradient step."""

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to continue exactly, as tensors and numbers."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict()`."""

    def report(self) -> dict[str, float]:
        """Numbers for the log, with names that need no prefix but the group's."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Method:
    """A named way of training a network on a stream of tasks.

    Args:
        name: as in tables and figures.
        network: ingredients that the network's constructor takes (`norm`, `dropout`, `activation`).
        optimizer: `kind` (adam, sgd), `step_size`, and what that kind takes: `betas`, `eps`, `weight_decay`
            (coupled L2) for adam; `momentum`, `weight_decay` for sgd.
        operations: name -> settings of each operation after the step, in order; names are the keys of `OPERATIONS`.

    Raises:
        ValueError: an unknown optimizer, operation or setting, with the nearest known one; a value of another type, or
            of the optimizer's out of range. Ranges of an operation's values are checked where it is made.

    Example:
        >>> method = Method(name="cbp", optimizer={"kind": "adam", "step_size": 1e-4},
        ...                 operations={"continual_backprop": {"rate": 1e-4, "maturity": 10_000}})
        >>> optimizer = method.make_optimizer(net.parameters())
        >>> operations = method.make_operations(net, optimizer, torch.Generator().manual_seed(0))
    """

    name: str
    network: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    optimizer: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    operations: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        for part in ("network", "optimizer", "operations"):
            if not isinstance(getattr(self, part), Mapping):
                given = written(getattr(self, part))
                raise ValueError(f"method {self.name}: {part}={given}: settings by name are needed")
        _check_optimizer(f"method {self.name}: optimizer", self.optimizer)
        for name, settings in self.operations.items():
            if name not in SCHEMAS:
                raise ValueError(f"method {self.name}: operation {name!r} is unknown{nearest(name, SCHEMAS)}")
            # birth: null is a stream's own: new units are drawn as the network began
            typed = {k: v for k, v in settings.items() if (k, v) != ("birth", None)}
            check_settings(f"method {self.name}: {name}", typed, SCHEMAS[name], given=("generator",))

    def make_optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """The optimizer of this method over `parameters`.

        Raises:
            ValueError: a negative step size, momentum or weight decay, or betas outside [0, 1).
        """
        settings = {key: value for key, value in self.optimizer.items() if key != "kind"}
        kind = self.optimizer.get("kind", "adam")
        builder, accepted = OPTIMIZERS[kind]
        # one method file serves every experiment: what this kind of optimizer has no use for is left unread
        chosen = {accepted[key]: value for key, value in settings.items() if key in accepted}
        if "betas" in chosen:
            chosen["betas"] = tuple(chosen["betas"])
        return builder(list(parameters), **chosen)

    def make_operations(
        self,
        modules: nn.Module | Mapping[str, nn.Module],
        optimizer: torch.optim.Optimizer,
        generator: torch.Generator,
    ) -> list[AfterStep]:
        """The after-step operations, attached to `modules` (actor and critic as a mapping).

        Args:
            modules: the networks whose hidden units are kept alive; output layers are never touched.
            optimizer: the one that trains them.
            generator: source of every random draw the operations make.

        Raises:
            ValueError: a value that an operation refuses, naming the method and the operation.
        """
        made = []
        for name, settings in self.operations.items():
            try:
                made.append(OPERATIONS[name](modules, optimizer, generator, **settings))
            except (ValueError, TypeError) as error:
                named = name == self.name or str(error).startswith(f"{name}.")
                raise ValueError(f"method {self.name}: {error if named else f'{name}: {error}'}") from error
        return made


class Perturb:
    """The noise of shrink-and-perturb (Ash and Adams 2020): `w <- w + noise * N(0, 1)` for every parameter, each step.

    The shrinking is the optimizer's coupled weight decay, as in the published comparisons.

    Args:
        parameters: what is perturbed, in place.
        noise: standard deviation of the noise per step, >= 0.
        generator: source of the noise.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], *, noise: float, generator: torch.Generator):
        if not noise >= 0:
            raise ValueError(f"perturb.noise={noise}: a standard deviation is at least 0")
        self.parameters = list(parameters)
        self.noise = noise
        self.generator = generator
        self.steps = 0

    @torch.no_grad()
    def step(self) -> None:
        """Add fresh noise."""
        size = sum(parameter.numel() for parameter in self.parameters)
        draw = torch.empty(size, device=self.generator.device).normal_(0.0, self.noise, generator=self.generator)
        parts = draw.split([parameter.numel() for parameter in self.parameters])
        for parameter, part in zip(self.parameters, parts, strict=True):
            parameter.add_(part.view_as(parameter).to(parameter.device))
        self.steps += 1

    def state_dict(self) -> dict[str, Any]:
        """Steps done and the generator."""
        return {"steps": self.steps, "generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict()`."""
        self.steps = state["steps"]
        self.generator.set_state(state["generator"])

    def report(self) -> dict[str, float]:
        """Nothing to tell but that it runs."""
        return {"perturbations": float(self.steps)}


class PullToInit:
    """L2 towards the initial weights (Kumar et al. 2023), decoupled: `w <- w + strength * (w_0 - w)` after each step.

    Args:
        parameters: what is pulled, in place; their values at construction are `w_0`.
        strength: fraction of the distance per step, in [0, 1].
    """

    def __init__(self, parameters: Sequence[nn.Parameter], *, strength: float):
        if not 0 <= strength <= 1:
            raise ValueError(f"l2_init.strength={strength}: a fraction of the distance per step lies in [0, 1]")
        self.parameters: list[torch.Tensor] = list(parameters)
        self.initial = [parameter.detach().clone() for parameter in self.parameters]
        self.strength = strength

    @torch.no_grad()
    def step(self) -> None:
        """Pull once."""
        torch._foreach_lerp_(self.parameters, self.initial, self.strength)

    def state_dict(self) -> dict[str, Any]:
        """The initial weights."""
        return {"initial": [tensor.clone() for tensor in self.initial]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict()`."""
        for tensor, stored in zip(self.initial, state["initial"], strict=True):
            tensor.copy_(stored)

    @torch.no_grad()
    def report(self) -> dict[str, float]:
        """Root mean square distance from the initial weights."""
        squares = sum(float((p - w).square().sum()) for p, w in zip(self.parameters, self.initial, strict=True))
        return {"distance_from_init": (squares / sum(p.numel() for p in self.parameters)) ** 0.5}


def _parameters(modules: nn.Module | Mapping[str, nn.Module]) -> list[nn.Parameter]:
    parts = modules.values() if isinstance(modules, Mapping) else [modules]
    return [parameter for part in parts for parameter in part.parameters()]


Modules = nn.Module | Mapping[str, nn.Module]


def _reset(
    modules: Modules, optimizer: torch.optim.Optimizer, generator: torch.Generator, **settings: Any
) -> AfterStep:
    raise ValueError("reset acts at the start of a task, which only streams announce: use it in a stream")


OPERATIONS: dict[str, Callable[..., AfterStep]] = {
    "continual_backprop": lambda modules, optimizer, generator, **settings: surgery.ContinualBackprop(
        surgery.find(modules), optimizer, generator=generator, **settings
    ),
    # Mahmood and Sutton 2012: the ancestor, worth by weight alone
    "generate_and_test": lambda modules, optimizer, generator, **settings: surgery.ContinualBackprop(
        surgery.find(modules), optimizer, generator=generator, **{**surgery.GENERATE_AND_TEST, **settings}
    ),
    "redo": lambda modules, optimizer, generator, **settings: surgery.ReDo(
        surgery.find(modules), optimizer, generator=generator, **settings
    ),
    "perturb": lambda modules, optimizer, generator, **settings: Perturb(
        _parameters(modules), generator=generator, **settings
    ),
    "l2_init": lambda modules, optimizer, generator, **settings: PullToInit(_parameters(modules), **settings),
    "reset": _reset,
}
"""What a method may do after a step: name -> constructor(modules, optimizer, generator, **settings)."""

OPTIMIZERS: dict[str, tuple[Callable[..., torch.optim.Optimizer], dict[str, str]]] = {
    "adam": (
        # one pass over memory instead of a dozen: a PPO update is a sixth faster
        functools.partial(surgery.Adam, fused=True),
        {"step_size": "lr", "betas": "betas", "eps": "eps", "weight_decay": "weight_decay"},
    ),
    "sgd": (torch.optim.SGD, {"step_size": "lr", "momentum": "momentum", "weight_decay": "weight_decay"}),
}
"""Optimizer kinds: constructor, and what each setting of ours is called there."""


def _reset_settings(*, layers: str = "head", keep_momentum: bool = False) -> None:
    """What `reset` takes, in streams."""


SCHEMAS: dict[str, Callable[..., Any]] = {
    "continual_backprop": surgery.ContinualBackprop,
    "generate_and_test": surgery.ContinualBackprop,
    "redo": surgery.ReDo,
    "perturb": Perturb,
    "l2_init": PullToInit,
    "reset": _reset_settings,
}
"""What each operation's settings are called and of which type: the keyword arguments of these."""


def _optimizer_settings(
    *,
    kind: str = "adam",
    step_size: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
) -> None:
    """What the optimizers take; each reads what it has a use for."""


def _check_optimizer(where: str, settings: Mapping[str, Any]) -> None:
    check_settings(where, settings, _optimizer_settings)
    kind = settings.get("kind", "adam")
    if kind not in OPTIMIZERS:
        raise ValueError(f"{where}.kind={kind} is unknown{nearest(kind, OPTIMIZERS)}")
    for name in ("step_size", "eps", "momentum", "weight_decay"):
        if not settings.get(name, 0.0) >= 0:
            raise ValueError(f"{where}.{name}={settings[name]}: must not be negative")
    if not settings.get("momentum", 0.0) < 1:
        raise ValueError(f"{where}.momentum={settings['momentum']}: must be below 1, or old gradients never fade")
    if not all(0 <= beta < 1 for beta in settings.get("betas", ())):
        raise ValueError(f"{where}.betas={written(settings['betas'])}: each lies in [0, 1)")
