"""A network, an optimizer or a head that changes under a companion: followed, or said; never silently wrong."""

import itertools

import pytest
import torch
from torch import nn

from continual_agents import surgery


def mlp() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3))


def train(net, optimizer, cbp, steps: int, attached: bool = False) -> int:
    replaced = 0
    for i in range(steps):
        x = torch.randn(8, 4, generator=torch.Generator().manual_seed(i))
        optimizer.zero_grad()
        net(x).square().mean().backward()
        optimizer.step()
        if not attached:
            replaced += sum(map(len, cbp.step().values()))
    return replaced


def companion(net, **settings):
    optimizer = torch.optim.SGD(net.parameters(), 0.01, momentum=0.9)
    return optimizer, surgery.ContinualBackprop(
        surgery.find(net), optimizer, **{"rate": 0.01, "maturity": 5, "decay": 0.9, **settings}
    )


@pytest.mark.parametrize("attached", [False, True])
def test_a_new_optimizer_is_followed_when_told_and_else_asked_for(attached: bool) -> None:
    net = mlp()
    optimizer, cbp = companion(net)
    if attached:
        cbp.attach()
    train(net, optimizer, cbp, 20, attached)
    new = torch.optim.SGD(net.parameters(), 0.01)
    with pytest.raises(RuntimeError, match=r"none of its optimizers steps: companion.optimizers = "):
        train(net, new, cbp, 40, attached)
    cbp.optimizers = new
    train(net, new, cbp, 40, attached)
    assert cbp.steps == 20 + 40
    assert cbp.report()["replaced/0"] > 5
    train(net, optimizer, cbp, 5, attached)  # the old one is nobody's business now
    assert cbp.steps == 60


@pytest.mark.parametrize("attached", [False, True])
def test_passes_without_a_step_are_no_reason_to_complain(attached: bool) -> None:
    """Gradient accumulation over many passes, an evaluation that builds graphs, steps skipped by GradScaler."""
    net = mlp()
    optimizer, cbp = companion(net)
    if attached:
        cbp.attach()
    for _ in range(6):
        for _ in range(50):
            net(torch.randn(2, 4)).square().mean().backward()
            if not attached:
                assert cbp.step() == {}
        assert len(cbp.layers[0].watches[0]._records) <= 16
        net(torch.randn(2, 4)).sum().backward()
        optimizer.step()
        if not attached:
            cbp.step()
    assert cbp.steps == 6


def test_a_new_head_is_noticed_and_can_be_found() -> None:
    net = mlp()
    optimizer, cbp = companion(net)
    train(net, optimizer, cbp, 20)
    before = {name: value for name, value in cbp.report().items() if name.startswith(("replaced", "eligible"))}
    net[4] = nn.Linear(16, 5)
    optimizer.add_param_group({"params": net[4].parameters()})
    head = net[4].weight.detach().clone()
    with pytest.raises(
        RuntimeError, match=r"units '2': 4 is no longer in the network, or another one: companion.refind"
    ):
        train(net, optimizer, cbp, 20)
    cbp.refind(surgery.find(net))
    assert cbp.report()["replaced/2"] >= before["replaced/2"]
    assert not torch.equal(head[:, 0], torch.zeros(5))
    steps, gone = cbp.steps, []
    for _ in range(40):
        optimizer.zero_grad()
        net(torch.randn(8, 4)).square().mean().backward()
        optimizer.step()
        for index in [cbp.step().get("2", torch.empty(0, dtype=torch.int64))]:
            gone += index.tolist()
            assert not net[4].weight[:, index].any()
    assert cbp.steps == steps + 40
    assert len(gone) > 3


def test_refind_keeps_what_is_known_of_layers_that_stay_and_starts_the_others() -> None:
    net = mlp()
    optimizer, cbp = companion(net, rate=0.0, layers={"2": {"rate": 0.01}})
    train(net, optimizer, cbp, 30)
    ages = cbp.histograms()["age/0"].clone()
    net[2], net[4] = nn.Linear(16, 9), nn.Linear(9, 3)
    optimizer.add_param_group({"params": [*net[2].parameters(), *net[4].parameters()]})
    cbp.refind(surgery.find(net))
    assert torch.equal(cbp.histograms()["age/0"], ages)
    assert cbp.histograms()["age/2"].tolist() == [0] * 9
    assert cbp.report()["eligible/0"] == 16
    assert cbp.report()["eligible/2"] == 0
    train(net, optimizer, cbp, 30)
    assert cbp.report()["replaced/2"] > 0
    for kind in (surgery.ReDo, surgery.SelfNormalizedResets):
        other = kind(surgery.find(net), optimizer, period=2)
        train(net, optimizer, other, 5)
        other.refind(surgery.find(net))
        train(net, optimizer, other, 5)
        other.detach()


def test_a_parameter_that_was_swapped_is_noticed() -> None:
    net = mlp()
    optimizer, cbp = companion(net)
    net.load_state_dict({k: v.clone() for k, v in net.state_dict().items()}, assign=True)
    optimizer = torch.optim.SGD(net.parameters(), 0.01)
    with pytest.raises(RuntimeError, match="weight of Linear is another Parameter now|none of its optimizers steps"):
        train(net, optimizer, cbp, 40)
    cbp.optimizers = optimizer
    assert train(net, optimizer, cbp, 40) > 0


def test_an_optimizer_that_dropped_a_layer_is_noticed() -> None:
    net = mlp()
    optimizer = torch.optim.SGD([{"params": net[0].parameters()}, {"params": net[2:].parameters()}], 0.01)
    cbp = surgery.ContinualBackprop(surgery.find(net), optimizer, rate=0.0)
    train(net, optimizer, cbp, 10)
    del optimizer.param_groups[0]
    with pytest.raises(RuntimeError, match="weight of Linear is no longer trained by the companion's optimizer"):
        train(net, optimizer, cbp, 100)


def test_a_layer_that_is_frozen_later_is_noticed() -> None:
    net = mlp()
    optimizer, cbp = companion(net)
    train(net, optimizer, cbp, 20)
    net[0].requires_grad_(False)
    before = net[0].weight.clone()
    with pytest.raises(RuntimeError, match=r"units '0': weight of Linear was frozen .* leaves out what is frozen"):
        train(net, optimizer, cbp, 120)
    assert torch.equal(net[0].weight, before)
    cbp.refind(surgery.find(net))
    assert [layer.units.name for layer in cbp.layers] == ["2"]
    assert train(net, optimizer, cbp, 20) > 0


def test_an_optimizer_of_the_head_alone_is_refused() -> None:
    net = mlp()
    with pytest.raises(ValueError, match="trains none of the layers that make units '0'.*its head alone"):
        surgery.ContinualBackprop(surgery.find(net), torch.optim.SGD(net[4].parameters(), 0.01))


class Heads(nn.Module):
    """One trunk and two heads, of which a pass may use one."""

    def __init__(self, between: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.trunk, self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 2), nn.Linear(8, 2)
        self.between = between

    def hidden(self, x):
        return torch.relu(self.trunk(x))

    def forward(self, x):
        h = self.hidden(x)
        return self.a(h), self.b(torch.tanh(h) if self.between else h)


@pytest.mark.parametrize("between", [False, True])
def test_heads_used_in_turn_all_count(between: bool) -> None:
    """The running mean of what each head reads is that over its own passes; the utility follows every pass."""
    net = Heads(between)
    optimizer = torch.optim.SGD(net.parameters(), 0.0)
    cbp = surgery.ContinualBackprop(surgery.find(net, torch.zeros(1, 4)), optimizer, rate=0.1, maturity=30, decay=0.8)
    (layer,) = cbp.layers
    assert len(layer.watches) == 1 + between
    mean = {"a": torch.zeros(8), "b": torch.zeros(8), "activity": torch.zeros(8)}
    weight = dict.fromkeys(mean, 0.0)
    out = net.a.weight.abs().sum(0) + net.b.weight.abs().sum(0)
    for i in range(30):
        x = torch.randn(5, 4, generator=torch.Generator().manual_seed(i)) + i / 10
        head = "b" if i % 10 > 3 else "a"
        read = torch.tanh(net.hidden(x)) if between and head == "b" else net.hidden(x)
        optimizer.zero_grad()
        getattr(net, head)(read).sum().backward()
        optimizer.step()
        assert cbp.step() == {}
        # one tensor: both heads tell of it. Two: the pass that shows the need of measuring the second is not measured
        names = ["a", "b"] if not between else [head]
        for name in names + (["activity"] if not between or i != 4 else []):
            mean[name] = 0.8 * mean[name] + 0.2 * read.detach().mean(0)
            weight[name] = 0.8 * weight[name] + 0.2
    torch.testing.assert_close(layer.corrected()[0], mean["activity"] / weight["activity"] * out)
    torch.testing.assert_close(layer.corrected()[1], mean["a"] / weight["a"])
    if between:
        torch.testing.assert_close(layer.corrected()[2], mean["b"] / weight["b"])


def test_a_tensor_that_two_heads_read_in_one_pass_is_recorded_once() -> None:
    net = Heads(False)
    cbp = surgery.ContinualBackprop(surgery.find(net, torch.zeros(1, 4)), torch.optim.SGD(net.parameters(), 0.1))
    net(torch.randn(3, 4))
    net(torch.randn(3, 4))
    assert len(cbp.layers[0].watches[0]._records) == 2


def test_towers_used_in_turn_wait_for_their_turn() -> None:
    """Two networks, one optimizer: the statistics of the one that rests stay as they are, in every companion."""
    nets = nn.ModuleDict({"a": mlp(), "b": mlp()})
    optimizer = torch.optim.SGD(nets.parameters(), 0.01)
    for kind, settings in (
        (surgery.ContinualBackprop, {"rate": 0.01, "maturity": 5}),
        (surgery.ReDo, {"period": 3}),
        (surgery.SelfNormalizedResets, {"period": 3}),
    ):
        cbp = kind(surgery.find(dict(nets.items())), optimizer, **settings)
        for i in range(30):
            before = [value.clone() for value in cbp.state_dict()["layers"]["a.0"].get("averages", [])]
            optimizer.zero_grad()
            nets["b" if i % 6 else "a"](torch.randn(4, 4)).square().mean().backward()
            optimizer.step()
            if "a.0" not in cbp.step() and i % 6:
                after = cbp.state_dict()["layers"]["a.0"].get("averages", [])
                assert all(torch.equal(x, y) for x, y in zip(before, after, strict=True))
        cbp.detach()


class Recurrent(nn.Module):
    def __init__(self, kind: str, state: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.rnn, self.state = getattr(nn, kind)(3, 6, batch_first=True), state
        self.head = nn.Linear(6, 2)

    def forward(self, x):
        out, state = self.rnn(x)
        state = state[0] if isinstance(state, tuple) else state
        return self.head(state[-1] if self.state else out)


class Cells(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.cell, self.head = getattr(nn, kind)(3, 6), nn.Linear(6, 2)

    def forward(self, x):
        state = None
        for t in range(x.shape[1]):
            state = self.cell(x[:, t], state)
        return self.head(state[0] if isinstance(state, tuple) else state)


KINDS = {
    "linear": (lambda: nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 2)), (4, 3)),
    "conv": (lambda: nn.Sequential(nn.Conv2d(2, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(24, 2)), (4, 2, 4, 4)),
    "conv conv": (lambda: nn.Sequential(nn.Conv1d(2, 6, 3, dilation=2), nn.ReLU(), nn.Conv1d(6, 2, 2)), (4, 2, 9)),
    "depthwise": (
        lambda: nn.Sequential(nn.Conv2d(2, 6, 3), nn.Conv2d(6, 6, 1, groups=6), nn.ReLU(), nn.Conv2d(6, 2, 2)),
        (4, 2, 5, 5),
    ),
    **{f"{k} {s}": (lambda k=k, s=s: Recurrent(k, s), (4, 5, 3)) for k in ("RNN", "GRU", "LSTM") for s in (0, 1)},
    **{k: (lambda k=k: Cells(k), (4, 5, 3)) for k in ("RNNCell", "GRUCell", "LSTMCell")},
}
REFUSED = dict.fromkeys(("data_scaled", "moment_matched"), ("depthwise", "RNN", "GRU", "LSTM"))


@pytest.mark.parametrize("kind", KINDS)
def test_every_utility_and_birth_works_with_every_layer_or_is_refused_at_once(kind: str) -> None:
    make, shape = KINDS[kind]
    pairs = itertools.zip_longest(surgery.UTILITIES, surgery.BIRTHS)
    for utility, birth in ((u or "contribution", b or "default") for u, b in pairs):
        net = make()
        optimizer = torch.optim.SGD(net.parameters(), 0.01)
        units = surgery.find(net, torch.zeros(shape))
        settings = {"utility": utility, "birth": birth, "rate": 0.5, "maturity": 1, "decay": 0.5}
        if kind.startswith(REFUSED.get(birth, ())):
            with pytest.raises(
                ValueError, match=f"birth '{birth}' works for Linear and ungrouped conv layers, not for"
            ):
                surgery.ContinualBackprop(units, optimizer, **settings)
            assert not any(m._forward_pre_hooks or m._forward_hooks for m in net.modules())
            settings["birth"] = "default"
        cbp = surgery.ContinualBackprop(units, optimizer, **settings)
        for _ in range(4):
            optimizer.zero_grad()
            net(torch.randn(shape)).square().mean().backward()
            optimizer.step()
            cbp.step()
        assert all(layer.replaced > 2 for layer in cbp.layers)
        assert all(torch.isfinite(p).all() for p in net.parameters())
        assert all(average.any() for layer in cbp.layers for average in layer.averages[1:])


def test_a_utility_that_needs_gradients_says_when_none_came() -> None:
    net = mlp()
    optimizer, cbp = companion(net, utility="gradient")
    net(torch.randn(2, 4))
    for p in net.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    with pytest.raises(
        RuntimeError, match="units '0': their utility needs gradients, and no backward pass reached them"
    ):
        cbp.step()
