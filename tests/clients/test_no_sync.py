"""A step without replacement reads nothing from the device: every operation it runs is traced and looked at."""

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from continual_agents import surgery
from continual_agents.surgery import kernels
from tests.clients.test_recurrent import Rememberer
from tests.clients.test_residual import SmallResNet
from tests.helpers import descend

WAITS = (  # operations that hand a number, or a shape that depends on numbers, to the host
    "_local_scalar_dense", "item", "is_nonzero", "nonzero", "nonzero_numpy", "masked_select", "unique", "_unique",
    "_unique2", "unique_dim", "unique_consecutive", "bincount", "equal", "allclose", "_to_copy",
    "repeat_interleave.Tensor",
)  # fmt: skip


class Traced(TorchDispatchMode):
    """Notes every operation, refuses those that wait for the device."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = str(func).removeprefix("aten.")
        self.seen.append(name)
        moves = name.startswith("_to_copy") and "device" not in (kwargs or {})  # of type only: no wait
        if not moves and (name in WAITS or name.split(".")[0] in WAITS):
            raise AssertionError(f"{name} waits for the device")
        if name.startswith("index.") and any(i is not None and i.dtype == torch.bool for i in args[1]):
            raise AssertionError(f"{name} with a mask waits for the device")
        return func(*args, **(kwargs or {}))


def test_the_tracer_sees_what_waits() -> None:
    x = torch.ones(3)
    for wait in (lambda: x.sum().item(), lambda: bool(x[0] > 0), lambda: x[x > 0], lambda: x.nonzero()):
        with pytest.raises(AssertionError, match="waits"), Traced():
            wait()


def mlp() -> tuple[nn.Module, torch.Tensor]:
    return nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 2)), torch.randn(8, 4)


def conv() -> tuple[nn.Module, torch.Tensor]:
    return SmallResNet(), torch.randn(4, 3, 8, 8)


def recurrent() -> tuple[nn.Module, torch.Tensor]:
    return Rememberer(), torch.randn(4, 5, 2)


CASES = [(mlp, utility) for utility in surgery.UTILITIES]
CASES += [(make, utility) for make in (conv, recurrent) for utility in ("adaptable_contribution", "gradient")]


@pytest.fixture(autouse=True)
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """With torch's operations: what C does on a CPU cannot be traced."""
    monkeypatch.setattr(kernels, "library", lambda dtype: None)


@pytest.mark.parametrize(("make", "utility"), CASES)
def test_a_step_without_replacement_reads_nothing(make, utility: str) -> None:
    torch.manual_seed(0)
    net, x = make()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    cbp = surgery.ContinualBackprop(surgery.find(net, x), optimizer, rate=0.005, maturity=2, utility=utility)
    quiet = replaced = 0
    for _ in range(25):
        optimizer.zero_grad()
        due = min(value for key, value in cbp.report().items() if key.startswith("next_replacement_in/")) <= 1
        with Traced() as traced:
            net(x).square().mean().backward()  # the hooks run here
        optimizer.step()
        if due:
            replaced += bool(cbp.step())
        else:
            with Traced() as traced:
                assert not cbp.step()
            quiet += bool(traced.seen)
    assert quiet >= 5, "steps without replacement did run operations, and none of them waits"
    assert replaced, "and replacements were due when the report said so"


@pytest.mark.parametrize(("make", "utility"), CASES)
def test_a_step_without_replacement_runs_on_tensors_without_values(make, utility: str) -> None:
    """On the meta device there is nothing to read: `tolist`, `numpy` and copies to the host raise too."""
    net, x = make()
    units = surgery.find(net, x)
    net, x = net.to("meta"), x.to("meta")
    optimizer = surgery.Adam(net.parameters(), lr=0.01)
    cbp = surgery.ContinualBackprop(units, optimizer, rate=1e-3, maturity=2, utility=utility)
    for _ in range(8):
        descend(net(x).square().mean(), optimizer)
        assert not cbp.step()
    assert cbp.steps == 8
    with pytest.raises(RuntimeError, match="meta"):
        cbp.report()
