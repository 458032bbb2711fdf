"""What every companion shares: it watches a network beside its optimizer and edits it after the optimizer's step."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from .births import birth_of, needs_inputs
from .distributed import average_, several, share_generator_
from .finding import Reader, Units
from .replace import Renewal, replace_together_
from .replacement import Replacement, private
from .scratch import Scratch
from .watch import Recent, Watch
from .words import nearest


class Layer:
    """One layer under watch: its units, its watches (one per distinct tensor that readers read), its counters."""

    def __init__(self, units: Units, birth: Any) -> None:
        self.units, self.birth = units, birth_of(birth)
        self.watches: list[Watch] = []
        self.heard: list[int | None] = []
        self.near = [Recent(module) for module in units.incoming] if needs_inputs(self.birth) else []
        self.replaced = 0

    def listen(
        self,
        wants: frozenset[str],
        centre: Callable[[int, Tensor], Tensor] | None = None,
        scratch: Scratch | None = None,
    ) -> None:
        """Watch the units where they are read: each distinct tensor once, the first one (a recurrent layer's own
        output, if it is one) for the statistics `wants` too; the others matter for the means that are handed over.

        Args:
            wants: see `Watch`.
            centre: (number of the watch, mean of a pass) -> running mean.
            scratch: see `Watch`.
        """
        distinct: dict[tuple[int, int], list[Reader]] = {}
        for reader in sorted(self.units.outgoing, key=lambda r: self._place(r, wants)):
            key = (reader.source, reader.start)
            if key in distinct or not distinct or self.units.takes_mean(reader):
                distinct.setdefault(key, []).append(reader)
        for i, readers in enumerate(distinct.values()):
            wanted = frozenset() if i else wants
            own = functools.partial(centre, i) if centre is not None else None
            self.watches.append(Watch(readers, self.units.width, wanted, own, scratch))
        keys = list(distinct)
        # per reader, the watch whose tensor it reads
        self.heard = [keys.index(k) if (k := (r.source, r.start)) in distinct else None for r in self.units.outgoing]

    @staticmethod
    def _place(reader: Reader, wants: frozenset[str]) -> int:
        """Where a reader stands: smaller ones are watched first."""
        # a head may read the last state instead of the output sequence, which then gets no gradient
        sequence = isinstance(reader.module, nn.RNNBase) and "sensitivity" in wants
        return 2 if reader.recurrent and sequence else 0 if reader.recurrent else 1

    def take(self) -> list[dict[str, Tensor] | None]:
        """What each watch recorded since the last call."""
        return [watch.take() for watch in self.watches]

    @property
    def device(self) -> torch.device:
        """Where the units live now."""
        return self.units.made[0].tensor().device

    def renewal(self, index: Tensor, means: Sequence[Tensor | None]) -> Renewal:
        """These units go; `means`: see `Renewal`."""
        return Renewal(self.units, index, means, self.birth, [near.inputs for near in self.near])


class Companion:
    """Base of `ContinualBackprop`, `ReDo` and `SelfNormalizedResets`.

    Subclasses implement `_layer(units, **settings) -> Layer` and `_after_step() -> list[(Layer, Renewal)]`.

    Args:
        units: what `surgery.find` returns, one `Units`, or several.
        optimizer: the optimizer that trains them, or several; needed to forget its state.
        settings: of a layer, by name.
        layers: settings by layer name that differ: {"actor.0": {"rate": 1e-3}}.
        replacement: how units are renewed; its birth can be another one for each layer.
        distributed: where torch.distributed is set up with several processes, choose the same units on each of them
            (every process must then take the same steps). False: this network is this process's own.

    Raises:
        ValueError: no units, names used twice, units whose parameters none of the optimizers trains.
        TypeError: an optimizer that is none, or one without per-entry state (LBFGS).
        KeyError: a layer or a setting of a layer that does not exist.
    """

    layers: list[Any]

    def __init__(
        self,
        units: Units | Iterable[Units],
        optimizer: Optimizer | Sequence[Optimizer],
        settings: Mapping[str, Any],
        *,
        layers: Mapping[str, Mapping[str, Any]] | None,
        replacement: Replacement,
        distributed: bool,
    ) -> None:
        self.distributed, self._shared = distributed, False
        self.optimizers = [optimizer] if isinstance(optimizer, Optimizer) else list(optimizer)
        self.replacement = replacement
        self.generator = replacement.generator if replacement.generator is not None else private()
        self.units = [units] if isinstance(units, Units) else list(units)
        _check(self.units, self.optimizers)
        each = per_layer_settings(self.units, {**settings, "birth": replacement.birth}, layers)
        self.steps = 0
        self.layers = []
        self._stepped: set[int] = set()
        self._attached = False
        self._handles = [optimizer.register_step_post_hook(self._on_optimizer_step) for optimizer in self.optimizers]
        with self._undone_on_error():
            for u, s in zip(self.units, each, strict=True):
                self.layers.append(self._layer(u, **s))

    @contextmanager
    def _undone_on_error(self) -> Iterator[None]:
        """A refusal in the middle of construction leaves no hooks behind."""
        try:
            yield
        except BaseException:
            self.detach()
            raise

    def attach(self) -> None:
        """Run `step()` at the end of every optimizer step (with several optimizers: once all have stepped)."""
        self._attached = True

    def detach(self) -> None:
        """Remove every hook from the network and the optimizers; the companion does nothing from here on."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        for layer in self.layers:
            for watch in layer.watches:
                watch.close()
            for near in layer.near:
                near.close()
        self._attached = False
        self._stepped.clear()

    @torch.no_grad()
    def step(self) -> dict[str, Tensor]:
        """Look after the units once; call it after `optimizer.step()`.

        Returns:
            layer name -> indices of the units replaced in this step (int64, on the layer's device); only the layers
            with replacements. Empty when the optimizer did not step since the last call (a step that GradScaler
            skipped); what was recorded for it is dropped.

        Raises:
            RuntimeError: no training pass through the watched layers was seen.
        """
        if not self._stepped:
            self.forget_passes()
            return {}
        self._stepped.clear()
        self.steps += 1
        if self.distributed and not self._shared and several():
            share_generator_(self.generator, self.layers[0].device)
            self._shared = True
        renewals = self._after_step()
        if renewals:
            replace_together_(
                [renewal for _, renewal in renewals],
                self.optimizers,
                self.generator,
                bias=self.replacement.bias,
                keep_state=self.replacement.keep_optimizer_state,
            )
        return {layer.units.name: renewal.index for layer, renewal in renewals}

    def forget_passes(self) -> None:
        """Drop what was recorded since the last step: the optimizer will not step on it."""
        for layer in self.layers:
            for watch in layer.watches:
                watch.clear()

    def _agree(self, tensors: Sequence[Tensor]) -> None:
        """The mean over all processes, in place; every process gets the same."""
        if self.distributed and tensors and several():
            average_(tensors)

    def _same_layers(self, stored: Mapping[str, int]) -> None:
        present = {layer.units.name: layer.units.width for layer in self.layers}
        if dict(stored) != present:
            raise ValueError(f"this state is of layers {dict(stored)}, the network has {present}")

    def _layer(self, units: Units, **settings: Any) -> Layer:
        raise NotImplementedError

    def _after_step(self) -> list[tuple[Any, Renewal]]:
        raise NotImplementedError

    def _on_optimizer_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        found = getattr(optimizer, "found_inf", None)  # a fused step under GradScaler decides on the device
        if found is not None and bool(found):
            return
        self._stepped.add(id(optimizer))
        if self._attached and len(self._stepped) == len(self.optimizers):
            self.step()

    def _seen_nothing(self) -> RuntimeError:
        return RuntimeError(
            f"{type(self).__name__}.step(): no training pass through {[layer.units.name for layer in self.layers]} was "
            "seen since the last step. Passes count when gradients are enabled and they go through these very modules: "
            "make the companion before the first call of a torch.compile'd model, and after any copy of the network"
        )


def per_layer_settings(
    units: Sequence[Units], common: Mapping[str, Any], layers: Mapping[str, Mapping[str, Any]] | None
) -> list[dict[str, Any]]:
    """The settings of each layer: the common ones, overridden by those under its name.

    Raises:
        KeyError: a layer or a setting that does not exist, with the nearest that does.
    """
    names = [u.name for u in units]
    for name, settings in (layers or {}).items():
        if name not in names:
            raise KeyError(f"there is no layer {name!r}: {nearest(name, names)}")
        for key in settings:
            if key not in common:
                raise KeyError(f"there is no setting {key!r}: {nearest(key, common)}")
    return [{**common, **(layers or {}).get(name, {})} for name in names]


def _check(units: Sequence[Units], optimizers: Sequence[Optimizer]) -> None:
    if not units:
        raise ValueError("no units to look after: surgery.find(net) prints what it found and why not")
    names = [u.name for u in units]
    if len(set(names)) < len(names):
        raise ValueError(f"units need names of their own, got {names}")
    for optimizer in optimizers:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"surgery needs a torch.optim.Optimizer, got {type(optimizer).__name__}")
        if isinstance(optimizer, torch.optim.LBFGS):
            raise TypeError("LBFGS keeps no state per weight that could be forgotten; surgery cannot work beside it")
    trained = {id(p) for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]}
    for u in units:
        if not any(id(p) in trained for p in u.parameters()):
            raise ValueError(
                f"the optimizer trains no parameter of units {u.name!r}: was it made for a copy of the network, or "
                "before the parameters were replaced?"
            )
