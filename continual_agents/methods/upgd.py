"""Utility-based perturbed gradient descent."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn


class UPGD(torch.optim.Optimizer):
    """UPGD (Elsayed and Mahmood 2024) over Adam's step: useful weights are protected, useless ones are perturbed.

    A weight's utility is a running mean of `-g w` (a first-order estimate of what removing it costs);
    `s = sigmoid(utility / max over all weights)`. With Adam's corrected moments m, v:

        w <- (1 - lr weight_decay) w - lr (1 - s) (m / (sqrt(v) + eps) + sigma N(0, 1))

    Args:
        params: what is trained, as for `torch.optim.Adam`.
        lr: step size.
        betas, eps: of Adam's moments.
        weight_decay: decoupled, as above.
        sigma: standard deviation of the perturbation.
        utility_decay: of the running mean of the utility, in [0, 1).

    The noise follows from the initial weights and the number of the step, so a continued run draws the same.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        sigma: float = 1e-3,
        utility_decay: float = 0.999,
    ):
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "sigma": sigma}
        super().__init__(params, {**defaults, "utility_decay": utility_decay, "steps": 0})
        for group in self.param_groups:
            total = sum(float(parameter.detach().double().sum()) for parameter in group["params"])
            group["seed"] = abs(hash(total)) % 2**31  # the hash of a float is the same in every process

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """One step; parameters without a gradient stay."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        found = [(g, p) for g in self.param_groups for p in g["params"] if p.grad is not None]
        largest = None
        for group, parameter in found:
            scaled = self._utility(parameter, group["utility_decay"]).max()
            largest = scaled if largest is None else torch.maximum(largest, scaled.to(largest.device))
        for group in self.param_groups:
            group["steps"] += 1
        generators: dict[int, torch.Generator] = {}
        for group, parameter in found:
            assert largest is not None
            place = generators.setdefault(
                id(group), torch.Generator().manual_seed(group["seed"] * 1_000_003 + group["steps"])
            )
            self._update(group, parameter, largest.to(parameter.device), place)
        return loss

    def _utility(self, parameter: nn.Parameter, decay: float) -> Tensor:
        """The running mean of `-g w`, corrected for its start at 0."""
        state = self.state[parameter]
        if not state:
            state["step"] = torch.tensor(0.0)
            for name in ("exp_avg", "exp_avg_sq", "utility"):
                state[name] = torch.zeros_like(parameter)
        assert parameter.grad is not None
        state["step"] += 1
        state["utility"].mul_(decay).addcmul_(parameter.grad, parameter, value=decay - 1)
        return state["utility"] / (1 - decay ** float(state["step"]))

    def _update(self, group: dict[str, Any], parameter: nn.Parameter, largest: Tensor, source: torch.Generator) -> None:
        state, (beta1, beta2), gradient = self.state[parameter], group["betas"], parameter.grad
        age = float(state["step"])
        state["exp_avg"].lerp_(gradient, 1 - beta1)
        state["exp_avg_sq"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        direction = state["exp_avg"] / (1 - beta1**age)
        direction = direction / ((state["exp_avg_sq"] / (1 - beta2**age)).sqrt() + group["eps"])
        noise = torch.empty(parameter.shape).normal_(0.0, 1.0, generator=source).to(parameter)
        utility = state["utility"] / (1 - group["utility_decay"] ** age)
        open_ = 1 - (utility / largest).sigmoid()
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.sub_(group["lr"] * open_ * (direction + group["sigma"] * noise))
