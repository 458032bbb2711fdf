"""Adam whose step count is kept per unit."""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .scratch import Scratch


@dataclass
class _Corrections:
    """The ages of all reborn rows and columns in one flat tensor, and what follows from them.

    Attributes:
        parts: the age tensors as the state holds them.
        ages: steps since birth, flat; the state's `age_<dim>` tensors are views of it.
        first: `1 - beta1^age`, flat, and per parameter its views, one per dim.
        second: `sqrt(1 - beta2^age)`, likewise.
        ratio: first / second, and per parameter its view; used where only rows or only columns are young.
    """

    parts: list[Tensor]
    ages: Tensor
    first: Tensor
    second: Tensor
    ratio: Tensor
    firsts: list[list[Tensor]]
    seconds: list[list[Tensor]]
    ratios: list[list[Tensor]]

    def advance(self, beta1: float, beta2: float, eps: float) -> None:
        """One step older. Where one dim alone is young, `first` ends as `eps * first`: the constant of an addcmul."""
        self.ages.add_(1)
        torch.mul(self.ages, math.log(beta1) if beta1 else -math.inf, out=self.first).expm1_().neg_()
        torch.mul(self.ages, math.log(beta2) if beta2 else -math.inf, out=self.second).expm1_().neg_().sqrt_()
        torch.div(self.first, self.second, out=self.ratio)
        for views in self.firsts:
            if len(views) == 1:
                views[0].mul_(eps)


class Adam(torch.optim.Adam):
    """`torch.optim.Adam`, with a step count of its own for every reborn row or column.

    Adam divides its moments by `1 - beta^step`. When a unit is replaced its moments restart at 0, but the one step
    count of its parameter does not: the newborn's first update is then (1 - beta1) / sqrt(1 - beta2) = 3.15 ordinary
    updates with the usual betas, 6.55 at its peak. Here entries that were forgotten correct with the steps since
    their own birth.

    All options of `torch.optim.Adam`, with the same results to the last bit as long as nothing is replaced: a
    parameter without young entries takes torch's own (fused, foreach or plain) path. A parameter with young ones
    takes an elementwise path on its device until the youngest entry's correction has worn off, and goes back.

    State per parameter, besides torch's, while it has young entries: `age_<dim>`, the steps of each row or column
    since its own start (broadcastable), and `young`, the number of steps until the last correction has worn off.

    Raises:
        RuntimeError: entries are forgotten under `differentiable=True` or in a complex parameter.

    Example:
        >>> optimizer = Adam(net.parameters(), lr=1e-4, betas=(0.99, 0.99), fused=True)
    """

    AGE = "age_"

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
        self._cache: list[_Corrections] = []
        self._denominator, self._correction = Scratch(), Scratch()

    def _init_group(self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor], *lists: Any) -> bool:
        """Gather as torch does, then update the parameters with young entries here and leave the rest to torch."""
        has_complex: bool = super()._init_group(group, params, grads, *lists)
        young = [i for i, parameter in enumerate(params) if "young" in self.state[parameter]]
        if young:
            for device in dict.fromkeys(params[i].device for i in young):
                here = [i for i in young if params[i].device == device]
                self._update(group, [params[i] for i in here], [grads[i] for i in here])
            for items in (params, grads, *lists):
                if items:  # the list of third moments is empty without amsgrad
                    items[:] = [item for i, item in enumerate(items) if i not in young]
        return has_complex

    def _update(self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor]) -> None:
        """One Adam step with per-entry corrections: p -= lr * (m / bc1) / (sqrt(v / bc2) + eps)."""
        beta1, beta2 = (float(beta) for beta in group["betas"])
        lr, decay = group["lr"], group["weight_decay"]
        if isinstance(lr, Tensor) and lr.device.type == "cpu":
            lr = lr.item()
        states = [self.state[parameter] for parameter in params]
        torch._foreach_add_([state["step"] for state in states], 1)
        if group["maximize"]:
            grads = list(torch._foreach_neg(grads))
        if decay and group["decoupled_weight_decay"]:
            torch._foreach_mul_(params, 1 - lr * decay)  # type: ignore[arg-type]
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
        corrections = self._corrections(states)
        corrections.advance(beta1, beta2, group["eps"])
        for i, (parameter, moment, square) in enumerate(zip(params, first, second, strict=True)):
            denominator = torch.sqrt(square, out=self._denominator.like(square))
            if len(corrections.firsts[i]) == 1:  # (sqrt(v) / bc2 + eps) * bc1 in one pass
                denominator = torch.addcmul(
                    corrections.firsts[i][0].to(square.dtype),
                    denominator,
                    corrections.ratios[i][0].to(square.dtype),
                    out=denominator,
                )
            else:
                denominator.div_(_smallest(corrections.seconds[i], denominator, self._correction))
                denominator.add_(group["eps"])
                denominator.mul_(_smallest(corrections.firsts[i], denominator, self._correction))
            if isinstance(lr, Tensor):  # on the device, where it stays
                parameter.addcdiv_(moment, denominator.div_(lr), value=-1)
            else:
                parameter.addcdiv_(moment, denominator, value=-lr)
        for state in states:
            state["young"] -= 1
            if not state["young"]:
                for name in [name for name in state if name == "young" or name.startswith(self.AGE)]:
                    del state[name]

    def _corrections(self, states: list[dict]) -> _Corrections:
        """The flat ages of these parameters, built anew when the parameters with young entries have changed."""
        names = [[name for name in state if name.startswith(self.AGE)] for state in states]
        parts = [state[name] for state, own in zip(states, names, strict=True) for name in own]
        for known in self._cache:
            if len(known.parts) == len(parts) and all(map(operator.is_, known.parts, parts)):
                return known
        ages = torch.cat([part.flatten().to(torch.promote_types(part.dtype, parts[0].dtype)) for part in parts])
        first, second, ratio = (torch.empty_like(ages) for _ in range(3))
        sizes = [part.numel() for part in parts]
        views: list[list[Tensor]] = [list(flat.split(sizes)) for flat in (ages, first, second, ratio)]
        views = [[v.view(part.shape) for v, part in zip(flat, parts, strict=True)] for flat in views]
        age_views, first_views, second_views, ratio_views = (iter(flat) for flat in views)
        for state, own in zip(states, names, strict=True):
            for name in own:
                state[name] = next(age_views)
        firsts = [[next(first_views) for _ in own] for own in names]
        seconds = [[next(second_views) for _ in own] for own in names]
        ratios = [[next(ratio_views) for _ in own] for own in names]
        made = _Corrections(views[0], ages, first, second, ratio, firsts, seconds, ratios)
        self._cache = [*self._cache[-7:], made]
        return made


def _smallest(views: list[Tensor], like: Tensor, scratch: Scratch) -> Tensor:
    """An entry is as young as its row or its column, whichever is younger; the result is broadcastable."""
    if len(views) == 1:
        return views[0]
    value = torch.minimum(views[0], views[1], out=scratch.like(like if like.dtype == views[0].dtype else like.float()))
    for other in views[2:]:
        value = torch.minimum(value, other, out=value)
    return value


def _count_type(parameter: Tensor) -> torch.dtype:
    """Steps are counted in float32, in double precision networks in float64 for the corrections' sake."""
    return torch.float64 if parameter.dtype == torch.float64 else torch.float32


def _horizon(beta: float, dtype: torch.dtype) -> int:
    """Steps after which `1 - beta^age` differs from 1 by less than a quarter of the type's resolution."""
    return math.ceil(math.log(torch.finfo(dtype).eps / 4) / math.log(beta)) if beta > 0 else 1
