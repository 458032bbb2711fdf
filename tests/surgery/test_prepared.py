"""What changes behind addresses that were prepared for kernels.c: it is followed as torch's operations would."""

import copy
import multiprocessing
import os
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from continual_agents import surgery
from continual_agents.surgery import adam_in_c, kernels
from continual_agents.surgery.removal import Removal
from tests.surgery.test_kernels import drawn, network, trained, young


def test_a_copy_goes_its_own_way() -> None:
    """Addresses that were prepared mean nothing in it."""
    net, cbp, _ = trained(torch.float32, "Adam", "contribution")
    before = copy.deepcopy(net.state_dict())
    averages = [average.clone() for layer in cbp.layers for average in layer.averages]
    its_net, its_cbp = copy.deepcopy((net, cbp))
    optimizer = its_cbp.optimizers[0]
    for _ in range(20):
        optimizer.zero_grad()
        its_net(drawn(4, 6)).sum().backward()
        optimizer.step()
        its_cbp._renew()
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    now = [average for layer in cbp.layers for average in layer.averages]
    assert all(map(torch.equal, averages, now))
    assert not all(torch.equal(value, before[name]) for name, value in its_net.state_dict().items())


def _moved(net: nn.Sequential) -> None:
    for p in net.parameters():
        p.data = p.data.clone()


def _turned(net: nn.Sequential) -> None:
    for p in net.parameters():
        p.data = p.data.t().contiguous().t() if p.ndim == 2 else p.data


@pytest.mark.parametrize("change", [_moved, _turned])
def test_weights_that_moved_are_followed(change, monkeypatch: pytest.MonkeyPatch) -> None:
    def run() -> tuple[list, nn.Module]:
        net, cbp, _ = trained(torch.float64, "SGD", "contribution", steps=40)
        change(net)
        g, optimizer = torch.Generator().manual_seed(2), cbp.optimizers[0]
        replaced = []
        for _ in range(60):
            optimizer.zero_grad()
            net(torch.randn(8, 6, generator=g, dtype=torch.float64)).square().sum().backward()
            optimizer.step()
            replaced.append({name: index.tolist() for name, index in cbp.step().items()})
        return replaced, net

    in_c = run()
    monkeypatch.setattr(kernels, "library", lambda dtype: None)
    in_torch = run()
    assert in_c[0] == in_torch[0]
    assert any(in_c[0])
    for ours, theirs in zip(in_c[1].parameters(), in_torch[1].parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


def test_state_of_another_optimizer_is_forgotten_once_it_is_told(library: kernels.Library) -> None:
    net, cbp, _ = trained(torch.float32, "SGD", "contribution", steps=40)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    cbp.optimizers = optimizer
    net(drawn(4, 6)).sum().backward()
    optimizer.step()
    for state in optimizer.state.values():
        state["momentum_buffer"].fill_(1.0)
    removal: Removal = cbp.layers[0].removal
    gone = torch.tensor([3, 5])
    assert removal.ready(gone, cbp.optimizers)
    assert not removal.ready(torch.tensor([3, 0, 5])[::2], cbp.optimizers), "C reads indices side by side"
    removal.erase(gone)
    buffer = {name: optimizer.state[p]["momentum_buffer"] for name, p in net.named_parameters()}
    assert buffer["0.weight"].sum(1).nonzero().flatten().tolist() == [i for i in range(20) if i not in (3, 5)]
    assert buffer["0.bias"].nonzero().flatten().tolist() == [i for i in range(20) if i not in (3, 5)]
    assert buffer["2.weight"].sum(0).nonzero().flatten().tolist() == [i for i in range(20) if i not in (3, 5)]
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))  # other tensors from here on
    assert removal.ready(gone[:1], cbp.optimizers)
    removal.erase(torch.tensor([0]))
    assert not optimizer.state[net[0].weight]["momentum_buffer"][0].any()


def _transposed(net: nn.Sequential) -> None:
    net[2].weight.data = net[2].weight.data.t()


def _narrowed(net: nn.Sequential) -> None:
    net[4].weight.data, net[4].bias.data = net[4].weight.data[:2], net[4].bias.data[:2]


@pytest.mark.filterwarnings("ignore:grad and param do not obey:UserWarning")
@pytest.mark.parametrize("change", [_transposed, _narrowed])
def test_another_layout_at_the_same_address_is_noticed(change) -> None:
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.0)
    cbp = surgery.ContinualBackprop(surgery.find(net), optimizer, rate=0.0, utility="weight", decay=0.0)
    for _ in range(2):
        optimizer.zero_grad()
        net(drawn(4, 6)).sum().backward()
        optimizer.step()
        cbp.step()
    change(net)
    optimizer.zero_grad()
    net(drawn(4, 6)).sum().backward()
    optimizer.step()
    cbp.step()
    for layer, reader in zip(cbp.layers, (net[2], net[4]), strict=True):
        torch.testing.assert_close(layer.utility, reader.weight.detach().abs().sum(0))


@pytest.mark.usefixtures("ways")
def test_a_layer_that_was_widened_behind_the_companions_back_is_an_error() -> None:
    net, cbp, _ = trained(torch.float32, "SGD", "contribution", steps=5)
    net[2].weight.data, net[0].weight.data, net[0].bias.data = drawn(17, 5000), drawn(5000, 6), drawn(5000)
    cbp.optimizers[0].zero_grad()
    net(drawn(4, 6)).sum().backward()
    cbp.optimizers[0].state.clear()
    cbp.optimizers[0].step()
    with pytest.raises(RuntimeError, match="size"):
        cbp.step()


@pytest.mark.usefixtures("ways")
def test_adams_parameter_of_another_shape_is_an_error() -> None:
    p, optimizer = young(40, 40)
    p.data, p.grad = torch.zeros(2, 2), torch.zeros(2, 2)
    with pytest.raises(RuntimeError, match="size"):
        optimizer.step()


def test_moments_of_another_type_and_counts_in_float64_are_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    def run() -> tuple[Tensor, Tensor]:
        p, optimizer = young(4, 4)
        q = nn.Parameter(torch.zeros(3))
        optimizer.add_param_group({"params": [q], "fused": True})
        optimizer.state[q] = {name: torch.zeros(3) for name in ("exp_avg", "exp_avg_sq")}
        optimizer.state[q]["step"] = torch.tensor(5.0, dtype=torch.float64)
        assert p.grad is not None
        p.grad, q.grad = torch.full((4, 4), 2.0), torch.ones(3)
        optimizer.step()
        return p.detach(), q.detach()

    in_c = run()
    monkeypatch.setattr(kernels, "library", lambda dtype: None)
    for ours, theirs in zip(in_c, run(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-7)


def test_the_default_device_of_new_tensors_is_nothing_to_c() -> None:
    net = network(torch.float32)
    optimizer = surgery.Adam(net.parameters(), lr=1e-3)
    cbp, inputs = surgery.ContinualBackprop(surgery.find(net), optimizer, rate=0.02, maturity=9), drawn(40, 8, 6)
    for number, x in enumerate(inputs):
        torch.set_default_device("meta" if number else None)  # type: ignore[arg-type]  # the first makes torch's state
        try:
            optimizer.zero_grad()
            net(x).sum().backward()
            optimizer.step()
            cbp.step()
        finally:
            torch.set_default_device(None)  # type: ignore[arg-type]
    assert sum(layer.replaced for layer in cbp.layers)
    assert all(p.isfinite().all() for p in net.parameters())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_process_steps_large_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads stay behind in the parent."""
    monkeypatch.setattr(adam_in_c, "LARGE", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    _, optimizer = young(4, 4)
    child = multiprocessing.get_context("fork").Process(target=optimizer.step)
    child.start()
    child.join(60)
    alive = child.is_alive()
    child.kill()
    assert not alive, "it waits for threads that are not there"


class _Late(torch.optim.Optimizer):
    """Has an entry for its state from the first step, and something in it from the thirtieth."""

    def __init__(self, params: Any) -> None:
        super().__init__(params, {})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for p in self.param_groups[0]["params"]:
            state = self.state[p]
            state["count"] = state.get("count", 0) + 1
            state.setdefault("buffer", None)
            if state["count"] == 30:
                state["buffer"] = torch.ones_like(p)


def test_a_state_that_comes_late_is_forgotten_and_a_bias_that_does_takes_the_mean() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 3, bias=False))
    optimizer = _Late(net.parameters())
    cbp = surgery.ContinualBackprop(surgery.find(net), optimizer, rate=0.02, maturity=5)
    replaced: set[int] = set()
    for step in range(60):
        if step == 30:
            net[2].bias = nn.Parameter(torch.zeros(3))
            before = net(drawn(64, 6)).mean(0)
        net(drawn(64, 6)).sum().backward()
        optimizer.step()
        gone = [i for index in cbp.step().values() for i in index.tolist()]
        replaced |= set(gone) if step >= 30 else set()
        if step >= 30 and gone:
            torch.testing.assert_close(net(drawn(64, 6)).mean(0), before, rtol=1e-3, atol=1e-4)
    rows = optimizer.state[net[0].weight]["buffer"].sum(1)
    assert (rows == 0).nonzero().flatten().tolist() == sorted(replaced)
    assert replaced
