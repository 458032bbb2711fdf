"""Muon for matrices, Adam for the rest."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from continual_agents import surgery


class Muon(surgery.Adam):
    """`torch.optim.Muon` (Jordan et al. 2024) for every matrix, `surgery.Adam` for biases, gains and kernels.

    Muon's step is its momentum with all singular values set to about 1, times `.2 sqrt(largest side)`, which makes it
    as large as Adam's (Liu et al. 2025): one step size serves both. Surgery zeroes a newborn's rows of the momentum;
    there is no step count to restart.

    Args:
        params: what is trained.
        lr: step size.
        betas, eps: of Adam.
        momentum: of Muon, in [0, 1).
        weight_decay: decoupled, `w <- w - lr weight_decay w`, for the matrices; coupled L2 for the rest.
        fused: as `torch.optim.Adam`.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        *,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        fused: bool = True,
    ):
        params = list(params)
        matrices = [parameter for parameter in params if parameter.ndim == 2]
        if not matrices:
            raise ValueError("optimizer.kind=muon is for matrices, and this network has none: give adam")
        self._muon = torch.optim.Muon(
            matrices, lr=lr, momentum=momentum, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"
        )
        rest: dict[str, Any] = {"params": [parameter for parameter in params if parameter.ndim != 2]}
        super().__init__(
            [*self._muon.param_groups, rest], lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, fused=fused
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """One step of both; parameters without a gradient stay."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        groups = self.param_groups
        # linked anew each time: loading a state exchanges both
        self._muon.param_groups, self._muon.state = groups[:1], self.state
        self._muon.step()
        for parameter in groups[0]["params"]:
            if parameter in self.state:  # torch.optim.Adam reads it when it loads a state
                self.state[parameter].setdefault("step", torch.tensor(0.0))
        self.param_groups = groups[1:]
        try:
            super().step()
        finally:
            self.param_groups = groups
        return loss

    def forget_(self, parameter: Tensor, dim: int, index: Tensor) -> None:
        """As Adam's; Muon counts no steps."""
        if parameter.ndim != 2:
            super().forget_(parameter, dim, index)
