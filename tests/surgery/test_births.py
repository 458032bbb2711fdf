"""How units are born: the moments of every distribution, and what the two better candidates promise."""

import math

import pytest
import torch
from torch import nn

from continual_agents import surgery
from continual_agents.surgery.finding import LAYERS

VARIANCE = {  # fan_in 50, 400 units
    "default": 1 / (3 * 50),
    "kaiming_uniform": 2 / 50,
    "kaiming_normal": 2 / 50,
    "lecun_uniform": 1 / 50,
    "lecun_normal": 1 / 50,
    "xavier_uniform": 2 / 450,
    "xavier_normal": 2 / 450,
    "truncated_normal": 1 / 50,
}


def layer(n_in: int = 50, width: int = 400) -> tuple[nn.Linear, surgery.Units]:
    torch.manual_seed(0)
    a = nn.Linear(n_in, width)
    return a, surgery.Units("a", a, (nn.Linear(width, 2),))


@pytest.mark.parametrize("name", VARIANCE)
def test_moments(name: str) -> None:
    a, units = layer()
    surgery.replace_(units, range(400), birth=name, generator=torch.Generator().manual_seed(1))
    assert a.weight.mean().item() == pytest.approx(0, abs=4 * math.sqrt(VARIANCE[name] / a.weight.numel()))
    assert a.weight.var().item() == pytest.approx(VARIANCE[name], rel=0.03)
    if name == "truncated_normal":
        assert a.weight.abs().max().item() < 2 * math.sqrt(1 / 50) / 0.879 + 1e-6


def test_default_is_pytorchs_own() -> None:
    for module, bound in ((nn.Conv2d(3, 20, 5), 75**-0.5), (nn.GRUCell(7, 16), 0.25)):
        reader = nn.Conv2d(20, 2, 1) if isinstance(module, nn.Conv2d) else nn.Linear(16, 2)
        units = surgery.Units("x", module, (reader,))
        surgery.replace_(units, range(units.width), bias="initial")
        made = next(module.parameters())
        assert bound * 0.97 < made.abs().max().item() <= bound


def test_orthogonal_newborns_are_orthonormal() -> None:
    a, units = layer(20, 12)
    surgery.replace_(units, [1, 4, 5], birth="orthogonal")
    rows = a.weight[[1, 4, 5]]
    torch.testing.assert_close(rows @ rows.T, torch.eye(3), atol=1e-5, rtol=0)
    a, units = layer(2, 6)  # more newborns than directions: at least of length one
    surgery.replace_(units, range(6), birth="orthogonal")
    torch.testing.assert_close(a.weight.norm(dim=1), torch.ones(6))


def test_orthogonal_direction_avoids_the_present_units() -> None:
    a, units = layer(30, 12)
    surgery.replace_(units, [0, 7], birth="orthogonal_direction")
    others = [i for i in range(12) if i not in (0, 7)]
    cosine = torch.cosine_similarity(a.weight[[0, 7]][:, None], a.weight[others][None], dim=-1)
    assert cosine.abs().max() < 0.01
    assert (a.weight[[0, 7]].norm(dim=1) > 0.3).all()


def test_orthogonal_direction_in_a_crowded_layer_takes_what_is_covered_least() -> None:
    a, units = layer(3, 40)
    with torch.no_grad():
        a.weight[:, 2] *= 0.01  # nobody looks at the third input
    surgery.replace_(units, [5], birth="orthogonal_direction")
    row = a.weight[5] / a.weight[5].norm()
    assert row[2].abs() > 0.99


@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_data_scaled_newborns_look_like_their_neighbours(kind: str) -> None:
    """Inputs far from the origin: default newborns are dead or always on, scaled ones are neither."""
    torch.manual_seed(0)
    if kind == "linear":
        net = nn.Sequential(nn.Linear(5, 40), nn.ReLU(), nn.Linear(40, 2))
        x = torch.randn(64, 5) * 0.1 + 3
    else:
        net = nn.Sequential(nn.Conv2d(1, 40, 2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(40 * 16, 2))
        x = torch.randn(64, 1, 3, 3) * 0.1 + 3
    with torch.no_grad():  # a layer that has settled: every unit is centred on its inputs
        pre = net[0](x)
        dims = [0, *range(2, pre.ndim)]
        net[0].bias -= pre.mean(dims)
    optimizer = torch.optim.SGD(net.parameters(), 0.0)
    cbp = surgery.ContinualBackprop(surgery.find(net, x), optimizer, rate=0.25, maturity=1, birth="data_scaled")
    for _ in range(2):
        net(x).sum().backward()
        optimizer.step()
        gone = cbp.step()
    gone = gone["0"]
    pre = net[0](x[:32]).detach().transpose(0, 1).flatten(1)
    stays = [i for i in range(40) if i not in gone.tolist()]
    torch.testing.assert_close(pre[gone].std(1), pre[stays].std(1).median().expand(10), rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(pre[gone].mean(1), pre[stays].mean(1).median().expand(10), rtol=1e-2, atol=1e-2)
    assert ((pre[gone] > 0).float().mean(1) > 0.1).all()


def test_moment_matched_newborns_disturb_a_layer_norm_less() -> None:
    """Over 20 networks: what the other units and the readers' means move by, against a default draw."""
    moved = {"default": torch.zeros(2), "moment_matched": torch.zeros(2)}
    for seed in range(20):
        for birth, sums in moved.items():
            torch.manual_seed(seed)
            net = nn.Sequential(nn.Linear(5, 12), nn.LayerNorm(12), nn.ReLU(), nn.Linear(12, 2))
            optimizer = torch.optim.SGD(net.parameters(), 0.0)
            cbp = surgery.ContinualBackprop(surgery.find(net), optimizer, rate=0.08, maturity=1, birth=birth)
            x = torch.randn(32, 5) + 0.5
            before, others = net(x).mean(0), net[1](net[0](x))
            felt = net[0](x)
            while not (gone := cbp.step()):
                net(x).sum().backward()
                optimizer.step()
            i = int(gone["0"])
            if birth == "moment_matched":
                now = net[0](x)[:, i]
                torch.testing.assert_close(now.mean(), felt[:, i].mean(), rtol=1e-3, atol=1e-4)
                torch.testing.assert_close(now.std(), felt[:, i].std(), rtol=1e-3, atol=1e-4)
            change = (net[1](net[0](x)) - others).abs()
            change[:, i] = 0
            sums += torch.stack([change.mean(), (net(x).mean(0) - before).abs().mean()]).detach()
    assert (moved["moment_matched"] < 0.8 * moved["default"]).all(), moved


@pytest.mark.parametrize("birth", ["data_scaled", "moment_matched"])
def test_births_refuse_what_they_cannot_feel(birth: str) -> None:
    units = layer()[1]
    with pytest.raises(ValueError, match=birth):
        surgery.replace_(units, [0], birth=birth)


def test_a_function_of_ones_own_and_what_is_none() -> None:
    a, units = layer()
    surgery.replace_(units, [3], birth=lambda birth: torch.full(birth.shape, 2.0))
    assert (a.weight[3] == 2).all()
    with pytest.raises(ValueError, match=r"gave weights of shape \(1,\), not \(1, 50\)"):
        surgery.replace_(units, [3], birth=lambda birth: torch.ones(1))
    with pytest.raises(ValueError, match="unknown birth 'defautl': known are default, "):
        surgery.replace_(units, [3], birth="defautl")
    with pytest.raises(TypeError, match="birth must be a name"):
        surgery.replace_(units, [3], birth=3)


def test_draws_come_from_the_generator_alone() -> None:
    state = torch.get_rng_state()
    rows = []
    for seed in (1, 1, 2):
        a, units = layer()
        random = torch.get_rng_state()
        surgery.replace_(units, [3], generator=torch.Generator().manual_seed(seed))
        assert torch.equal(random, torch.get_rng_state())
        rows.append(a.weight[3].detach().clone())
    assert torch.equal(rows[0], rows[1])
    assert not torch.equal(rows[0], rows[2])
    torch.set_rng_state(state)


class Transposed(nn.Module):
    """A Linear whose weight is [inputs, outputs], as GPT-2's."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(inputs, outputs)), nn.Parameter(torch.full((outputs,), 9.0))


def test_an_initial_bias_of_a_registered_layer_is_drawn_by_its_inputs_whatever_their_dim() -> None:
    known = dict(LAYERS)
    try:
        surgery.register(Transposed, out={"weight": 1, "bias": 0}, inp={"weight": 0}, bias={"weight": "bias"})
        a = Transposed(100, 40)
        units = surgery.Units("a", a, (nn.Linear(40, 2),))
        surgery.replace_(units, list(range(40)), bias="initial")
    finally:
        LAYERS.clear()
        LAYERS.update(known)
    assert 0.08 < a.bias.abs().max() <= 0.1  # 1 / sqrt(100); by the other dim it would be .16
    assert 0.08 < a.weight.abs().max() <= 0.1
