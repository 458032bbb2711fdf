"""Adam whose step count is kept per unit."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from .ages import AGE, Ages
from .scratch import Scratch


class Adam(torch.optim.Adam):
    """`torch.optim.Adam`, with a step count of its own for every reborn row or column.

    Adam divides its moments by `1 - beta^step`. When a unit is replaced its moments restart at 0, but the one step
    count of its parameter does not: the newborn's first update is then (1 - beta1) / sqrt(1 - beta2) = 3.15 ordinary
    updates with the usual betas, 6.55 at its peak. Here entries that were forgotten correct with the steps since
    their own birth.

    All options of `torch.optim.Adam`, with the same results to the last bit as long as nothing is replaced: a
    parameter without young entries takes torch's own (fused, foreach or plain) path. A parameter with young ones
    takes a path of its own on its device until the youngest entry's correction has worn off, and goes back. With
    `fused=True` that path is torch's fused kernel too, its steps scaled entry by entry, in one call with the other
    parameters; eps then counts for a reborn entry as if it were added before the second moment's correction (Kingma
    and Ba's efficient form).

    State per parameter, besides torch's, while it has young entries: `age_<dim>`, the steps of each row or column
    since its own start (broadcastable), and `young`, the number of steps until the last correction has worn off.

    Raises:
        RuntimeError: entries are forgotten under `differentiable=True` or in a complex parameter.

    Example:
        >>> optimizer = Adam(net.parameters(), lr=1e-4, betas=(0.99, 0.99), fused=True)
    """

    AGE = AGE

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._forgo_amp_scaling()

    @torch.no_grad()
    def forget_(self, parameter: Tensor, dim: int, index: Tensor) -> None:
        """Start the step count of the entries `index` [k] along `dim` anew; the moments are the caller's to zero."""
        state = self.state.get(parameter)
        if not state:
            return
        group = next(g for g in self.param_groups if any(p is parameter for p in g["params"]))
        if group["differentiable"] or parameter.is_complex():
            raise RuntimeError("surgery.Adam cannot restart entries under differentiable=True or in complex parameters")
        dim = dim % parameter.ndim
        name = f"{self.AGE}{dim}"
        if name not in state:
            shape = [1] * parameter.ndim
            shape[dim] = parameter.shape[dim]
            steps = state["step"].to(parameter.device, _count_type(parameter))
            state[name] = steps.expand(shape).clone()
        state[name].index_fill_(dim, index, 0.0)
        for known in self._cache:
            if any(part is state[name] for part in known.parts):
                known.younger.clear()
        state["young"] = _horizon(max(float(beta) for beta in group["betas"]), parameter.dtype)

    def load_state_dict(self, state_dict: Any) -> None:
        """As torch's, with ages kept as they are whatever the parameter's type."""
        super().load_state_dict(state_dict)
        order = [i for group in state_dict["param_groups"] for i in group["params"]]
        parameters = [p for group in self.param_groups for p in group["params"]]
        for i, parameter in zip(order, parameters, strict=True):
            for name, value in state_dict["state"].get(i, {}).items():
                if name.startswith(self.AGE):
                    self.state[parameter][name] = value.to(parameter.device, _count_type(parameter), copy=True)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._forgo_amp_scaling()

    def _forgo_amp_scaling(self) -> None:
        # GradScaler then unscales and skips on the host; the elementwise path needs no device-side skip of its own
        self._step_supports_amp_scaling = False
        self._cache: list[Ages] = []
        self._scratch = Scratch()

    def _init_group(self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor], *lists: Any) -> bool:
        """Gather as torch does, then update the parameters with young entries here and leave the rest to torch."""
        has_complex: bool = super()._init_group(group, params, grads, *lists)
        young = [i for i, parameter in enumerate(params) if "young" in self.state[parameter]]
        if young:
            taken: set[int] = set()
            for kind in dict.fromkeys((params[i].device, params[i].dtype) for i in young):
                here = [i for i in young if (params[i].device, params[i].dtype) == kind]
                if group["fused"]:  # the others with them: a second call costs as much as a small network's first
                    known = set(here)
                    here += [i for i, p in enumerate(params) if i not in known and (p.device, p.dtype) == kind]
                taken.update(here)
                self._update(group, [params[i] for i in here], [grads[i] for i in here])
            for items in (params, grads, *lists):
                if items:  # the list of third moments is empty without amsgrad
                    items[:] = [item for i, item in enumerate(items) if i not in taken]
        return has_complex

    def _update(self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor]) -> None:
        """One Adam step of parameters of one type, those with young entries first; others only where it is fused."""
        states = [self.state[parameter] for parameter in params]
        young = [state for state in states if "young" in state]
        ages = next((known for known in self._cache if known.holds(young)), None)
        if ages is None:
            ages = Ages.of(young)
            self._cache = [*self._cache[-7:], ages]
        beta1, beta2 = (float(beta) for beta in group["betas"])
        ages.advance(beta1, beta2)
        torch._foreach_add_([state["step"] for state in states], 1)
        decay = group["weight_decay"]
        if group["maximize"]:
            grads = list(torch._foreach_neg(grads))
        if decay and group["decoupled_weight_decay"]:
            torch._foreach_mul_(params, 1 - group["lr"] * decay)
        elif decay:
            place = self._scratch.at
            pairs = enumerate(zip(grads, params, strict=True))
            grads = [torch.add(grad, p, alpha=decay, out=place(i, p)) for i, (grad, p) in pairs]
        step = self._fused_step if group["fused"] else self._plain_step
        step(group, ages, params, grads, states)
        for state in young:
            state["young"] -= 1
            if not state["young"]:
                for name in [name for name in state if name == "young" or name.startswith(AGE)]:
                    del state[name]

    def _fused_step(
        self, group: dict[str, Any], ages: Ages, params: list[Tensor], grads: list[Tensor], states: list[dict]
    ) -> None:
        """The fused kernel writes its change of parameters with young entries into zeros; each entry takes its own
        share of it. The others it changes as always."""
        young = params[: len(ages.own)]
        changes = ages.changes(young)
        torch._fused_adam_(
            [*changes, *params[len(young) :]],
            grads,
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [state["max_exp_avg_sq"] for state in states] if group["amsgrad"] else [],
            [state["step"] for state in states],
            lr=group["lr"],
            beta1=float(group["betas"][0]),
            beta2=float(group["betas"][1]),
            weight_decay=0.0,
            eps=group["eps"],
            amsgrad=group["amsgrad"],
            maximize=False,
            grad_scale=None,
            found_inf=None,
        )
        dtype = changes[0].dtype
        leaps = [leap if leap.dtype == dtype else leap.to(dtype) for leap in ages.leaps_of()]
        torch._foreach_addcmul_(young, changes, leaps)

    def _plain_step(
        self, group: dict[str, Any], ages: Ages, params: list[Tensor], grads: list[Tensor], states: list[dict]
    ) -> None:
        """p -= lr * (m / bc1) / (sqrt(v / bc2) + eps), with per-entry corrections."""
        beta1, beta2 = (float(beta) for beta in group["betas"])
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
        for i, (parameter, moment, square) in enumerate(zip(params, first, second, strict=True)):
            denominator = torch.sqrt(square, out=self._scratch.like(square))
            denominator.div_(Ages.smallest(ages.seconds[i])).add_(group["eps"])
            denominator.mul_(Ages.smallest(ages.firsts[i]))
            if isinstance(lr, Tensor):  # on the device, where it stays
                parameter.addcdiv_(moment, denominator.div_(lr), value=-1)
            else:
                parameter.addcdiv_(moment, denominator, value=-lr)


def _count_type(parameter: Tensor) -> torch.dtype:
    """Steps are counted in float32, in double precision networks in float64 for the corrections' sake."""
    return torch.float64 if parameter.dtype == torch.float64 else torch.float32


def _horizon(beta: float, dtype: torch.dtype) -> int:
    """Steps after which `1 - beta^age` differs from 1 by less than a quarter of the type's resolution."""
    return math.ceil(math.log(torch.finfo(dtype).eps / 4) / math.log(beta)) if beta > 0 else 1
