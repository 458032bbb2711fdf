"""A method of keeping plasticity: what it asks of the network, of the optimizer, and what it does after each step.

`configs/method/*.yaml` are instances of `Method`; reinforcement learning agents and supervised streams read the same
files. A stack of runs reads the numbers itself; an ordinary network calls
`make_optimizer` and `make_operations`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from continual_agents.settings import check_settings, nearest, written

from .operation import AfterStep, Operation
from .optimizers import OPTIMIZERS, check_optimizer
from .table import OPERATIONS
from .target import Fresh, Modules, ModuleTarget, Target


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

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Method:
        """The method of a configuration.

        Raises:
            ValueError: no mapping, a key that methods have not, or a value that `Method` refuses.
        """
        if not isinstance(settings, Mapping):
            raise ValueError(f"method={written(settings)}: settings by name are needed")
        known = [field.name for field in dataclasses.fields(cls)]
        for key in settings:
            if key not in known:
                raise ValueError(f"method.{key} is unknown{nearest(key, known)}")
        return cls(**settings)

    def __post_init__(self) -> None:
        for part in ("network", "optimizer", "operations"):
            if not isinstance(getattr(self, part), Mapping):
                given = written(getattr(self, part))
                raise ValueError(f"method {self.name}: {part}={given}: settings by name are needed")
        check_optimizer(f"method {self.name}: optimizer", self.optimizer)
        for name, settings in self.operations.items():
            if name not in OPERATIONS:
                raise ValueError(f"method {self.name}: operation {name!r} is unknown{nearest(name, OPERATIONS)}")
            if not isinstance(settings, Mapping):
                raise ValueError(f"method {self.name}: {name}={written(settings)}: settings by name are needed")
            # birth: null is a stream's own: new units are drawn as the network began
            typed = {k: v for k, v in settings.items() if (k, v) != ("birth", None)}
            check_settings(f"method {self.name}: {name}", typed, *OPERATIONS[name].schemas, given=("generator",))
        restarting = [name for name, settings in self.operations.items() if OPERATIONS[name].restarts(settings)]
        renewing = [name for name in self.operations if OPERATIONS[name].renews]
        if restarting and renewing:
            raise ValueError(
                f"method {self.name}: {restarting[0]} draws the whole network anew, which leaves {renewing[0]} "
                "nothing to look after: choose one of them"
            )

    def make_optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """The optimizer of this method over `parameters`.

        Raises:
            ValueError: a negative step size, momentum or weight decay, or betas outside [0, 1).
        """
        row = OPTIMIZERS[self.optimizer.get("kind", "adam")]
        # one method file serves every experiment: what this kind of optimizer has no use for is left unread
        chosen = {row.names[key]: value for key, value in self.optimizer.items() if key in row.names}
        if "betas" in chosen:
            chosen["betas"] = tuple(chosen["betas"])
        return row.make(list(parameters), **chosen)

    def make_operations(
        self,
        modules: Modules,
        optimizer: torch.optim.Optimizer,
        generator: torch.Generator,
        fresh: Fresh | None = None,
    ) -> list[AfterStep]:
        """The after-step operations, attached to `modules` (actor and critic as a mapping).

        Args:
            modules: the networks whose hidden units are kept alive; output layers are never touched by surgery.
            optimizer: the one that trains them.
            generator: source of every random draw the operations make.
            fresh: gives the k-th newly drawn network of the same shape, for resets.

        Raises:
            ValueError: a value that an operation refuses, naming the method and the operation.
        """
        target = ModuleTarget(modules, optimizer, generator, fresh)
        return [self.make_operation(name, target, settings) for name, settings in self.operations.items()]

    def make_operation(self, name: str, target: Target, settings: Mapping[str, Any]) -> AfterStep:
        """One of the operations on `target`, with `settings` in place of its own (those of many runs as tensors).

        Raises:
            ValueError: a value that it refuses, naming the method and the operation.
        """
        row = OPERATIONS[name]
        when = {} if row.own_schedule else {key: settings[key] for key in ("period", "at_task") if key in settings}
        try:
            made = row.make(target, **{key: value for key, value in settings.items() if key not in when})
            if isinstance(made, Operation):
                made.schedule(**when)
            return made
        except (ValueError, TypeError) as error:
            named = name == self.name or str(error).startswith(f"{name}.")
            raise ValueError(f"method {self.name}: {error if named else f'{name}: {error}'}") from error
