"""Every utility in hand numbers, read where a user reads it: after one training pass of a small network."""

import math

import pytest
import torch
from torch import nn

from continual_agents import surgery
from continual_agents.surgery import utility

pytestmark = pytest.mark.usefixtures("ways")

X = torch.tensor([[1.0, 2.0], [3.0, -4.0]])
# h = relu(x @ [[1, 0], [0, 1], [-1, 0]]): unit 0 sees 1, 3; unit 1 sees 2, 0; unit 2 is dead
# mean h = 2, 1, 0; mean |h - mean h| = 1, 1, 0
# sum |w_out| = |1| + |-2| = 3; .5 + 0 = .5; 10; sum |w_in| = 1, 2, 4


def small() -> nn.Sequential:
    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]))
        net[0].bias.zero_()
        net[2].weight.copy_(torch.tensor([[1.0, 0.5, 5.0], [-2.0, 0.0, 5.0]]))
    return net


def scores(name, incoming=(1.0, 1.0, 1.0)) -> list[float]:
    net = small()
    with torch.no_grad():  # in-weights are judged after the step: put other ones in
        replacement = net[0].weight * torch.tensor(incoming)[:, None]
    optimizer = torch.optim.SGD(net.parameters(), 0.0)
    cbp = surgery.ContinualBackprop(surgery.find(net), optimizer, rate=0.0, decay=0.0, utility=name)
    out = net(X)
    (out * torch.tensor([[1.0, 0.0], [1.0, 0.0]])).sum().backward()
    optimizer.step()
    with torch.no_grad():
        net[0].weight.copy_(replacement)
    cbp.step()
    return cbp.histograms()["utility/0"].tolist()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("contribution", [2 * 3, 1 * 0.5, 0.0]),
        ("mean_corrected_contribution", [1 * 3, 1 * 0.5, 0.0]),
        ("adaptable_contribution", [1 * 3 / 1, 1 * 0.5 / 2, 0.0]),
        ("weight", [3, 0.5, 10]),
        ("adaptation", [1, 0.5, 0.25]),
        ("gradient", [2 * 1.0, 1 * 0.5, 0.0]),  # dL/dh = first row of w_out
    ],
)
def test_hand_numbers(name: str, expected: list[float]) -> None:
    assert scores(name, incoming=(1.0, 2.0, 4.0)) == pytest.approx(expected)


def test_a_function_of_ones_own() -> None:
    assert scores(lambda s: s.activity**2) == pytest.approx([4.0, 1.0, 0.0])
    loud = surgery.Utility(lambda s: s.sensitivity + s.out, needs=("sensitivity", "out"))
    assert scores(loud) == pytest.approx([2 + 3, 0.5 + 0.5, 10])


def test_scores_that_are_no_numbers_count_as_zero() -> None:
    assert scores("adaptation", incoming=(1.0, 0.0, 1.0)) == [1.0, 0.0, 1.0]  # 1 / 0
    assert scores(lambda s: s.activity * math.inf) == [0.0, 0.0, 0.0]  # inf and 0 * inf


@pytest.mark.parametrize("choice", ["contributions", "", "utility"])
def test_an_unknown_name_is_refused(choice: str) -> None:
    with pytest.raises(ValueError, match="known are contribution, "):
        utility.utility_of(choice)


def test_what_is_no_utility_is_refused() -> None:
    with pytest.raises(TypeError, match="utility must be a name"):
        utility.utility_of(3)
    with pytest.raises(ValueError, match="cannot need"):
        surgery.Utility(lambda s: s.activity, needs=("activty",))


def test_pure_functions_take_leading_runs() -> None:
    g = torch.Generator().manual_seed(0)
    activity, out, incoming = (torch.rand(4, 3, 5, generator=g) for _ in range(3))
    together = utility.adaptable_contribution(activity, out, incoming)
    alone = utility.adaptable_contribution(activity[2, 1], out[2, 1], incoming[2, 1])
    assert torch.equal(together[2, 1], alone)
    assert torch.equal(utility.dormancy(activity)[1, 2], utility.dormancy(activity[1, 2]))


def test_positions_are_averaged_and_flattened_columns_summed() -> None:
    """conv -> flatten -> linear: |h| over batch and positions, |w_out| over all columns of the channel."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(3 * 4, 2))
    optimizer = torch.optim.SGD(net.parameters(), 0.0)
    cbp = surgery.ContinualBackprop(surgery.find(net), optimizer, rate=0.0, decay=0.0)
    x = torch.randn(5, 1, 3, 3)
    net(x).sum().backward()
    optimizer.step()
    cbp.step()
    h = net[:2](x).detach()
    expected = [
        (h[:, c].abs().mean() * net[3].weight[:, 4 * c : 4 * c + 4].detach().abs().sum()).item() for c in range(3)
    ]
    assert cbp.histograms()["utility/0"].tolist() == pytest.approx(expected, rel=1e-5)


def test_sequence_positions_are_averaged() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))
    optimizer = torch.optim.SGD(net.parameters(), 0.0)
    cbp = surgery.ContinualBackprop(surgery.find(net), optimizer, rate=0.0, decay=0.0)
    x = torch.randn(4, 6, 2)
    net(x).sum().backward()
    optimizer.step()
    cbp.step()
    expected = net[:2](x).detach().abs().mean((0, 1)) * net[2].weight.detach().abs().sum(0)
    torch.testing.assert_close(cbp.histograms()["utility/0"], expected)


@pytest.mark.parametrize("utility", ["adaptable_contribution", "contribution", "mean_corrected_contribution"])
@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh])
def test_a_single_sample_is_judged_as_a_batch_of_one(utility: str, activation: type[nn.Module]) -> None:
    """What follows from the mean of a single sample at once, against statistics taken pass by pass; with a step of two
    passes and one of three samples between."""
    known = []
    for at_once in (True, False):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(3, 6), activation(), nn.Linear(6, 5), activation(), nn.Linear(5, 1)).double()
        optimizer = torch.optim.SGD(net.parameters(), 0.05)
        cbp = surgery.ContinualBackprop(surgery.find(net), optimizer, rate=0.1, maturity=3, utility=utility)
        for sizes in [(1,), (1,), (1, 1), (1,), (3,), (1, 2), (1,), (1,)]:
            if not at_once:
                for layer in cbp.layers:
                    for watch in layer.watches:
                        watch.aim(None)
            optimizer.zero_grad()
            for size in sizes:
                net(torch.randn(size, 3, dtype=torch.float64)).square().mean().backward()
            optimizer.step()
            cbp.step()
        known.append([average.clone() for layer in cbp.layers for average in layer.averages])
        assert sum(layer.replaced for layer in cbp.layers) > 0
    for a, b in zip(*known, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("utility", ["contribution", "weight", "adaptable_contribution"])
def test_averages_are_those_of_every_step_whenever_they_are_read(utility: str) -> None:
    """Steps wait to be taken in; by hand, step by step, with batches of several sizes and a report between."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 2)).double()
    first, last = net[0], net[2]
    optimizer = torch.optim.SGD(net.parameters(), 0.05)
    cbp = surgery.ContinualBackprop(surgery.find(net), optimizer, rate=0, decay=0.9, utility=utility)
    useful, mean, weight = (torch.zeros(6, dtype=torch.float64) for _ in range(3))
    for step in range(1, 60):
        x = torch.randn(4 if step % 5 else 3, 3, dtype=torch.float64)
        with torch.no_grad():
            h = first(x).relu()
        optimizer.zero_grad()
        net(x).square().mean().backward()
        optimizer.step()
        cbp.step()
        mean, weight = 0.9 * mean + 0.1 * h.mean(0), 0.9 * weight + 0.1
        out, incoming = last.weight.detach().abs().sum(0), first.weight.detach().abs().sum(1)
        away = (h - mean / weight).abs().mean(0)
        worth = {"contribution": h.mean(0) * out, "weight": out, "adaptable_contribution": away * out / incoming}
        useful = 0.9 * useful + 0.1 * worth[utility]
        if step in (1, 7, 16, 17, 41):
            cbp.report()
        if step in (3, 16, 35, 59):
            (layer,) = cbp.layers
            for known, expected in zip((*layer.averages, *layer.weights), (useful, mean, weight, weight), strict=True):
                torch.testing.assert_close(known, expected, rtol=1e-12, atol=1e-15)
        if step == 20:
            state = cbp.state_dict()
            cbp.load_state_dict(state)
            torch.testing.assert_close(state["layers"]["0"]["averages"][0], useful, rtol=1e-12, atol=1e-15)
