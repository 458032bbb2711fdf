"""TRAC and Muon against readable twins, under surgery, and continued from a checkpoint's state."""

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import special
from torch import nn

from continual_agents import surgery
from continual_agents.methods import Method
from continual_agents.methods.muon import Muon
from continual_agents.methods.trac import DECAYS, TRAC, erfi
from continual_agents.surgery.optimizer_state import forget_
from tests.helpers import descend


def net(seed: int = 0, dtype: torch.dtype = torch.float64) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 1)).to(dtype)


def losses(module: nn.Module, seed: int, steps: int):
    """A drifting target, whose loss is handed out step by step."""
    draws = torch.Generator().manual_seed(seed)
    dtype = next(module.parameters()).dtype
    for _ in range(steps):
        x = torch.randn(8, 3, generator=draws).to(dtype)
        yield (module(x)[:, 0] - x.sum(1).sin()).square().mean()


def train(module: nn.Module, optimizer: torch.optim.Optimizer, seed: int, steps: int, *after: Any) -> None:
    for loss in losses(module, seed, steps):
        descend(loss, optimizer, *after)


def test_erfi_is_scipys() -> None:
    x = np.array([-7.9, -3.0, -0.7, -1e-9, 0.0, 1e-9, 0.5, 1.0, 2.5, 7.9])
    np.testing.assert_allclose(erfi(torch.from_numpy(x)).numpy(), special.erfi(x), rtol=1e-12)
    assert erfi(torch.tensor(1e9)).item() == pytest.approx(special.erfi(8.0))  # finite wherever the sums go


def test_trac_is_the_paper_written_out() -> None:
    """Muppidi et al. 2024, algorithm 1, with the base optimizer on a copy of its own."""
    ours, base = net(), net()
    optimizer = TRAC(ours.parameters(), lr=0.01, scale=1e-3)
    adam = torch.optim.Adam(base.parameters(), lr=0.01)
    start = [p.detach().clone() for p in base.parameters()]
    squares, sigma, sizes = [0.0] * 6, [1e-8] * 6, []
    for loss in losses(ours, 1, 60):
        optimizer.zero_grad()
        loss.backward()
        h = 0.0
        for parameter, other, begin in zip(ours.parameters(), base.parameters(), start, strict=True):
            other.grad = parameter.grad.clone()
            h += float((parameter.grad * (other.detach() - begin)).sum())
        optimizer.step()
        adam.step()
        total = 0.0
        for k, decay in enumerate(DECAYS):
            squares[k] = decay**2 * squares[k] + h**2
            sigma[k] = decay * sigma[k] - h
            total += special.erfi(sigma[k] / (math.sqrt(2 * squares[k]) + 1e-8))
        sizes.append(max(1e-3 / special.erfi(1 / math.sqrt(2)) * total, 0.0))
        for parameter, other, begin in zip(ours.parameters(), base.parameters(), start, strict=True):
            torch.testing.assert_close(parameter.detach(), begin + sizes[-1] * (other.detach() - begin))
    assert max(sizes) > 10 * sizes[0]  # it has moved away


def test_a_newborn_is_measured_from_its_own_weights() -> None:
    module = net()
    optimizer = TRAC(module.parameters(), lr=0.01, scale=0.1)
    train(module, optimizer, 1, 20)
    weight = module[0].weight
    with torch.no_grad():
        weight[2] = 7.0
    forget_([optimizer], weight, 0, torch.tensor([2]))
    train(module, optimizer, 2, 1)
    s = optimizer.param_groups[0]["trac_s"].item()
    steps = optimizer.state[weight]["trac_steps"][2]
    torch.testing.assert_close(weight[2].detach(), 7.0 + s * steps)
    assert steps.abs().max() <= 0.0101  # of one first step of Adam's


def test_muon_is_torchs_for_matrices_and_adam_for_the_rest() -> None:
    ours, theirs = net(dtype=torch.float32), net(dtype=torch.float32)
    optimizer = Muon(ours.parameters(), lr=0.01, momentum=0.9, weight_decay=0.1)
    matrices, rest = [theirs[0].weight, theirs[2].weight], [theirs[0].bias, theirs[2].bias]
    muon = torch.optim.Muon(matrices, lr=0.01, momentum=0.9, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    adam = torch.optim.Adam(rest, lr=0.01, weight_decay=0.1)
    train(ours, optimizer, 1, 20)
    for loss in losses(theirs, 1, 20):
        theirs.zero_grad()
        loss.backward()
        muon.step()
        adam.step()
    torch.testing.assert_close(list(ours.parameters()), list(theirs.parameters()))


def test_surgery_zeroes_a_newborns_momentum_and_restarts_its_biases_count() -> None:
    module = net(dtype=torch.float32)
    optimizer = Muon(module.parameters(), lr=0.01)
    train(module, optimizer, 1, 20)
    units = surgery.find(module)
    surgery.replace_(next(iter(units)), torch.tensor([3]), optimizer)
    for weight, at in ((module[0].weight, (3,)), (module[2].weight, (slice(None), 3))):
        momentum = optimizer.state[weight]["momentum_buffer"]
        assert momentum[at].abs().max() == 0
        assert momentum.abs().max() > 0
    assert optimizer.state[module[0].bias]["age_0"].tolist() == [20, 20, 20, 0, 20]


def test_muon_needs_a_matrix() -> None:
    with pytest.raises(ValueError, match="muon is for matrices"):
        Muon([nn.Parameter(torch.zeros(3))])


@pytest.mark.parametrize("kind", ["trac", "muon"])
def test_a_state_that_was_saved_goes_on_exactly(kind: str) -> None:
    renewing = {"continual_backprop": {"rate": 0.1, "maturity": 2}}
    method = Method(name=kind, optimizer={"kind": kind, "step_size": 0.01}, operations=renewing)

    def made(seed: int):
        module = net(seed, torch.float32)
        optimizer = method.make_optimizer(module.parameters())
        operations = method.make_operations(module, optimizer, torch.Generator().manual_seed(0))
        return module, optimizer, operations[0]

    whole, parts = made(0), made(1)
    train(*whole[:2], 1, 15, whole[2])
    for one, other in zip(parts, whole, strict=True):
        one.load_state_dict(copy.deepcopy(other.state_dict()))
    for module, optimizer, operation in (whole, parts):
        train(module, optimizer, 2, 15, operation)
    assert whole[2].report()["replaced/0"] > 0
    assert all(torch.equal(a, b) for a, b in zip(whole[0].parameters(), parts[0].parameters(), strict=True))
