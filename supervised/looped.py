"""Learners that are a loop over ordinary modules, for networks that gain nothing from stacking on a CPU (conv nets).

On a CPU a grouped convolution over runs is slower than the runs one after the other, so each run is an ordinary
`nn.Module` with an ordinary optimizer and the companions of `continual_agents.surgery`.
"""

import copy
import dataclasses
import functools
import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from continual_agents.methods import OPERATIONS, AfterStep, Method, Operation
from continual_agents.networks import activation_of
from continual_agents.surgery import Birth, ContinualBackprop

from .draws import Draw, torch_draws
from .looped_graph import CapturedLoop
from .losses import LOSSES
from .networks import Mlp, Network
from .residual import ResidualNet
from .states import array_of


class LoopedLearner:
    """R runs of one network shape, one after the other; the interface of `StackedLearner`.

    Args:
        network: the common shape.
        methods: one per run.
        seeds: one per run.
        loss: "cross_entropy" or "squared_error".
        device: of everything.
        fast: on a GPU take the steps of all runs as one CUDA graph, where the method allows it: SGD, and
            nothing but continual backpropagation that looks at the passes.

    Attributes:
        code: how the steps are taken: "torch" or "graph".
        channels_last: whether kernels lie in memory with their channels last: on a CPU, where oneDNN then takes a step
            in three quarters of the time (docs/performance/conv.md).

    Raises:
        ValueError: a setting out of range.
    """

    def __init__(
        self,
        network: Network,
        methods: Sequence[Method],
        seeds: Sequence[int],
        *,
        loss: str,
        device: torch.device | str = "cpu",
        fast: bool = False,
    ):
        self.network, self.seeds, self.loss = network, list(seeds), loss
        self.device = torch.device(device)
        self.channels_last = self.device.type == "cpu" and not isinstance(network, Mlp)
        self.modules = [network.module(seed).to(device) for seed in self.seeds]
        if self.channels_last:
            for module in self.modules:
                module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizers: list[torch.optim.Optimizer] = []
        self.operations: list[list[AfterStep]] = []
        for module, method, seed in zip(self.modules, methods, self.seeds, strict=True):
            method = dataclasses.replace(method, operations=self._operations_of(method))
            optimizer = method.make_optimizer(module.parameters())
            self.optimizers.append(optimizer)
            generator = torch_draws(seed, Draw.NEWBORN)
            fresh = functools.partial(self._fresh, seed)
            self.operations.append(method.make_operations(module, optimizer, generator, fresh))
        self.replaced = np.zeros(len(self.seeds))
        captured = fast and self.device.type == "cuda" and all(map(self._one_graph, range(self.runs)))
        self._fast = CapturedLoop(self._gradient_step, self.runs, self._baked) if captured else None
        self.code = "graph" if captured else "torch"

    def _one_graph(self, run: int) -> bool:
        """Whether a run's step is the same device work every time, and then what can be done beside a graph."""
        repeats = [_repeats(operation) for operation in self.operations[run]]
        beside = [isinstance(operation, Operation) for operation in self.operations[run]]
        in_order = beside == sorted(beside)  # what is captured comes first
        drawing = any(isinstance(module, nn.Dropout) for module in self.modules[run].modules())
        return all(repeats) and in_order and not drawing and type(self.optimizers[run]) is torch.optim.SGD

    def _baked(self) -> Hashable:
        """What a captured step depends on beside the values of tensors."""
        return tuple(
            tuple(tuple(map(id, value)) if key == "params" else (key, value) for key, value in group.items())
            for optimizer in self.optimizers
            for group in optimizer.param_groups
        )

    def _operations_of(self, method: Method) -> dict[str, dict[str, Any]]:
        operations = {name: dict(settings) for name, settings in method.operations.items()}
        gain = activation_of(self.network.activation).gain

        def birth(new: Birth) -> Tensor:
            return new.uniform(gain * math.sqrt(3 / new.fan_in))

        for name, settings in operations.items():
            if OPERATIONS[name].renews:
                settings["birth"] = settings.get("birth") or birth
        return operations

    def _fresh(self, seed: int, index: int) -> nn.Module:
        return self.network.module(seed, start=index).to(self.device)

    @property
    def runs(self) -> int:
        """Number of runs."""
        return len(self.seeds)

    def learn(self, x: Tensor, y: Tensor) -> Tensor:
        """As `StackedLearner.learn`: `x [steps, runs, batch, *shape]`; the measures `[steps, runs]`."""
        measures = torch.empty(x.shape[:2], device=x.device)
        for step in range(len(x)):
            if self._fast is not None:
                measures[step] = self._fast(x[step], y[step])
                for run, operations in enumerate(self.operations):
                    for operation in operations:
                        once = operation.act if isinstance(operation, ContinualBackprop) else operation.step
                        self._count(run, once())
                continue
            for run in range(self.runs):
                measures[step, run] = self._learn_once(run, x[step, run], y[step, run])
        return measures

    def _learn_once(self, run: int, x: Tensor, y: Tensor) -> Tensor:
        measure = self._descend(run, x, y)
        for operation in self.operations[run]:
            self._count(run, operation.step())
        return measure

    def _gradient_step(self, run: int, x: Tensor, y: Tensor) -> Tensor:
        """The part of a step that is device work alone."""
        measure = self._descend(run, x, y)
        for operation in self.operations[run]:
            if isinstance(operation, ContinualBackprop):
                operation.follow()
        return measure

    def _descend(self, run: int, x: Tensor, y: Tensor) -> Tensor:
        module, optimizer = self.modules[run], self.optimizers[run]
        module.train()
        output = self._forward(module, x)
        loss = functional.cross_entropy(output, y) if self.loss == "cross_entropy" else functional.mse_loss(output, y)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return LOSSES[self.loss].measure(output.detach(), y)

    def _count(self, run: int, replaced: Any) -> None:
        if isinstance(replaced, dict):
            self.replaced[run] += sum(len(index) for index in replaced.values())

    def _forward(self, module: nn.Module, x: Tensor) -> Tensor:
        return module(x)

    @torch.no_grad()
    def start_task(self, task: int) -> None:
        """As `StackedLearner.start_task`."""
        for operations in self.operations:
            for operation in operations:
                if isinstance(operation, Operation):
                    operation.start_task(task)

    @torch.no_grad()
    def evaluate(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """As `StackedLearner.evaluate`; a feature map's positions count as examples."""
        outputs, hidden = [], []
        for module, inputs in zip(self.modules, x, strict=True):
            module.eval()
            output, layers = module.look(inputs) if isinstance(module, ResidualNet) else _look(module, inputs)
            outputs.append(output)
            hidden.append(layers)
        return torch.stack(outputs), {name: torch.stack([one[name] for one in hidden]) for name in hidden[0]}

    def weights(self) -> dict[str, Tensor]:
        """Weights by name, `[runs, ...]`."""
        return {name: value for name, value in self.trained().items() if value.dim() > 2}

    def trained(self) -> dict[str, Tensor]:
        """Every parameter by name, `[runs, ...]`."""
        found = [dict(module.named_parameters()) for module in self.modules]
        return {name: torch.stack([one[name].detach() for one in found]) for name in found[0]}

    def kinds(self) -> dict[str, str]:
        """How dead units of each hidden layer are told."""
        flat = activation_of(self.network.activation).flat
        if isinstance(self.modules[0], ResidualNet):
            return dict.fromkeys(self.modules[0].looked_at(), flat)
        names = {
            f"{'conv' if isinstance(layer, nn.MaxPool2d) else 'hidden'}_{name}"
            for name, layer in self.modules[0].named_children()
        }
        return dict.fromkeys(names, flat)

    def report(self) -> dict[str, np.ndarray]:
        """Units replaced so far, `[runs]`."""
        return {"replaced": self.replaced.copy()}

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to continue exactly."""
        state = {
            "modules": [dict(module.state_dict()) for module in self.modules],
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "operations": [[operation.state_dict() for operation in one] for one in self.operations],
            "replaced": self.replaced.copy(),
        }
        return copy.deepcopy(state)  # modules and optimizers hand out their own tensors

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict()`."""
        for run in range(self.runs):
            self.modules[run].load_state_dict(state["modules"][run])
            self.optimizers[run].load_state_dict(state["optimizers"][run])
            for operation, stored in zip(self.operations[run], state["operations"][run], strict=True):
                operation.load_state_dict(stored)
        self.replaced = array_of(state["replaced"])
        if self._fast is not None:
            self._fast.forget()


def _repeats(operation: AfterStep) -> bool:
    """Whether what it does at every step is the same device work, or can be done after a graph."""
    if isinstance(operation, ContinualBackprop):
        return operation.every == 1 and not any("noise" in layer.criterion.needs for layer in operation.layers)
    return isinstance(operation, Operation)


def _look(module: nn.Module, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Outputs of a chain of layers, and what its hidden ones give."""
    layers: dict[str, Tensor] = {}
    for name, layer in module.named_children():
        x = layer(x)
        # what the next layer reads: after the pooling in the convolutional part
        if isinstance(layer, nn.MaxPool2d):
            layers[f"conv_{name}"] = x.movedim(1, -1).flatten(0, 2)
        elif x.dim() == 2 and not isinstance(layer, nn.Linear | nn.Flatten):
            layers[f"hidden_{name}"] = x
    return x, layers
