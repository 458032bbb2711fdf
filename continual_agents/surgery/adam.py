"""Adam whose step count is kept per unit."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor


class Adam(torch.optim.Adam):
    """`torch.optim.Adam`, with a step count of its own for every reborn row or column.

    Adam divides its moments by `1 - beta^step`. When a unit is replaced its moments restart at 0, but the one step
    count of its parameter does not: the first update of the newborn weights is then sqrt(1 - beta2) / (1 - beta1)
    times too small a denominator, 3.15 ordinary updates with the usual betas and 6.55 at its peak. Here entries that
    were forgotten correct with the steps since their own birth.

    All options of `torch.optim.Adam`, with the same results to the last bit as long as nothing is replaced: a
    parameter without replaced entries takes torch's own (fused, foreach or plain) path. A parameter with young ones
    takes an elementwise path on its device until the youngest entry's correction has worn off, and goes back.

    State per parameter, besides torch's: `born_<dim>`, the shared step count at which each row or column last
    started (broadcastable), and `young`, the number of steps until the last correction has worn off.

    Raises:
        RuntimeError: entries are forgotten under `differentiable=True` or in a complex parameter.

    Example:
        >>> optimizer = Adam(net.parameters(), lr=1e-4, betas=(0.99, 0.99), fused=True)
    """

    BORN = "born_"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # GradScaler then unscales and skips on the host; the elementwise path needs no device-side skip of its own
        self._step_supports_amp_scaling = False

    @torch.no_grad()
    def forget_(self, parameter: Tensor, dim: int, index: Tensor) -> None:
        """Start the step count of the entries `index` [k] along `dim` anew; the moments are the caller's to zero."""
        state = self.state[parameter]
        if not state:
            return
        group = next(g for g in self.param_groups if any(p is parameter for p in g["params"]))
        if group["differentiable"] or parameter.is_complex():
            raise RuntimeError("surgery.Adam cannot restart entries under differentiable=True or in complex parameters")
        name = f"{self.BORN}{dim % parameter.ndim}"
        if name not in state:
            shape = [1] * parameter.ndim
            shape[dim] = parameter.shape[dim]
            state[name] = torch.zeros(shape, dtype=_count_type(parameter), device=parameter.device)
        now = state["step"].to(parameter.device, state[name].dtype)
        state[name].index_copy_(dim, index, now.expand_as(state[name].index_select(dim, index)))
        state["young"] = _horizon(max(float(beta) for beta in group["betas"]), parameter.dtype)

    def load_state_dict(self, state_dict: Any) -> None:
        """As torch's, with birth steps kept in float32 whatever the parameter's type."""
        super().load_state_dict(state_dict)
        stored = state_dict["state"]
        order = [i for group in state_dict["param_groups"] for i in group["params"]]
        parameters = [p for group in self.param_groups for p in group["params"]]
        for i, parameter in zip(order, parameters, strict=True):
            for name, value in stored.get(i, {}).items():
                if name.startswith(self.BORN):
                    self.state[parameter][name] = value.to(parameter.device, _count_type(parameter), copy=True)

    def _init_group(self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor], *lists: Any) -> bool:
        """Gather as torch does, then update the parameters with young entries here and leave the rest to torch."""
        has_complex: bool = super()._init_group(group, params, grads, *lists)
        young = [i for i, parameter in enumerate(params) if "young" in self.state[parameter]]
        if young:
            self._update(group, [params[i] for i in young], [grads[i] for i in young])
            for items in (params, grads, *lists):
                if items:  # the list of third moments is empty without amsgrad
                    items[:] = [item for i, item in enumerate(items) if i not in set(young)]
        return has_complex

    def _update(self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor]) -> None:
        """One Adam step with per-entry corrections: p -= lr * (m / bc1) / (sqrt(v / bc2) + eps)."""
        beta1, beta2 = (float(beta) for beta in group["betas"])
        lr, decay = group["lr"], group["weight_decay"]
        states = [self.state[parameter] for parameter in params]
        torch._foreach_add_([state["step"] for state in states], 1)
        if group["maximize"]:
            grads = list(torch._foreach_neg(grads))
        if decay and group["decoupled_weight_decay"]:
            torch._foreach_mul_(params, 1 - float(lr) * decay)
        elif decay:
            grads = list(torch._foreach_add(grads, params, alpha=decay))
        first = [state["exp_avg"] for state in states]
        second = [state["exp_avg_sq"] for state in states]
        torch._foreach_lerp_(first, grads, 1 - beta1)
        torch._foreach_mul_(second, beta2)
        torch._foreach_addcmul_(second, grads, grads, 1 - beta2)
        if group["amsgrad"]:
            largest = [state["max_exp_avg_sq"] for state in states]
            torch._foreach_maximum_(largest, second)
            second = largest
        denominators = list(torch._foreach_sqrt(second))
        first_corrections, second_corrections = self._corrections(states, beta1, beta2)
        torch._foreach_div_(denominators, second_corrections)
        torch._foreach_add_(denominators, group["eps"])
        torch._foreach_mul_(denominators, first_corrections)
        torch._foreach_addcdiv_(params, first, denominators, -float(lr))
        for state in states:
            state["young"] -= 1
            if not state["young"]:
                for name in [name for name in state if name == "young" or name.startswith(self.BORN)]:
                    del state[name]

    def _corrections(self, states: list[dict], beta1: float, beta2: float) -> tuple[list[Tensor], list[Tensor]]:
        """`1 - beta1^age` and `sqrt(1 - beta2^age)` per parameter, broadcastable; an entry is as young as its row or
        its column, whichever is younger."""
        names = [[name for name in state if name.startswith(self.BORN)] for state in states]
        births = [state[name] for state, own in zip(states, names, strict=True) for name in own]
        nows = [state["step"] for state, own in zip(states, names, strict=True) for _ in own]
        ages = list(torch._foreach_neg(births))
        torch._foreach_add_(ages, nows) if births[0].device == nows[0].device else torch._foreach_add_(
            ages, [now.to(births[0].device, non_blocking=True) for now in nows]
        )
        firsts = _one_minus_power(beta1, ages)
        seconds = _one_minus_power(beta2, ages)
        torch._foreach_sqrt_(seconds)
        return _smallest(firsts, names), _smallest(seconds, names)


def _count_type(parameter: Tensor) -> torch.dtype:
    """Steps are counted in float32, in double precision networks in float64 for the corrections' sake."""
    return torch.float64 if parameter.dtype == torch.float64 else torch.float32


def _one_minus_power(beta: float, ages: list[Tensor]) -> list[Tensor]:
    powers = list(torch._foreach_pow(beta, ages))
    torch._foreach_neg_(powers)
    torch._foreach_add_(powers, 1.0)
    return powers


def _smallest(values: list[Tensor], names: list[list[str]]) -> list[Tensor]:
    rest = iter(values)
    merged = []
    for own in names:
        value = next(rest)
        for _ in own[1:]:
            value = torch.minimum(value, next(rest))
        merged.append(value)
    return merged


def _horizon(beta: float, dtype: torch.dtype) -> int:
    """Steps after which `1 - beta^age` differs from 1 by less than a quarter of the type's resolution."""
    return math.ceil(math.log(torch.finfo(dtype).eps / 4) / math.log(beta)) if beta > 0 else 1
