"""A companion continues bit for bit, and refuses what cannot work at construction, leaving nothing behind."""

import io

import pytest
import torch
from torch import nn

from continual_agents import surgery
from tests.surgery.test_live import companion, mlp, same, train, values

pytestmark = pytest.mark.usefixtures("ways")


@pytest.mark.parametrize("utility", ["contribution", "random"])
def test_continues_bit_for_bit(utility: str) -> None:
    net = mlp()
    optimizer, cbp = companion(net, utility=utility)
    train(net, optimizer, cbp, 33)
    buffer = io.BytesIO()
    torch.save({"net": net.state_dict(), "optimizer": optimizer.state_dict(), "cbp": cbp.state_dict()}, buffer)
    rest = train(net, optimizer, cbp, 40, 33)
    assert any(rest)
    buffer.seek(0)
    stored = torch.load(buffer, weights_only=True)
    again = mlp(seed=5)
    resumed_optimizer, resumed = companion(again, utility=utility)
    again.load_state_dict(stored["net"])
    resumed_optimizer.load_state_dict(stored["optimizer"])
    resumed.load_state_dict(stored["cbp"])
    assert train(again, resumed_optimizer, resumed, 40, 33) == rest
    assert same(values(net), values(again))  # the network itself is edited, no detached copy of it
    assert resumed.report() == cbp.report()


def test_a_state_of_another_network_is_refused() -> None:
    _, cbp = companion(mlp())
    _, other = companion(nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2)))
    with pytest.raises(ValueError, match=r"this state is of layers \{'0': 12, '2': 12\}, the network has \{'0': 5\}"):
        other.load_state_dict(cbp.state_dict())


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"rate": 2.0}, ValueError, "rate=2.0"),
        ({"maturity": -1}, ValueError, "maturity=-1"),
        ({"decay": 1.0}, ValueError, "decay=1.0"),
        ({"utility": "contribtion"}, ValueError, "unknown utility 'contribtion'"),
        ({"birth": "xavier"}, ValueError, "unknown birth 'xavier'"),
        ({"bias": "none"}, ValueError, "bias='none'"),
        ({"optimizer": torch.optim.SGD(mlp().parameters(), 0.1)}, ValueError, "trains none of the layers that make"),
        ({"optimizer": torch.optim.LBFGS(mlp().parameters())}, TypeError, "LBFGS"),
        ({"optimizer": [3]}, TypeError, "needs a torch.optim.Optimizer, got int"),
        ({"units": []}, ValueError, "no units"),
    ],
)
def test_errors_name_the_value_at_construction(change: dict, error: type, message: str) -> None:
    net = mlp()
    arguments = {"units": surgery.find(net), "optimizer": torch.optim.SGD(net.parameters(), 0.1), **change}
    with pytest.raises(error, match=message):
        surgery.ContinualBackprop(arguments.pop("units"), arguments.pop("optimizer"), **arguments)


def test_names_must_be_unique() -> None:
    net = mlp()
    units = surgery.find(net)
    with pytest.raises(ValueError, match="names of their own"):
        surgery.ContinualBackprop([units[0], units[0]], torch.optim.SGD(net.parameters(), 0.1))


@pytest.mark.parametrize("change", [{"layers": {"2": {"rate": 3.0}}}, {"layers": {"9": {}}}])
def test_a_refusal_leaves_no_hooks(change: dict) -> None:
    net = mlp()
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    with pytest.raises((ValueError, KeyError)):
        surgery.ContinualBackprop(surgery.find(net), optimizer, **change)
    assert not optimizer._optimizer_step_post_hooks
    assert not any(module._forward_pre_hooks for module in net.modules())
