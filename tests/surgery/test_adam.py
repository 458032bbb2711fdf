"""surgery.Adam: torch's Adam to the last bit, and for reborn entries Adam from its first step."""

import copy
import io

import pytest
import torch
from torch import nn

from continual_agents import surgery

pytestmark = pytest.mark.usefixtures("ways")

OPTIONS = [
    {},
    {"betas": (0.99, 0.99), "eps": 1e-5},
    {"weight_decay": 0.1},
    {"weight_decay": 0.1, "decoupled_weight_decay": True},
    {"amsgrad": True},
    {"maximize": True, "weight_decay": 0.1},
    {"foreach": True},
    {"foreach": False, "amsgrad": True},
    {"fused": True},
    {"fused": True, "amsgrad": True, "weight_decay": 0.1},
    {"fused": True, "maximize": True, "weight_decay": 0.1, "decoupled_weight_decay": True},
    {"capturable": False, "differentiable": False},
    {"lr": torch.tensor(0.01, dtype=torch.float64)},
]


def parameters(dtype: torch.dtype = torch.float32) -> list[nn.Parameter]:
    g = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(s, generator=g, dtype=dtype)) for s in ((5, 3), (5,), (2, 5), (2, 5, 3, 3))]


def run(optimizer: torch.optim.Optimizer, own: list[nn.Parameter], steps: int, seed: int = 1) -> None:
    g = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        for p in own:
            p.grad = torch.randn(p.shape, generator=g, dtype=p.dtype)
        optimizer.step()


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_bit_for_bit_torch_adam_while_nothing_is_replaced(options: dict) -> None:
    options = {"lr": 0.01, **options}
    ours, theirs = parameters(), parameters()
    a, b = surgery.Adam(ours, **options), torch.optim.Adam(theirs, **options)
    run(a, ours, 20)
    run(b, theirs, 20)
    for p, q in zip(ours, theirs, strict=True):
        assert torch.equal(p, q)
        for name, value in b.state[q].items():
            assert torch.equal(a.state[p][name], value)
    assert b.state_dict().keys() == a.state_dict().keys()
    torch.optim.Adam(theirs, **options).load_state_dict(a.state_dict())


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_reborn_entries_are_adam_from_its_first_step(options: dict) -> None:
    """Twin: the same optimizer on all entries, and a second one, started at the rebirth, for the reborn entries."""
    options = {"lr": 0.01, **options}
    ours = parameters(torch.float64)
    optimizer = surgery.Adam(ours, **options)
    run(optimizer, ours, 7)
    reborn = [(0, 1), (0, 1), (1, 1), (1, 1)]  # row 1 of the first two, column 1 of the last two
    for p, (dim, i) in zip(ours, reborn, strict=True):
        surgery.forget_([optimizer], p, dim, torch.tensor([i]))
    old = [p.detach().clone().requires_grad_() for p in ours]
    old_optimizer = torch.optim.Adam(old, **options)
    old_optimizer.load_state_dict(copy.deepcopy(_plain(optimizer.state_dict())))
    new = [p.detach().clone().requires_grad_() for p in ours]
    new_optimizer = torch.optim.Adam(new, **options)
    for own, o in ((ours, optimizer), (old, old_optimizer), (new, new_optimizer)):
        run(o, own, 25, seed=2)
    for p, q, r, (dim, i) in zip(ours, old, new, reborn, strict=True):
        expected = q.detach().clone()
        expected.select(dim, i).copy_(r.detach().select(dim, i))
        # fused: eps counts before the second moment's correction, 1e-8 of 31 times more at worst
        close = {"rtol": 1e-5, "atol": 1e-8} if options.get("fused") else {"rtol": 1e-9, "atol": 1e-11}
        torch.testing.assert_close(p.detach(), expected, **close)


def _plain(state: dict) -> dict:
    keep = lambda key: not key.startswith("age_") and key != "young"  # noqa: E731
    return {**state, "state": {i: {k: v for k, v in s.items() if keep(k)} for i, s in state["state"].items()}}


@pytest.mark.parametrize("fused", [True, False])
def test_an_entry_is_as_young_as_its_row_or_its_column(fused: bool) -> None:
    p = nn.Parameter(torch.zeros(3, 3, dtype=torch.float64))
    optimizer = surgery.Adam([p], lr=1.0, betas=(0.5, 0.75), eps=0.0, fused=fused)
    p.grad = torch.ones_like(p)
    for step in range(6):
        if step == 2:
            surgery.forget_([optimizer], p, 0, torch.tensor([0]))
        if step == 4:
            surgery.forget_([optimizer], p, 1, torch.tensor([0]))
        before = p.detach().clone()
        optimizer.step()
        # with a constant gradient every bias-corrected update is exactly the step size
        torch.testing.assert_close(before - p.detach(), torch.ones_like(p), rtol=1e-12, atol=1e-12)


def test_a_shared_step_count_makes_the_first_update_three_times_too_large() -> None:
    """The mistake this optimizer is for: (1 - beta1) / sqrt(1 - beta2) = 3.16 with torch's Adam, 1 with ours."""
    first, peak = {}, {}
    for kind in (torch.optim.Adam, surgery.Adam):
        p = nn.Parameter(torch.zeros(2, 1, dtype=torch.float64))
        optimizer = kind([p], lr=1e-3)
        p.grad = torch.ones_like(p)
        for _ in range(20_000 if kind is torch.optim.Adam else 2_000):
            optimizer.step()
        surgery.forget_([optimizer], p, 0, torch.tensor([0]))
        updates = []
        for _ in range(40):
            before = p[0].item()
            optimizer.step()
            updates.append((before - p[0].item()) / 1e-3)
        first[kind], peak[kind] = updates[0], max(updates)
    assert first[torch.optim.Adam] == pytest.approx(3.16, abs=0.01)
    assert peak[torch.optim.Adam] == pytest.approx(6.55, abs=0.03)
    assert first[surgery.Adam] == pytest.approx(1.0, abs=1e-6)
    assert peak[surgery.Adam] == pytest.approx(1.0, abs=1e-6)


def test_it_returns_to_torchs_path_when_the_correction_has_worn_off() -> None:
    p = nn.Parameter(torch.randn(4, 3))
    optimizer = surgery.Adam([p], betas=(0.5, 0.6))
    run(optimizer, [p], 3)
    surgery.forget_([optimizer], p, 0, torch.tensor([2]))
    young = optimizer.state[p]["young"]
    assert 0.6**young < 2**-25
    run(optimizer, [p], young - 1)
    assert "age_0" in optimizer.state[p]
    run(optimizer, [p], 1)
    assert set(optimizer.state[p]) == {"step", "exp_avg", "exp_avg_sq"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_state_continues_exactly(dtype: torch.dtype) -> None:
    ours = parameters(dtype)
    optimizer = surgery.Adam(ours, lr=0.01)
    run(optimizer, ours, 600)
    for p in ours:
        surgery.forget_([optimizer], p, 0, torch.tensor([1]))
    run(optimizer, ours, 3)
    buffer = io.BytesIO()
    torch.save({"optimizer": optimizer.state_dict(), "parameters": ours}, buffer)
    buffer.seek(0)
    stored = torch.load(buffer, weights_only=True)
    again = stored["parameters"]
    resumed = surgery.Adam(again, lr=0.01)
    resumed.load_state_dict(stored["optimizer"])
    assert resumed.state[again[0]]["age_0"].flatten().tolist() == [603.0, 3.0, 603.0, 603.0, 603.0]
    run(optimizer, ours, 5, seed=3)
    run(resumed, again, 5, seed=3)
    assert all(torch.equal(p, q) for p, q in zip(ours, again, strict=True))
    copied = copy.deepcopy(resumed)
    assert [g["lr"] for g in copied.param_groups] == [0.01]


def test_ages_stored_as_floating_point_numbers_are_read() -> None:
    """Older checkpoints hold them so."""
    ours, theirs = parameters(), parameters()
    optimizer, resumed = (surgery.Adam(own, lr=0.01, fused=True) for own in (ours, theirs))
    run(optimizer, ours, 9)
    surgery.forget_([optimizer], ours[0], 0, torch.tensor([1]))
    run(optimizer, ours, 2)
    stored = copy.deepcopy(optimizer.state_dict())
    stored["state"][0]["age_0"] = stored["state"][0]["age_0"].float()
    resumed.load_state_dict(stored)
    for p, q in zip(ours, theirs, strict=True):
        q.data.copy_(p.data)
    run(optimizer, ours, 3)
    run(resumed, theirs, 3)
    assert all(torch.equal(p, q) for p, q in zip(ours, theirs, strict=True))


def test_betas_may_change_while_entries_are_young() -> None:
    """A schedule of betas: the correction is that of the betas of the step, as torch's."""
    p = nn.Parameter(torch.zeros(2, 1, dtype=torch.float64))
    optimizer = surgery.Adam([p], lr=1.0, eps=0.0, betas=(0.5, 0.5), fused=True)
    p.grad = torch.ones_like(p)
    optimizer.step()
    surgery.forget_([optimizer], p, 0, torch.tensor([0]))
    optimizer.param_groups[0]["betas"] = (0.25, 0.75)
    optimizer.step()
    # the newborn's first step is the step size; the other's moments are .25 * .5 + .75 and .75 * .5 + .25
    expected = (0.875 / (1 - 0.25**2)) / (0.625 / (1 - 0.75**2)) ** 0.5
    torch.testing.assert_close(p.detach().flatten(), torch.tensor([-2.0, -1 - expected], dtype=torch.float64))


@pytest.mark.parametrize("fused", [True, False])
def test_several_groups_and_parameters_without_gradient(fused: bool) -> None:
    a, b, c = (nn.Parameter(torch.ones(2, 2, dtype=torch.float64)) for _ in range(3))
    optimizer = surgery.Adam([{"params": [a], "lr": 0.1}, {"params": [b, c], "lr": 0.2}], eps=0.0, fused=fused)
    for p in (a, b, c):
        p.grad = torch.ones_like(p)
    optimizer.step()
    for p in (a, b, c):
        surgery.forget_([optimizer], p, 0, torch.tensor([0]))
    c.grad = None
    before = [p.detach().clone() for p in (a, b, c)]
    optimizer.step()
    steps = [(x - p.detach()).unique() for x, p in zip(before, (a, b, c), strict=True)]
    for step, expected in zip(steps, (0.1, 0.2, 0.0), strict=True):
        torch.testing.assert_close(step, torch.full_like(step, expected))
    assert optimizer.state[c]["age_0"].flatten().tolist() == [0.0, 1.0]


def test_what_cannot_be_restarted_is_refused() -> None:
    p = nn.Parameter(torch.ones(2, 2, dtype=torch.complex64))
    optimizer = surgery.Adam([p])
    p.grad = torch.ones_like(p)
    optimizer.step()
    with pytest.raises(RuntimeError, match="complex"):
        optimizer.forget_(p, 0, torch.tensor([0]))
