"""No step without a replacement waits for the device: nothing reads a value, nothing has a data-dependent shape.

On a GPU each of these operations would stop the host until all queued work is done.
"""

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from continual_agents import surgery
from continual_agents.surgery import kernels

WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "unique", "index.Tensor")


@pytest.fixture(autouse=True)
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """With torch's operations: what C does on a CPU cannot be traced."""
    monkeypatch.setattr(kernels, "library", lambda dtype: None)


class Ledger(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.calls.append(str(func))
        return func(*args, **(kwargs or {}))

    def waits(self) -> list[str]:
        return [call for call in self.calls if any(f".{name}" in call for name in WAITING)]


@pytest.mark.parametrize("utility", surgery.UTILITIES)
def test_continual_backprop_never_waits_not_even_when_it_replaces(utility: str) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        *(nn.Conv2d(1, 6, 2), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 4, 8), nn.ReLU()),
        nn.Linear(8, 2),
    )
    optimizer = torch.optim.SGD(net.parameters(), 0.01)
    cbp = surgery.ContinualBackprop(
        surgery.find(net, torch.randn(2, 1, 3, 3)), optimizer, rate=0.01, maturity=5, utility=utility
    )
    steps = {False: 0, True: 0}
    for i in range(40):
        x = torch.randn(4, 1, 3, 3)
        ledger = Ledger()
        with ledger:  # the hooks of the forward pass are in it
            loss = net(x).square().mean()
        loss.backward()
        optimizer.step()
        with ledger:
            replaced = bool(cbp.step())
        assert not ledger.waits()
        steps[replaced] += 1
        if i == 20 and not replaced and utility == "contribution":
            # 2 layers: |h|, mean |h|, mean h, |w|, sum |w|, product, 2 checks for NaN, 2 running means, and views
            own = [call for call in ledger.calls if not any(w in call for w in ("view", "detach", "convolution"))]
            assert len(own) < 60
    assert steps[True] >= 3
    assert steps[False] >= 20


def test_adams_path_for_young_entries_never_waits_on_the_device() -> None:
    p = nn.Parameter(torch.randn(4, 3))
    optimizer = surgery.Adam([p])
    p.grad = torch.randn(4, 3)
    optimizer.step()
    surgery.forget_([optimizer], p, 0, torch.tensor([1]))
    ledger = Ledger()
    with ledger:
        optimizer.step()
    assert not ledger.waits()


@pytest.mark.parametrize("kind", ["redo", "snr"])
def test_threshold_rules_wait_at_their_looks_only(kind: str) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
    optimizer = torch.optim.SGD(net.parameters(), 0.01)
    make = {"redo": surgery.ReDo, "snr": surgery.SelfNormalizedResets}[kind]
    companion = make(surgery.find(net), optimizer, period=5)
    for i in range(1, 21):
        ledger = Ledger()
        with ledger:
            loss = net(torch.randn(4, 3)).square().mean()
        loss.backward()
        optimizer.step()
        with ledger:
            companion.step()
        assert bool(ledger.waits()) == (i % 5 == 0)
