"""What every companion shares: it watches a network beside its optimizer and edits it after the optimizer's step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from .distributed import average_, several, share_generator_
from .finding import Units
from .layer import Layer, per_layer_settings
from .replace import Renewal, replace_together_
from .replacement import Replacement, private
from .standing import Standing, check_trained

CHECKED = 100
"""Steps between two looks at whether the network is still the one that was found."""

PATIENCE = 10
"""Steps of training without an optimizer's step, after which the companion asks who trains."""


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
        self.distributed, self._shared, self._asked = distributed, False, -1
        self.replacement = replacement
        self.generator = replacement.generator if replacement.generator is not None else private()
        self.units = [units] if isinstance(units, Units) else list(units)
        self._settings, self._differing = {**settings, "birth": replacement.birth}, layers or {}
        self.steps = 0
        self.layers = []
        self._stepped: set[int] = set()
        self._attached = False
        self._handles: list[RemovableHandle] = []
        self._idle, self._version = 0, 0
        each = per_layer_settings(self.units, self._settings, self._differing)
        self.optimizers = optimizer
        with self._undone_on_error():
            self._watch(each)

    def _watch(self, settings: Sequence[Mapping[str, Any]]) -> None:
        for u, s in zip(self.units, settings, strict=True):
            self.layers.append(self._layer(u, **s))
            for watch in self.layers[-1].watches:
                watch.overdue = self._overdue

    @property
    def optimizers(self) -> list[Optimizer]:
        """Those that train the units. Set it (to one or several) when you make a new optimizer for the network."""
        return self._optimizers

    @optimizers.setter
    def optimizers(self, optimizer: Optimizer | Sequence[Optimizer]) -> None:
        chosen = [optimizer] if isinstance(optimizer, Optimizer) else list(optimizer)
        check_trained(self.units, chosen)
        for handle in self._handles:
            handle.remove()
        self._optimizers = chosen
        self._handles = [one.register_step_post_hook(self._on_optimizer_step) for one in chosen]
        self._stepped.clear()
        self._standing = Standing(self.units, chosen)
        self._idle = 0

    def refind(self, units: Units | Iterable[Units]) -> None:
        """Go on with these units, in a network that has been changed: a new head, a layer frozen or widened.

        Layers that were there before (by name and width) keep what is known of their units; the others begin now.

        Args:
            units: what `surgery.find` returns of the network as it is.

        Raises:
            ValueError: as in the constructor.
        """
        found = [units] if isinstance(units, Units) else list(units)
        check_trained(found, self.optimizers)
        before = {layer.units.name: layer for layer in self.layers}
        differing = {name: own for name, own in self._differing.items() if name in {u.name for u in found}}
        for layer in self.layers:
            layer.close()
        self.units, self.layers = found, []
        self._watch(per_layer_settings(found, self._settings, differing))
        for layer in self.layers:
            known = before.get(layer.units.name)
            if known is not None and known.units.width == layer.units.width:
                layer.adopt(known)
            else:
                layer.begin(self.steps)
        self._standing = Standing(self.units, self.optimizers)

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
            layer.close()
        self._attached = False
        self._stepped.clear()

    def step(self) -> dict[str, Tensor]:
        """Look after the units once; call it after `optimizer.step()`.

        Returns:
            layer name -> indices of the units replaced in this step (int64, on the layer's device); only the layers
            with replacements. Empty when the optimizer did not step since the last call (a step that GradScaler
            skipped); what was recorded for it is dropped.

        Raises:
            RuntimeError: no training pass through the watched layers was seen; or what is watched is no longer what the
                network computes or the optimizer trains.
        """
        if not self._stepped:
            self._miss()
            return {}
        self._stepped.clear()
        self._take_in()
        return self._renew()

    def follow(self) -> None:
        """The first half of `step()`: take in what the passes since the last step said.

        Nothing in it asks the device. A training loop in a CUDA graph captures it after its `optimizer.step()`, and
        calls `act()` after every replay; only `ContinualBackprop(every=1)` can be captured.

        Raises:
            RuntimeError: as `step()`.
        """
        self._take_in()

    def act(self) -> dict[str, Tensor]:
        """The second half of `step()`: count the step, and renew what is due; as `step()`, but for a skipped step."""
        return self._renew()

    def _take_in(self) -> None:
        if self.distributed and not self._shared and self._asked != (self.steps + 1) // CHECKED:
            self._asked = (self.steps + 1) // CHECKED
            if several():
                share_generator_(self.generator, self.layers[0].device)
                self._shared = True
        self._follow_step()

    def _renew(self) -> dict[str, Tensor]:
        self.steps, self._idle = self.steps + 1, 0
        if self.steps % CHECKED == 0:
            self._standing.check()
        renewals = self._after_step()
        if not renewals:
            return {}
        with torch.no_grad():
            self._standing.check(optimizers=False)
            replace_together_(
                [renewal for _, renewal in renewals],
                self.optimizers,
                self.generator,
                bias=self.replacement.bias,
                keep_state=self.replacement.keep_optimizer_state,
                layer_by_layer=self.replacement.layer_by_layer,
            )
        return {layer.units.name: renewal.index for layer, renewal in renewals}

    def _miss(self) -> None:
        """The optimizer did not step. GradScaler may have skipped it, and then the weights are as they were; if they
        change all the same, someone else trains them."""
        if any(watch.recorded for layer in self.layers for watch in layer.watches):
            self._idle += 1
            self._changed(self._idle, PATIENCE)
        self.forget_passes()

    def _overdue(self) -> None:
        """Called now and then when passes were recorded and nobody took them: the same question for `attach()`."""
        if not self._stepped:
            self._idle += 1
            self._changed(self._idle, 2)

    def _changed(self, count: int, patience: int) -> None:
        """Raise if the weights have changed since the first of at least `patience` calls."""
        version = sum(layer.units.made[0].tensor()._version for layer in self.layers)
        if count == 1:
            self._version = version
        elif count >= patience and version != self._version:
            raise RuntimeError(
                f"{type(self).__name__}: the weights of {[layer.units.name for layer in self.layers]} change, but "
                "none of its optimizers steps: companion.optimizers = ... names the one that trains them now"
            )

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

    # both without gradients, which costs some microseconds, and a quiet step of C has no tensors
    def _follow_step(self) -> None:
        """What is done with the passes of every step, without asking the device; by default all is `_after_step`'s."""

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
