"""What surgery promises about every replacement, checked in a client's own training loop against a plan by hand."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from continual_agents import surgery


@dataclass
class Plan:
    """Where one layer's units live, written by the test and not asked of surgery.

    rows: tensor name -> gates; unit i owns entries gate * width + i along dim 0.
    columns: tensor name -> inputs per unit; unit i owns that many consecutive entries along dim 1, from `start` on.
    norms: tensor name -> value that a newborn's entry starts from.
    biases: reader's bias (changed by the mean that is handed over) -> its weight, "" where it is not a Linear's.
    """

    width: int
    rows: dict[str, int]
    columns: dict[str, int]
    norms: dict[str, float] = field(default_factory=dict)
    biases: dict[str, str] = field(default_factory=dict)


class Promises:
    """Stands between a companion and its client: every `cbp.step()` is checked, by whomever it is called.

    Works beside `attach()` too. The companion must have decay=0 for `means` to be exact: then the mean that is handed
    over is that of the last batch. `means` is off for readers whose inputs are padded (conv).
    """

    def __init__(
        self,
        net: nn.Module,
        optimizers: Optimizer | list[Optimizer],
        cbp: surgery.ContinualBackprop,
        plans: dict[str, Plan],
        *,
        means: bool = True,
    ) -> None:
        self.net, self.cbp, self.plans, self.means = net, cbp, plans, means
        self.optimizers = [optimizers] if isinstance(optimizers, Optimizer) else optimizers
        self.replaced = dict.fromkeys(plans, 0)
        self.ids = {name: id(p) for name, p in net.named_parameters()}
        self.inputs: dict[str, Tensor] = {}
        self.handles = []
        for plan in plans.values():
            for weight in filter(None, plan.biases.values()):
                module = net.get_submodule(weight.rpartition(".")[0])
                self.handles.append(module.register_forward_pre_hook(self._keep(weight)))
        self._step, cbp.step = cbp.step, self.step

    def _keep(self, name: str):
        def hook(module: nn.Module, args: tuple) -> None:
            if torch.is_grad_enabled():
                self.inputs[name] = args[0].detach().clone()

        return hook

    @torch.no_grad()
    def step(self) -> dict[str, Tensor]:
        before = {name: value.clone() for name, value in self.net.state_dict().items()}
        state_before = self._optimizer_state()
        outputs = self._mean_outputs()
        replaced = self._step()
        assert set(replaced) <= set(self.plans), "units were replaced where none were expected"
        owned, zero, biases = self._expected(replaced, before)
        self._check_weights(before, owned, zero, biases)
        self._check_optimizer(state_before, owned, zero)
        if self.means and replaced:
            for name, mean in self._mean_outputs().items():
                old = ~owned[name].all(1)  # readers that are newborn themselves say something new
                torch.testing.assert_close(mean[old], outputs[name][old], atol=1e-6, rtol=1e-6)
        for name, index in replaced.items():
            self.replaced[name] += len(index)
        return replaced

    def _expected(self, replaced: dict[str, Tensor], before: dict[str, Tensor]):
        """Masks of the entries that may change, of those that must be zero, and the biases that get a mean."""
        owned = {name: torch.zeros_like(value, dtype=torch.bool) for name, value in before.items()}
        zero = {name: torch.zeros_like(value, dtype=torch.bool) for name, value in before.items()}
        biases: set[str] = set()
        for layer, index in replaced.items():
            plan = self.plans[layer]
            for name, gates in plan.rows.items():
                for gate in range(gates):
                    owned[name][gate * plan.width + index] = True
            for name, value in plan.norms.items():
                owned[name][index] = True
                assert (self.net.state_dict()[name][index] == value).all(), name
            for name, block in plan.columns.items():
                for j in range(block):
                    owned[name][:, index * block + j] = True
                    zero[name][:, index * block + j] = True
            biases |= set(plan.biases)
        return owned, zero, biases

    def _check_weights(self, before, owned, zero, biases) -> None:
        assert {name: id(p) for name, p in self.net.named_parameters()} == self.ids, "a parameter was exchanged"
        for name, value in self.net.state_dict().items():
            if name not in biases:
                assert torch.equal(value[~owned[name]], before[name][~owned[name]]), f"{name}: entries nobody owns"
            assert (value[zero[name]] == 0).all(), f"{name}: a newborn speaks"
            drawn = owned[name] & ~zero[name]
            if value.ndim > 1 and drawn.any():
                assert (value[drawn] != before[name][drawn]).float().mean() > 0.9, f"{name}: not drawn anew"

    def _optimizer_state(self) -> dict[tuple[str, str], Tensor]:
        names = {id(p): name for name, p in self.net.named_parameters()}
        return {
            (names[id(p)], key): value.clone()
            for optimizer in self.optimizers
            for p, entry in optimizer.state.items()
            if id(p) in names
            for key, value in entry.items()
            if isinstance(value, Tensor) and value.shape == p.shape and not key.startswith(surgery.Adam.AGE)
        }

    def _check_optimizer(self, before, owned, zero) -> None:
        for (name, key), value in self._optimizer_state().items():
            assert (value[owned[name]] == 0).all(), f"{name}: {key} remembers the dead"
            kept = ~owned[name]
            assert torch.equal(value[kept], before[name, key][kept]), f"{name}: {key} of others was forgotten"

    def _mean_outputs(self) -> dict[str, Tensor]:
        """Mean pre-activation of every reader with a bias on the last training batch."""
        weights = {name: value.double() for name, value in self.net.state_dict().items()}
        return {
            weight: nn.functional.linear(self.inputs[weight].double(), weights[weight], weights[bias])
            .flatten(0, -2)
            .mean(0)
            for plan in self.plans.values()
            for bias, weight in plan.biases.items()
            if weight in self.inputs and weights[weight].ndim == 2
        }

    def finish(self, losses: list[float], at_least: int = 1, *, share: float = 0.7) -> None:
        """Every layer had replacements, the loss fell to `share` of its start or less, and detach leaves no hooks."""
        assert min(self.replaced.values()) >= at_least, self.replaced
        tenth = max(len(losses) // 10, 1)
        first, last = (sum(part) / tenth for part in (losses[:tenth], losses[-tenth:]))
        assert last < share * first, f"the loss went from {first:.4f} to {last:.4f}"
        self.close()

    def close(self) -> None:
        """Take the companion off and look for what it left."""
        for handle in self.handles:
            handle.remove()
        self.cbp.detach()
        for name, module in self.net.named_modules():
            for hooks in (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks):
                assert not hooks, f"{name} still has hooks"
        for optimizer in self.optimizers:
            assert not optimizer._optimizer_step_post_hooks, "the optimizer still has hooks"
            assert not optimizer._optimizer_step_pre_hooks, "the optimizer still has hooks"


def linear_plan(maker: str, reader: str, width: int) -> Plan:
    """Units made by one Linear and read by one Linear."""
    return Plan(
        width,
        {f"{maker}.weight": 1, f"{maker}.bias": 1},
        {f"{reader}.weight": 1},
        {},
        {f"{reader}.bias": f"{reader}.weight"},
    )
