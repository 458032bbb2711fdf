"""TRAC: how far to follow an optimizer away from where it began, tuned by itself."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from continual_agents import surgery

DECAYS = (0.9, 0.99, 0.999, 0.9999, 0.99999, 0.999999)
"""Of the tuner's six running sums, as published."""

TERMS = torch.arange(200, dtype=torch.float64)
"""Of erfi's power series: all that count for arguments up to 8."""


class TRAC(surgery.Adam):
    """TRAC (Muppidi et al. 2024) around Adam: `theta = theta_0 + S (theta_Adam - theta_0)`.

    With Adam's summed steps D and the gradient g, h = <g, D>, and for each decay b

        v <- b^2 v + h^2,    sigma <- b sigma - h,    s = scale / erfi(1 / sqrt 2) erfi(sigma / (sqrt(2 v) + eps)),

    and S = max(sum of s, 0). D is kept as a state of every weight, so that surgery, which zeroes it, makes a newborn's
    own weights the point that it is measured from. (The authors' package recovers D from the weights, by a division
    by S that is 1e-8 at first; it also appends a line to a file at every step and keys its state by tensors.)

    Args:
        params, and keywords: of `surgery.Adam`.
        scale: s of a tuner that has seen nothing; hardly matters, as S grows exponentially.
    """

    def __init__(self, params: Any, *, scale: float = 1e-8, **settings: Any):
        super().__init__(params, **settings)
        first = self.param_groups[0]
        device = first["params"][0].device
        sums = torch.zeros(2, len(DECAYS), dtype=torch.float64, device=device)
        sums[1] = 1e-8
        first |= {"trac_scale": scale, "trac_sums": sums, "trac_s": torch.zeros((), dtype=torch.float64, device=device)}

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """One step; parameters without a gradient stay."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        group = self.param_groups[0]
        found = [p for one in self.param_groups for p in one["params"] if p.grad is not None]
        followed = [self.state[p].get("trac_steps") for p in found]
        before = [p.detach().clone() for p in found]
        h = torch.zeros_like(group["trac_s"])
        for parameter, steps in zip(found, followed, strict=True):
            if steps is not None:
                h += (parameter.grad * steps).sum(dtype=torch.float64)
        super().step()
        last, now = group["trac_s"], self._tune(group, h)
        for parameter, start, steps in zip(found, before, followed, strict=True):
            old = torch.zeros_like(parameter) if steps is None else steps
            new = old + (parameter - start)
            self.state[parameter]["trac_steps"] = new
            parameter.copy_(start + (now * new - last * old).to(parameter.dtype))
        return loss

    def _tune(self, group: dict[str, Any], h: Tensor) -> Tensor:
        """S after another h."""
        decays = torch.tensor(DECAYS, dtype=torch.float64, device=h.device)
        squares, sigma = group["trac_sums"]
        squares, sigma = decays.square() * squares + h.square(), decays * sigma - h
        group["trac_sums"] = torch.stack([squares, sigma])
        s = erfi(sigma / ((2 * squares).sqrt() + 1e-8)) / erfi(torch.tensor(math.sqrt(0.5), dtype=torch.float64))
        group["trac_s"] = (group["trac_scale"] * s).sum().clamp_min(0.0)
        return group["trac_s"]


def erfi(x: Tensor) -> Tensor:
    """`2 / sqrt(pi) sum_n x^(2n + 1) / (n! (2n + 1))`, the imaginary error function, which torch does not have."""
    n = TERMS.to(x.device)
    # beyond 8 it is more than 1e26, and a weight that far away has left anyway
    x = x.double().clamp(-8, 8)[..., None]
    terms = ((2 * n + 1) * x.abs().log() - torch.lgamma(n + 1)).exp() / (2 * n + 1)
    return 2 / math.sqrt(math.pi) * x[..., 0].sign() * terms.sum(-1)
