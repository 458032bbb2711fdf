"""Adam as published runs of continual backpropagation used it, for who wants to repeat them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


class PublishedAdam(torch.optim.Optimizer):
    """The Adam of the public continual-backprop code: steps counted per entry, most of the bias correction discarded.

    `w <- w - lr (1 - beta2^t) m / (sqrt(v) + eps)`, where Adam has `sqrt(1 - beta2^t) / (1 - beta1^t)` in the place of
    `1 - beta2^t`: that square root and quotient are computed there and thrown away. The first steps of a network and of
    every newborn are hundreds of times smaller than Adam's. Use `surgery.Adam` for anything else.

    Args:
        params: as in every torch optimizer.
        lr: step size.
        betas: decays of the two moments.
        eps: added to the root of the second moment.
        weight_decay: coupled L2.

    Raises:
        ValueError: a negative setting, or a beta outside [0, 1).
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        if min(lr, eps, weight_decay) < 0 or not all(0 <= beta < 1 for beta in betas):
            raise ValueError(
                f"lr={lr}, betas={betas}, eps={eps}, weight_decay={weight_decay}: at least 0, betas below 1"
            )
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step of every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:  # tensors of the parameter's shape: forgotten entry by entry, the steps too
                    state.update({name: torch.zeros_like(p) for name in ("step", "exp_avg", "exp_avg_sq")})
                grad: Tensor = p.grad.add(p, alpha=group["weight_decay"]) if group["weight_decay"] else p.grad
                state["step"].add_(1)
                state["exp_avg"].lerp_(grad, 1 - beta1)
                state["exp_avg_sq"].mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
                share = (1 - beta2 ** state["step"]) * state["exp_avg"]
                p.addcdiv_(share, state["exp_avg_sq"].sqrt().add_(group["eps"]), value=-group["lr"])
        return loss
