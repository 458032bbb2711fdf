"""Adam whose step count is kept per unit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .ages import AGE, Ages, horizon
from .gathered import Gathered, Update
from .scratch import Scratch


class Adam(torch.optim.Adam):
    """`torch.optim.Adam`, with a step count of its own for every reborn row or column.

    Adam divides its moments by `1 - beta^step`. When a unit is replaced its moments restart at 0, but the one step
    count of its parameter does not: the newborn's first update is then (1 - beta1) / sqrt(1 - beta2) = 3.15 ordinary
    updates with the usual betas, 6.55 at its peak. Here entries that were forgotten correct with the steps since
    their own birth.

    All options of `torch.optim.Adam`, with the same results to the last bit as long as nothing is replaced: a
    parameter without young entries takes torch's own (fused, foreach or plain) path. A parameter with young ones
    takes a path of its own on its device until the youngest entry's correction has worn off, and goes back. On a CPU
    with a C compiler that is one pass over it and, with `fused=True`, over the others beside it. Elsewhere
    `fused=True` takes torch's fused kernel, its steps scaled entry by entry, in one call with the other parameters;
    eps then counts, in parameters with young entries, as if it were added before the second moment's correction
    (Kingma and Ba's efficient form).

    State per parameter, besides torch's, while it has young entries: `age_<dim>`, the steps of each row or column
    since its own start (broadcastable), and `young`, the number of steps until the last correction has worn off.

    Raises:
        RuntimeError: entries are forgotten under `differentiable=True` or in a complex parameter, or `step` is compiled
            (torch.compile) while some are young.

    Example:
        >>> optimizer = Adam(net.parameters(), lr=1e-4, betas=(0.99, 0.99), fused=True)
    """

    AGE = AGE

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._forgo_amp_scaling()

    def forget_(self, parameter: Tensor, dim: int, index: Tensor) -> None:
        """Start the step count of the entries `index` [k] along `dim` anew; the moments are the caller's to zero."""
        state = self.state.get(parameter)
        if not state:
            return
        group = self.group_of(parameter)
        if group["differentiable"] or parameter.is_complex():
            raise RuntimeError("surgery.Adam cannot restart entries under differentiable=True or in complex parameters")
        dim = dim % parameter.ndim
        name = f"{self.AGE}{dim}"
        if name not in state:
            shape = [1] * parameter.ndim
            shape[dim] = parameter.shape[dim]
            state[name] = state["step"].to(parameter.device, torch.int64).expand(shape).clone()
            self._known.clear()
        state[name].index_fill_(dim, index, 0)
        self.born(parameter, group)

    def group_of(self, parameter: Tensor) -> dict[str, Any]:
        """The group that `parameter` is in."""
        return next(g for g in self.param_groups if any(p is parameter for p in g["params"]))

    def born(self, parameter: Tensor, group: dict[str, Any]) -> None:
        """Note that ages of entries of `parameter`, which is in `group`, were put to 0."""
        for gathered in self._known:
            gathered.born()
        self.state[parameter]["young"] = horizon(_betas(group), parameter.dtype)

    def load_state_dict(self, state_dict: Any) -> None:
        """As torch's, with ages kept as they are whatever the parameter's type."""
        super().load_state_dict(state_dict)
        order = [i for group in state_dict["param_groups"] for i in group["params"]]
        parameters = [p for group in self.param_groups for p in group["params"]]
        for i, parameter in zip(order, parameters, strict=True):
            for name, value in state_dict["state"].get(i, {}).items():
                if name.startswith(self.AGE):
                    self.state[parameter][name] = value.to(parameter.device, torch.int64, copy=True)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._forgo_amp_scaling()

    def _forgo_amp_scaling(self) -> None:
        # GradScaler then unscales and skips on the host; the elementwise path needs no device-side skip of its own
        self._step_supports_amp_scaling = False
        self._known: list[Gathered] = []  # of the latest updates
        self._settled: dict[torch.device, Tensor] = {}
        self._scratch = Scratch()

    def _init_group(self, group: dict[str, Any], *lists: Any) -> bool:
        """Update the parameters with young entries here, and let torch gather the rest for its own update.

        With `fused=True` all are updated here: torch takes longer to gather a small network than to step it.
        """
        compiling = torch.compiler.is_compiling()
        fused = group["fused"] and not isinstance(group["lr"], Tensor) and not compiling
        params = [p for p in group["params"] if p.grad is not None]
        states = [self.state.get(p) for p in params]
        gathered = next((known for known in self._known if known.hold(params, states, fused)), None)
        if gathered is None:
            gathered = Gathered(params, states, fused)
            self._known = [*self._known[-7:], gathered]
        if gathered.updates and compiling:  # this runs once then, and what it updates would stand still from here on
            raise RuntimeError(
                "surgery.Adam: a compiled step cannot correct reborn entries: call step() outside of torch.compile"
            )
        for update in gathered.updates:
            self._update(group, update)
        if len(gathered.rest) == len(params):
            return super()._init_group(group, *lists)  # type: ignore[no-any-return]
        return bool(gathered.rest) and super()._init_group({**group, "params": gathered.rest}, *lists)

    def _update(self, group: dict[str, Any], update: Update) -> None:
        """One Adam step of parameters of one type."""
        update.count()
        params, states, ages = update.params, update.states, update.ages
        grads: list[Tensor] = [parameter.grad for parameter in params]  # type: ignore[misc]
        if ages is None:
            step = torch._fused_adamw_ if group["decoupled_weight_decay"] else torch._fused_adam_
            self._fused(step, group, update, params, grads, update.steps, group["weight_decay"], group["maximize"])
            return
        ages.advance(_betas(group))
        if update.in_c is None or group["amsgrad"] or not update.in_c.step(group, grads):
            self._step_in_torch(group, ages, update, grads)
        for state in states[: update.young]:
            state["young"] -= 1
            if not state["young"]:
                for name in [name for name in state if name == "young" or name.startswith(AGE)]:
                    del state[name]
                self._known.clear()

    def _step_in_torch(self, group: dict[str, Any], ages: Ages, update: Update, grads: list[Tensor]) -> None:
        """With torch's own operations."""
        decay = group["weight_decay"]
        if group["maximize"]:
            grads = list(torch._foreach_neg(grads))
        if decay and group["decoupled_weight_decay"]:
            torch._foreach_mul_(update.params, 1 - group["lr"] * decay)
        elif decay:
            place = self._scratch.at
            pairs = enumerate(zip(grads, update.params, strict=True))
            grads = [torch.add(grad, p, alpha=decay, out=place(i, p)) for i, (grad, p) in pairs]
        if group["fused"]:
            self._fused_step(group, ages, update, grads)
        else:
            self._plain_step(group, ages, update.params, grads, update.states)

    def _fused_step(self, group: dict[str, Any], ages: Ages, update: Update, grads: list[Tensor]) -> None:
        """The fused kernel writes its change of parameters with young entries into zeros, uncorrected; each entry takes
        its own share of it. The others it changes as always."""
        shares = ages.shares()
        young, others = update.params[: update.young], update.params[update.young :]
        changes = ages.changes(young)
        settled = self._settled_step(update.steps[0])
        steps = [settled] * len(young) + update.steps[len(young) :]
        self._fused(torch._fused_adam_, group, update, changes + others, grads, steps)
        torch._foreach_addcmul_(young, changes, shares)

    @staticmethod
    def _fused(
        step: Callable[..., None],
        group: dict[str, Any],
        update: Update,
        params: list[Tensor],
        grads: list[Tensor],
        steps: list[Tensor],
        weight_decay: float = 0.0,
        maximize: bool = False,
    ) -> None:
        beta1, beta2 = _betas(group)
        states, amsgrad = update.states, group["amsgrad"]
        step(
            params,
            grads,
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [state["max_exp_avg_sq"] for state in states] if amsgrad else [],
            steps,
            lr=group["lr"],
            beta1=beta1,
            beta2=beta2,
            weight_decay=weight_decay,
            eps=group["eps"],
            amsgrad=amsgrad,
            maximize=maximize,
            grad_scale=None,
            found_inf=None,
        )

    def _settled_step(self, like: Tensor) -> Tensor:
        """A step count at which nothing is left to correct."""
        if like.device not in self._settled:
            self._settled[like.device] = torch.full_like(like, torch.inf)
        return self._settled[like.device]

    def _plain_step(
        self, group: dict[str, Any], ages: Ages, params: list[Tensor], grads: list[Tensor], states: list[dict]
    ) -> None:
        """p -= lr * (m / bc1) / (sqrt(v / bc2) + eps), with per-entry corrections."""
        beta1, beta2 = _betas(group)
        lr = group["lr"]
        lr = lr.item() if isinstance(lr, Tensor) and lr.device.type == "cpu" else lr
        first = [state["exp_avg"] for state in states]
        second = [state["exp_avg_sq"] for state in states]
        torch._foreach_lerp_(first, grads, 1 - beta1)
        torch._foreach_mul_(second, beta2)
        torch._foreach_addcmul_(second, grads, grads, 1 - beta2)
        if group["amsgrad"]:
            largest = [state["max_exp_avg_sq"] for state in states]
            torch._foreach_maximum_(largest, second)
            second = largest
        for parameter, moment, square, (one, two) in zip(params, first, second, ages.divisors(), strict=True):
            denominator = torch.sqrt(square, out=self._scratch.like(square))
            denominator.div_(two).add_(group["eps"]).mul_(one)
            if isinstance(lr, Tensor):  # on the device, where it stays
                parameter.addcdiv_(moment, denominator.div_(lr), value=-1)
            else:
                parameter.addcdiv_(moment, denominator, value=-lr)


def _betas(group: dict[str, Any]) -> tuple[float, float]:
    beta1, beta2 = group["betas"]
    return float(beta1), float(beta2)
