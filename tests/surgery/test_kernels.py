"""kernels.c does what torch's operations do, where these can be seen side by side; the twins run both ways as well."""

import ctypes
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from continual_agents import surgery
from continual_agents.surgery import adam_in_c, compiler, kernels, utility

REALS = [torch.float32, torch.float64]


def drawn(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=dtype)


@pytest.mark.parametrize("dtype", REALS)
@pytest.mark.parametrize("shape", [(67, 40), (40, 1), (33, 5, 3, 2), (3, 0)])
@pytest.mark.parametrize("dim", [0, 1, -1])
def test_sums_of_magnitudes(shape: tuple[int, ...], dim: int, dtype: torch.dtype) -> None:
    weight = drawn(*shape, dtype=dtype)
    expected = weight.double().abs().sum([d for d in range(len(shape)) if d != dim % len(shape)])
    found = utility.magnitude(weight, dim)
    torch.testing.assert_close(found, expected.to(dtype), rtol=1e-5 if dtype == torch.float32 else 1e-13, atol=0)
    strided = torch.stack([weight, weight], -1)[..., 0]  # not side by side in memory: torch's operations
    torch.testing.assert_close(utility.magnitude(strided, dim), found, rtol=1e-5, atol=0)


def network(dtype: torch.dtype, activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    torch.manual_seed(0)
    layers = (nn.Linear(6, 20), activation(), nn.Linear(20, 17), activation(), nn.Linear(17, 3))
    return nn.Sequential(*layers).to(dtype)


def trained(
    dtype: torch.dtype, make: str, utility_name: str, steps: int = 120, **settings: object
) -> tuple[nn.Module, surgery.ContinualBackprop, list[dict]]:
    net = network(dtype)
    kinds = {"Adam": surgery.Adam, "SGD": torch.optim.SGD, "Adagrad": torch.optim.Adagrad}
    options = {"SGD": {"momentum": 0.9}, "Adagrad": {"initial_accumulator_value": 0.25}}.get(make, {})
    optimizer = kinds[make](net.parameters(), lr=0.01, **options)
    units = surgery.find(net)
    cbp = surgery.ContinualBackprop(units, optimizer, rate=0.02, maturity=9, utility=utility_name, **settings)
    g = torch.Generator().manual_seed(1)
    replaced = []
    for _ in range(steps):
        x = torch.randn(8, 6, generator=g, dtype=dtype)
        optimizer.zero_grad()
        net(x).square().sum().backward()
        optimizer.step()
        replaced.append({name: index.tolist() for name, index in cbp.step().items()})
    return net, cbp, replaced


@pytest.mark.parametrize("settings", [{}, {"every": 3}, {"keep_optimizer_state": True}], ids=str)
@pytest.mark.parametrize("utility_name", ["contribution", "weight", "adaptation", "adaptable_contribution"])
@pytest.mark.parametrize("make", ["Adam", "SGD", "Adagrad"])
def test_the_same_units_go_and_the_same_weights_stay(
    make: str, utility_name: str, settings: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole runs in float64, where rounding decides nothing."""
    in_c = trained(torch.float64, make, utility_name, **settings)
    monkeypatch.setattr(kernels, "library", lambda dtype: None)
    in_torch = trained(torch.float64, make, utility_name, **settings)
    assert in_c[2] == in_torch[2]
    assert sum(map(len, in_c[2])) > 20
    for ours, theirs in zip(in_c[0].parameters(), in_torch[0].parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)
    for ours, theirs in zip(in_c[1].layers, in_torch[1].layers, strict=True):
        for one, other in zip((*ours.averages, *ours.weights), (*theirs.averages, *theirs.weights), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)
        assert torch.equal(ours.birth_step, theirs.birth_step)


@pytest.mark.usefixtures("library")
def test_c_takes_the_steps_where_it_can() -> None:
    _, cbp, _ = trained(torch.float32, "Adam", "contribution")
    assert all(running._quiet is not None for running in cbp.running)
    assert all(layer.removal._zeros is not None and layer.removal._readers is not None for layer in cbp.layers)
    assert [update.in_c is not None for known in cbp.optimizers[0]._known for update in known.updates][-1]


@pytest.mark.usefixtures("library")
def test_large_parameters_are_shared_among_threads_to_the_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    one = trained(torch.float32, "Adam", "contribution")[0]
    monkeypatch.setattr(adam_in_c, "LARGE", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    several = trained(torch.float32, "Adam", "contribution")[0]
    assert all(torch.equal(p, q) for p, q in zip(one.parameters(), several.parameters(), strict=True))


def test_writes_are_known_to_autograd() -> None:
    """A backward pass through weights that surgery has changed since is an error, as with torch's own operations."""
    net, cbp, _ = trained(torch.float32, "Adam", "contribution")
    loss = net(drawn(4, 6)).sum()
    versions = [p._version for p in net.parameters()]
    while not all(p._version > before for p, before in zip(net.parameters(), versions, strict=True)):
        cbp._renew()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.usefixtures("ways")
def test_adams_steps_of_young_entries_are_known_to_autograd() -> None:
    net, cbp, _ = trained(torch.float32, "Adam", "contribution")
    optimizer = cbp.optimizers[0]
    assert all("young" in optimizer.state[p] for p in net.parameters() if p is not net[4].bias)
    versions = [p._version for p in net.parameters()]
    optimizer.step()
    assert all(p._version > before for p, before in zip(net.parameters(), versions, strict=True))


@pytest.mark.parametrize("dtype", REALS)
def test_what_is_no_number_counts_as_zero_and_the_young_stay(dtype: torch.dtype) -> None:
    library = kernels.library(dtype)
    assert library is not None
    inf, nan = torch.inf, torch.nan
    # averages of two units' scores and means, then what they are to be divided by
    state = torch.tensor([3.0, nan, 1.0, 0.0, 0.5, 0.5, 0.25, 0.0], dtype=dtype)
    judged, births = torch.empty(4, dtype=dtype), torch.tensor([7, 6])
    library.judge(state.data_ptr(), 4, births.data_ptr(), 2, 7, judged.data_ptr())
    assert judged.tolist() == [inf, 0.0, 4.0, 0.0]

    state, fresh = torch.zeros(8, dtype=dtype), torch.tensor([0.0, 0.0, 8.0, nan], dtype=dtype)
    out = torch.tensor([3.0, inf], dtype=dtype)
    averages = kernels.Averages(state.data_ptr(), fresh.data_ptr(), fresh[2:].data_ptr(), out.data_ptr(), None)
    averages.units, averages.values, averages.ones, averages.samples, averages.pace = 2, 4, 4, 4, 0.25
    library.follow(None, 0, ctypes.addressof(averages))
    assert state.tolist() == [0.25 * 2 * 3, 0.0, 0.25 * 2, 0.0, 0.25, 0.25, 0.25, 0.25]


def test_without_a_compiler_torch_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler.shutil, "which", lambda name: None)
    compiler.compiled.cache_clear()
    kernels.library.cache_clear()
    try:
        assert kernels.library(torch.float32) is None
        trained(torch.float32, "Adam", "contribution", steps=30)
    finally:
        kernels.library.cache_clear()


def test_structures_are_as_large_as_in_c(library: kernels.Library) -> None:
    sizes = "".join(
        f"long size_of_{name}(void) {{ return sizeof({name}); }}\n"
        for name in ("Sum", "Averages", "Zeros", "Part", "Settings")
    )
    source = f"#define REAL float\n{kernels.SOURCE.read_text(encoding='utf-8')}\n{sizes}"
    loaded = compiler.compiled(source, kernels.FLAGS)
    for kind in (kernels.Sum, kernels.Averages, kernels.Zeros, kernels.Part, kernels.Settings):
        assert getattr(loaded, f"size_of_{kind.__name__}")() == ctypes.sizeof(kind)


@pytest.mark.usefixtures("ways")
@pytest.mark.parametrize("maturity", [9.0, 9])
def test_a_whole_number_may_come_as_a_float(maturity: float) -> None:
    net = network(torch.float32)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    cbp = surgery.ContinualBackprop(surgery.find(net), optimizer, rate=0.05, maturity=maturity)  # type: ignore[arg-type]
    for _ in range(30):
        net(drawn(4, 6)).sum().backward()
        optimizer.step()
        cbp.step()
    assert sum(layer.replaced for layer in cbp.layers)


def young(*shape: int, **options: Any) -> tuple[nn.Parameter, surgery.Adam]:
    p = nn.Parameter(torch.zeros(shape))
    optimizer = surgery.Adam([p], lr=1e-3, **options)
    p.grad = torch.ones_like(p)
    optimizer.step()
    optimizer.forget_(p, 0, torch.tensor([1]))
    optimizer.step()
    return p, optimizer


@pytest.mark.usefixtures("ways")
def test_adam_forgets_at_once_where_beta1_is_0() -> None:
    p, optimizer = young(4, 4, betas=(0.0, 0.999))
    for gradient in (1e6, 1e-3):
        assert p.grad is not None
        p.grad.fill_(gradient)
        optimizer.step()
    assert optimizer.state[p]["exp_avg"].unique().tolist() == [pytest.approx(1e-3)]
