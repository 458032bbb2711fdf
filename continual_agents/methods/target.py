"""What an operation acts on: the same few verbs for an ordinary network and for a stack of runs.

Every tensor may have leading "runs" dims: a module's weight is `[outputs, inputs]`, a stack's
`[runs, outputs, inputs]`.
A setting that may differ per run is a number for a module and a tensor `[runs, 1, 1]` for a stack, so one formula
serves both.
"""

import copy
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from continual_agents import surgery
from continual_agents.surgery.births import birth_of
from continual_agents.surgery.moving import moved

Modules = nn.Module | Mapping[str, nn.Module]
"""A network, or several by name (actor and critic)."""

Setting = float | Tensor
"""A number, or one per run: `[runs, 1, 1]`."""

Fresh = Callable[[int], Modules]
"""The k-th newly drawn network of the same shape (1, 2, ...; what was given at first is the 0th)."""


@dataclass(frozen=True)
class Layer:
    """One weight matrix and its bias; views of what is trained, changed in place.

    Attributes:
        name: as in tables.
        weight: `[*runs, outputs, inputs]`; a kernel's positions count as inputs.
        bias: `[*runs, outputs, 1]`, or None.
    """

    name: str
    weight: Tensor
    bias: Tensor | None


class Target(Protocol):
    """One or several networks, of one run or of many.

    Attributes:
        networks: the layers of each network, first to last; the last one makes the output.
        tensors: everything that is trained, each once.
        listeners: who is told when all weights were drawn anew.
    """

    listeners: list[Callable[[], None]]

    @property
    def networks(self) -> list[list[Layer]]:
        """As above."""

    @property
    def tensors(self) -> list[Tensor]:
        """As above."""

    def add_noise_(self, scale: Setting, number: int) -> None:
        """Add `scale * N(0, 1)` to everything that is trained; `number` names the draw."""

    def born_as(self, birth: str | None) -> None:
        """How new weights are drawn: a name of `surgery.BIRTHS`; None: as the network began.

        Raises:
            ValueError: an unknown name, or one that this target cannot draw from.
        """

    def fresh(self, index: int) -> list[Tensor]:
        """Values of the `index`-th newly drawn network, like `tensors`."""

    def draw_(self, last: int | None, index: int) -> None:
        """Give each network's `last` layers (None: all, norms and their statistics too) the `index`-th new draw."""

    def forget(self, last: int | None) -> None:
        """Let the optimizer forget what it knows of each network's `last` layers; None: of everything."""

    def inject(self, index: int) -> None:
        """Freeze the networks and go on with the `index`-th new ones beside them (see `PlasticityInjection`)."""

    def on_restart(self, tell: Callable[[], None]) -> None:
        """Call `tell` whenever all weights were drawn anew."""
        self.listeners.append(tell)

    def restarted(self) -> None:
        """Tell those who asked."""
        for tell in self.listeners:
            tell()

    def sums(self, tensors: Sequence[Tensor]) -> Any:
        """The sum of all entries, per run: a float, or an array `[runs]`."""

    def each(self, value: float) -> Any:
        """A number that is the same for every run, in the form of `sums`."""

    def state_dict(self) -> dict[str, Any]:
        """What the target's own verbs need to continue: generator, injected networks."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict()`."""


def last_layers(target: Target, count: int | None) -> list[Layer]:
    """Each network's last `count` layers; None: all."""
    return [layer for network in target.networks for layer in (network if count is None else network[-count:])]


def hidden_layers(target: Target) -> list[Layer]:
    """All layers but each network's output layer."""
    return [layer for network in target.networks for layer in network[:-1]]


def parameters_of(modules: Modules) -> list[nn.Parameter]:
    """Every parameter of one or several networks, in order."""
    parts = modules.values() if isinstance(modules, Mapping) else [modules]
    return [parameter for part in parts for parameter in part.parameters()]


class ModuleTarget(Target):
    """An ordinary network, or several.

    Args:
        modules: what is trained.
        optimizer: what trains it, and perhaps other parameters (a policy's log-deviation): they begin anew with a whole
            network.
        generator: source of every random draw.
        fresh: gives newly drawn networks; None: weights are drawn from `birth`, biases are 0 (of PyTorch's own birth,
            `default`, drawn too), and everything else is what it is now.
    """

    def __init__(
        self,
        modules: Modules,
        optimizer: torch.optim.Optimizer,
        generator: torch.Generator,
        fresh: Fresh | None = None,
    ):
        self.modules, self.optimizer, self.generator, self._fresh = modules, optimizer, generator, fresh
        self.parts = dict(modules) if isinstance(modules, Mapping) else {"": modules}
        self.birth = birth_of("default")
        # what is trained and drawn from no distribution (a norm's gain, a policy's log-deviation) begins as it is now
        own = {id(parameter) for parameter in parameters_of(modules)}
        drawn = {id(p) for part in self.parts.values() for _, m in _modules(part) for p in m.parameters(recurse=False)}
        trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        inside = [parameter for parameter in parameters_of(modules) if id(parameter) not in drawn]
        outside = [parameter for parameter in trained if id(parameter) not in own]
        self.others = [(parameter, parameter.detach().clone()) for parameter in (*inside, *outside)]
        self._injected: dict[str, list[tuple[nn.Module, nn.Module]]] = {name: [] for name in self.parts}
        self.listeners = []

    @property
    def tensors(self) -> list[Tensor]:
        """Every parameter of the networks."""
        return [parameter.detach() for parameter in parameters_of(self.modules)]

    @property
    def networks(self) -> list[list[Layer]]:
        """Every weight of two or more dims, with the bias beside it."""
        return [
            [
                Layer(".".join(word for word in (name, path) if word), *_views(module, key))
                for path, module in _modules(part)
                for key, parameter in module.named_parameters(recurse=False)
                if parameter.dim() > 1
            ]
            for name, part in self.parts.items()
        ]

    @torch.no_grad()
    def add_noise_(self, scale: Setting, number: int) -> None:
        """As the protocol; draws follow each other, whatever the number."""
        # one draw for all: a call a tensor takes longer than the numbers
        sizes = [tensor.numel() for tensor in self.tensors]
        draw = torch.empty(sum(sizes), device=self.generator.device)
        draw.normal_(0.0, float(scale), generator=self.generator)
        for tensor, part in zip(self.tensors, draw.split(sizes), strict=True):
            tensor.add_(moved(part.view_as(tensor), tensor))

    def born_as(self, birth: str | None) -> None:
        """As the protocol; None: as torch does, unless whole networks are given."""
        self.birth = birth_of(birth if birth is not None else "default")
        if birth is not None:
            self._fresh = None  # networks that are given whole are born as they were at first

    def fresh(self, index: int) -> list[Tensor]:
        """As the protocol."""
        drawn = {name: self._new(name, index) for name in self.parts}
        return [p.detach() for part in drawn.values() for p in part.parameters()]

    @torch.no_grad()
    def _new(self, name: str, index: int) -> nn.Module:
        """A newly drawn network of one part."""
        if self._fresh is not None:
            drawn = self._fresh(index)
            return drawn[name] if isinstance(drawn, Mapping) else drawn
        new = _copied(self.parts[name])
        for _, module in _modules(new):
            self._draw(module)
        others = {id(parameter): initial for parameter, initial in self.others}
        for old, parameter in zip(self.parts[name].parameters(), new.parameters(), strict=True):
            if id(old) in others:
                parameter.copy_(others[id(old)])
        return new

    def _draw(self, module: nn.Module) -> None:
        for parameter in module.parameters(recurse=False):
            if parameter.dim() < 2:
                self._draw_bias(module, parameter)
                continue
            fan_in, kernel = parameter[0].numel(), parameter[0, 0].numel() if parameter.dim() > 2 else 1
            index = torch.arange(len(parameter), device=parameter.device)
            born = self.birth(
                surgery.Birth(
                    tuple(parameter.shape), fan_in, len(parameter) * kernel, fan_in**-0.5, parameter, index,
                    generator=self.generator,
                )
            )  # fmt: skip
            parameter.copy_(born if isinstance(born, Tensor) else born[0])

    def _draw_bias(self, module: nn.Module, bias: nn.Parameter) -> None:
        """PyTorch's own distribution has biases too; the others begin at 0."""
        if self.birth is not surgery.BIRTHS["default"]:
            bias.zero_()
            return
        weight = next(p for p in module.parameters(recurse=False) if p.dim() > 1)
        draw = torch.empty(bias.shape, device=self.generator.device)
        bound = weight[0].numel() ** -0.5
        bias.copy_(moved(draw.uniform_(-bound, bound, generator=self.generator), bias))

    @torch.no_grad()
    def draw_(self, last: int | None, index: int) -> None:
        """As the protocol; buffers (a norm's running statistics) begin anew with everything else."""
        for name, part in self.parts.items():
            new = self._new(name, index)
            whole = [(part, new)]
            last_ones = [(a, b) for (_, a), (_, b) in zip(_modules(part), _modules(new), strict=True)]
            for old, drawn in whole if last is None else last_ones[-last:]:
                for a, b in zip(old.parameters(), drawn.parameters(), strict=True):
                    a.copy_(b)
            if last is None and self._fresh is not None:
                for buffer, begun in zip(part.buffers(), new.buffers(), strict=True):
                    buffer.copy_(begun)
        if last is None:
            for parameter, initial in self.others:
                parameter.copy_(initial)

    def forget(self, last: int | None) -> None:
        """As the protocol."""
        if last is None:
            parameters = [*parameters_of(self.modules), *(parameter for parameter, _ in self.others)]
        else:
            chosen = [module for part in self.parts.values() for _, module in _modules(part)[-last:]]
            parameters = [parameter for module in chosen for parameter in module.parameters()]
        for parameter in parameters:
            self.optimizer.state.pop(parameter, None)  # torch's optimizers begin it anew at their next step

    def inject(self, index: int) -> None:
        """As the protocol: the frozen pair is added by a hook on the network's output."""
        for name, part in self.parts.items():
            old, new = _copied(part), self._new(name, index)
            self._freeze(name, old, new)
            part.load_state_dict(new.state_dict())

    def _freeze(self, name: str, old: nn.Module, new: nn.Module) -> None:
        part = self.parts[name]
        if not self._injected[name]:
            # `module(x)` is what everybody calls, so nobody else needs to know
            part.register_forward_hook(lambda _, inputs, output: self._with_frozen(name, inputs[0], output))
        frozen = [_copied(one).requires_grad_(False).eval() for one in (old, new)]
        self._injected[name].append((frozen[0], frozen[1]))

    def _with_frozen(self, name: str, x: Tensor, output: Tensor) -> Tensor:
        for old, new in self._injected[name]:
            output = output + (old(x) - new(x))
        return output

    def sums(self, tensors: Sequence[Tensor]) -> float:
        """As the protocol."""
        return sum(float(tensor.sum()) for tensor in tensors)

    def each(self, value: float) -> float:
        """As the protocol."""
        return float(value)

    def state_dict(self) -> dict[str, Any]:
        """As the protocol."""
        injected = {
            name: [[dict(one.state_dict()) for one in pair] for pair in pairs] for name, pairs in self._injected.items()
        }
        others = [initial.clone() for _, initial in self.others]
        return {"generator": self.generator.get_state(), "others": others, "injected": injected}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """As the protocol."""
        self.generator.set_state(state["generator"].cpu())
        for (_, initial), stored in zip(self.others, state["others"], strict=True):
            initial.copy_(stored)
        for name, pairs in state["injected"].items():
            for number, pair in enumerate(pairs):
                if number == len(self._injected[name]):
                    self._freeze(name, self.parts[name], self.parts[name])  # any weights: the stored ones follow
                for one, stored in zip(self._injected[name][number], pair, strict=True):
                    one.load_state_dict(stored)


def _modules(part: nn.Module) -> list[tuple[str, nn.Module]]:
    """Modules with a weight matrix of their own, first to last."""
    return [
        (name, module)
        for name, module in part.named_modules()
        if any(parameter.dim() > 1 for parameter in module.parameters(recurse=False))
    ]


def _copied(part: nn.Module) -> nn.Module:
    """The network without whoever listens to it."""
    # generators (of dropout layers) cannot be copied; nothing draws from those of a copy
    kept = {id(v): v for module in part.modules() for v in vars(module).values() if isinstance(v, torch.Generator)}
    listening = [(module, module._forward_hooks, module._forward_pre_hooks) for module in part.modules()]
    try:
        for module, *_ in listening:
            module._forward_hooks, module._forward_pre_hooks = OrderedDict(), OrderedDict()
        return copy.deepcopy(part, kept)
    finally:
        for module, hooks, before in listening:
            module._forward_hooks, module._forward_pre_hooks = hooks, before


def _views(module: nn.Module, key: str) -> tuple[Tensor, Tensor | None]:
    weight = getattr(module, key).detach()
    bias = getattr(module, key.replace("weight", "bias"), None) if key.startswith("weight") else None
    # flatten would copy where a kernel is not contiguous (channels last)
    flat = (
        weight.flatten(1)
        if weight.is_contiguous()
        else weight.as_strided((weight.shape[0], weight[0].numel()), (weight.stride(0), 1))
    )
    return flat, None if bias is None else bias.detach()[:, None]
