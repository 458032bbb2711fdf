"""One object that looks at a network now and then, without touching it."""

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from continual_agents import surgery
from continual_agents.surgery.finding import Reader, Units, axes_of

from .measures import summarise
from .units import FLAT


class Probe:
    """Reads the hidden units of any module on an evaluation batch: dead units, ranks, weight magnitudes.

    The network is run once, without gradients and in evaluation mode, and left as it was: its training flags, the
    random generators and what surgery has recorded do not change.

    Args:
        modules: a module, or name -> module (an actor and a critic), whose names then prefix their layers'.
        example_inputs: passed to `surgery.find`, which traces the hidden layers; not needed for plain stacks.
        units: hidden layers found or made by hand, instead of `find`.

    Raises:
        ValueError: no hidden layer was found, and why.

    Example:
        >>> probe = Probe({"actor": actor, "critic": critic})
        >>> probe(observations)["plasticity/dead_units/actor.0"]
        0.015625
    """

    def __init__(self, modules: nn.Module | Mapping[str, nn.Module], *example_inputs: Any, units: Any = None):
        named = dict(modules) if isinstance(modules, Mapping) else {"": modules}
        # the module inside torch.compile has the same parameters; a compiled one ignores hooks set after compiling
        self.modules: dict[str, nn.Module] = {name: getattr(m, "_orig_mod", m) for name, m in named.items()}
        found = surgery.find(self.modules, *example_inputs, frozen=True) if units is None else units
        self.units: list[Units] = list(found)
        if not self.units:
            raise ValueError(f"there is nothing to probe: {found!r}")
        self.seconds = 0.0
        """Processor time of the last look."""

    def __call__(self, batch: Any) -> dict[str, float]:
        """Look once.

        Args:
            batch: input of every module: one tensor `[batch, ...]`, a tuple of arguments, or name -> either of them.

        Returns:
            The numbers of `summarise`, as floats.
        """
        started = time.process_time()
        activations = self.activations(batch)
        kinds = {units.name: _kind(units) for units in self.units}
        summary = summarise(activations, self._weights(), kinds=kinds)
        values = torch.stack([value.double() for value in summary.values()]).tolist()  # one wait for the device
        self.seconds = time.process_time() - started
        return dict(zip(summary, values, strict=True))

    def activations(self, batch: Any) -> dict[str, Tensor]:
        """What each hidden layer gives on `batch`: name -> `[batch, width]`; positions and time count as batch."""
        seen: dict[str, list[Tensor]] = {}
        with ExitStack() as stack:
            for module in self.modules.values():
                stack.enter_context(_undisturbed(module))
            stack.enter_context(torch.no_grad())
            for units in self.units:
                stack.callback(_watch(units, seen.setdefault(units.name, [])).remove)
            for name, module in self.modules.items():
                module(*_arguments(batch, name))
        silent = [name for name, tensors in seen.items() if not tensors]
        if silent:
            raise RuntimeError(f"layers {silent} did not run on this batch: probe with inputs that reach every layer")
        return {name: torch.cat(tensors) for name, tensors in seen.items()}

    def period(self, seconds_per_step: float, *, share: float = 0.03) -> int:
        """Steps between looks that keep their cost under `share` of the run, by the last look's cost.

        It depends on the clock: choose a period once and write it into the configuration.

        Args:
            seconds_per_step: processor time of one step without the probe.
            share: of the run's time.
        """
        return max(1, math.ceil(self.seconds / (share * seconds_per_step)))

    def _weights(self) -> dict[str, Tensor]:
        return {
            ".".join(filter(None, (prefix, name.removesuffix(".weight")))): parameter
            for prefix, module in self.modules.items()
            for name, parameter in module.named_parameters()
            if parameter.dim() > 1
        }


def _watch(units: Units, seen: list[Tensor]) -> Any:
    """Hook that keeps the units' outputs: a recurrent layer's output, else the input of a layer that reads them."""
    recurrent = next((reader for reader in units.outgoing if reader.recurrent), None)
    if recurrent is not None:
        return recurrent.module.register_forward_hook(lambda _, inputs, output: seen.append(_rows(output, units)))
    reader = units.outgoing[0]

    def keep(module: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        seen.append(_read(inputs[0] if inputs else next(iter(keywords.values())), units.width, reader))

    return reader.module.register_forward_pre_hook(keep, with_kwargs=True)


def _read(inputs: Tensor, width: int, reader: Reader) -> Tensor:
    """The units' part of a reader's input, as `[batch, width]`."""
    axes = axes_of(reader.module)
    axis = -1 if axes is None else axes.read_axis
    # a flattened map has a unit's positions one behind the other: they become examples, as positions of a map do
    part = inputs.detach().movedim(axis, -1)[..., reader.start : reader.start + width * reader.block]
    return part.unflatten(-1, (width, reader.block)).mT.reshape(-1, width)


def _rows(output: Any, units: Units) -> Tensor:
    tensor = output[0] if isinstance(output, tuple) else output
    if isinstance(tensor, nn.utils.rnn.PackedSequence):
        tensor = tensor.data
    return tensor.detach().reshape(-1, units.width)


def _kind(units: Units) -> str:
    """Which flat parts count, by the names on the path to the reader; the last one that has any decides."""
    # a label may say more in brackets: `Flatten(4)`
    names = [name.lower().split("(")[0] for name in units.path]
    return next((name for name in reversed(names) if name in FLAT), "relu")


def _arguments(batch: Any, name: str) -> tuple[Any, ...]:
    inputs = batch[name] if isinstance(batch, Mapping) and name in batch else batch
    return inputs if isinstance(inputs, tuple) else (inputs,)


@contextmanager
def _undisturbed(module: nn.Module) -> Iterator[None]:
    """Evaluation mode for the duration; every submodule's own flag and all random generators are put back."""
    flags = {part: part.training for part in module.modules()}
    devices = {p.device.index or 0 for p in module.parameters() if p.device.type == "cuda"}
    # a module in evaluation mode may draw all the same, and a run with a probe must be the run without
    with torch.random.fork_rng(devices=sorted(devices)):
        module.eval()
        try:
            yield
        finally:
            for part, training in flags.items():
                part.training = training
