"""ReDo, self-normalised resets, the published quirks, and generate-and-test as a configuration."""

import inspect

import pytest
import torch
from torch import nn

from continual_agents import surgery

pytestmark = pytest.mark.usefixtures("ways")


def net_with_dead(dead: list[int]) -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
    with torch.no_grad():
        net[0].weight.abs_()
        net[0].bias.fill_(0.1)
        for i in dead:
            net[0].bias[i] = -100.0
    return net


def step(net, optimizer, companion, x) -> dict:
    optimizer.zero_grad()
    net(x).square().mean().backward()
    optimizer.step()
    return {name: index.tolist() for name, index in companion.step().items()}


def test_redo_replaces_the_dormant_every_period() -> None:
    net = net_with_dead([2, 5])
    optimizer = torch.optim.SGD(net.parameters(), 1e-4)
    redo = surgery.ReDo(surgery.find(net), optimizer, threshold=0.02, period=4)
    x = torch.rand(16, 3)
    log = [step(net, optimizer, redo, x) for _ in range(4)]
    assert log == [{}, {}, {}, {"0": [2, 5]}]
    assert redo.report() == {"replaced/0": 2.0, "dormant/0": 0.25, "next_replacement_in/0": 4.0}
    assert not net[2].weight[:, [2, 5]].any()
    state = redo.state_dict()
    again = surgery.ReDo(surgery.find(net), optimizer, threshold=0.02, period=4)
    again.load_state_dict(state)
    assert again.report() == redo.report()
    for bad in ({"threshold": 1.0}, {"threshold": -0.1}, {"period": 0}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            surgery.ReDo(surgery.find(net), optimizer, **bad)


def test_redo_threshold_per_layer_is_relative_to_the_layers_mean() -> None:
    net = net_with_dead([])
    with torch.no_grad():
        net[0].weight[3] *= 0.05
        net[0].bias[3] *= 0.05
    optimizer = torch.optim.SGD(net.parameters(), 0.0)
    for threshold, expected in ((0.01, {}), (0.1, {"0": [3]})):
        redo = surgery.ReDo(surgery.find(net), optimizer, period=1, layers={"0": {"threshold": threshold}})
        assert step(net, optimizer, redo, torch.rand(16, 3)) == expected
        redo.detach()


def test_redo_judges_and_hands_over_what_was_seen_since_the_last_look() -> None:
    """A unit that only the first of four steps excites is alive; the readers keep their mean over the four."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 3, bias=False), nn.ReLU(), nn.Linear(3, 1))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.001, 0.001]]))
        net[2].weight.copy_(torch.tensor([[1.0, 2.0, 50.0]]))
        net[2].bias.zero_()
    optimizer = torch.optim.SGD(net.parameters(), 0.0)
    redo = surgery.ReDo(surgery.find(net), optimizer, threshold=0.05, period=4)
    batches = [[[1.0, 6.0], [1.0, 0.0]], [[2.0, 0.0]], [[2.0, 0.0]], [[2.0, 0.0]]]
    log = [step(net, optimizer, redo, torch.tensor(x)) for x in batches]
    # means over the five examples: 8 / 5, 6 / 5 and .001 * 14 / 5; in the fourth step alone, the second would be 0
    assert log == [{}, {}, {}, {"0": [2]}]
    assert net[2].bias.item() == pytest.approx(50 * 0.001 * (8 + 6) / 5)
    assert redo.report()["dormant/0"] == pytest.approx(1 / 3)
    log = [step(net, optimizer, redo, torch.tensor([[1.0, 0.0]])) for _ in range(4)]
    assert 1 in log[3]["0"]  # what came before the look is forgotten


def test_redo_continues_in_the_middle_of_a_period() -> None:
    nets = [net_with_dead([]) for _ in range(2)]
    x = [torch.rand(5, 3, generator=torch.Generator().manual_seed(i)) for i in range(6)]
    logs = []
    for net, cut in zip(nets, (6, 2), strict=True):
        optimizer = torch.optim.SGD(net.parameters(), 0.1)
        redo = surgery.ReDo(surgery.find(net), optimizer, threshold=0.8, period=3)
        log = [step(net, optimizer, redo, x[i]) for i in range(cut)]
        state = redo.state_dict()
        redo.detach()
        redo = surgery.ReDo(surgery.find(net), optimizer, threshold=0.8, period=3)
        redo.load_state_dict(state)
        logs.append(log + [step(net, optimizer, redo, x[i]) for i in range(cut, 6)])
    assert logs[0] == logs[1]
    assert logs[0][2]
    assert all(torch.equal(p, q) for p, q in zip(nets[0].parameters(), nets[1].parameters(), strict=True))


def test_self_normalized_resets_hand_over_what_a_silent_unit_still_says() -> None:
    """An ELU unit at -1 fires never: its reader keeps its output."""
    net = nn.Sequential(nn.Linear(1, 2), nn.ELU(), nn.Linear(2, 1))
    with torch.no_grad():
        net[0].weight.fill_(1.0)
        net[0].bias.copy_(torch.tensor([-50.0, 5.0]))
    optimizer = torch.optim.SGD(net.parameters(), 0.0)
    snr = surgery.SelfNormalizedResets(surgery.find(net), optimizer, patience=4, period=4)
    x = torch.zeros(3, 1)
    before = net(x)
    assert [step(net, optimizer, snr, x) for _ in range(4)][3] == {"0": [0]}
    torch.testing.assert_close(net(x), before)


def test_every_companion_takes_how_units_are_renewed() -> None:
    names = {"birth", "bias", "transfer", "keep_optimizer_state", "generator"}
    for kind in (surgery.ContinualBackprop, surgery.ReDo, surgery.SelfNormalizedResets):
        parameters = inspect.signature(kind).parameters
        assert names <= parameters.keys()
        assert not any(one.kind is one.VAR_KEYWORD for one in parameters.values())
        assert (parameters["birth"].default, parameters["transfer"].default) == ("default", True)
        net = net_with_dead([])
        optimizer = torch.optim.SGD(net.parameters(), 0.0)
        with pytest.raises(TypeError, match=rf"{kind.__name__}\(\) has no argument 'brith': did you mean 'birth'"):
            kind(surgery.find(net), optimizer, brith="default")
        with pytest.raises(ValueError, match="bias='one': 'zero' or 'initial'"):
            kind(surgery.find(net), optimizer, bias="one")
        with pytest.raises(ValueError, match="unknown birth 'orthogonla'"):
            kind(surgery.find(net), optimizer, layers={"0": {"birth": "orthogonla"}})
        assert not any(module._forward_pre_hooks for module in net.modules())


def test_self_normalized_resets_wait_by_each_units_own_history() -> None:
    """Unit 0 fires always, unit 1 at every tenth step; both fall silent: 0 goes after its patience, 1 after 36."""
    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]))
        net[0].bias.copy_(torch.tensor([0.0, 0.0, 9.0]))
    optimizer = torch.optim.SGD(net.parameters(), 0.0)
    snr = surgery.SelfNormalizedResets(surgery.find(net), optimizer, threshold=0.02, patience=12, period=1)
    for i in range(200):
        x = torch.tensor([[1.0, 1.0 if i % 10 == 0 else -1.0]])
        assert step(net, optimizer, snr, x) == {}
    silent = torch.tensor([[-1.0, -1.0]])
    gone: dict[int, int] = {}
    for i in range(1, 60):
        for unit in step(net, optimizer, snr, silent).get("0", []):
            gone.setdefault(unit, i)
            with torch.no_grad():
                net[0].bias[unit] = 5.0  # alive again
    # 20 firings, waits of 1 and 19 times 10: (1 - 20 / 191)^35 = .0209, ^36 = .0187; 9 silent steps came before
    assert gone == {0: 12, 1: 36 - 9}
    assert snr.report()["replaced/0"] == 2
    again = surgery.SelfNormalizedResets(surgery.find(net), optimizer, threshold=0.02, patience=12, period=1)
    again.load_state_dict(snr.state_dict())
    assert again.report() == snr.report()
    assert set(snr.histograms()) == {"silence/0"}
    for bad in ({"threshold": 0.0}, {"patience": 0}, {"period": 0}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            surgery.SelfNormalizedResets(surgery.find(net), optimizer, **bad)


def test_maturity_zero_is_refused_and_leaves_no_hook_behind() -> None:
    net = net_with_dead([])
    optimizer = torch.optim.SGD(net.parameters(), 0.0)
    with pytest.raises(ValueError, match="maturity=0: a whole number of steps, at least 1"):
        surgery.ContinualBackprop(surgery.find(net), optimizer, maturity=0)
    with pytest.raises(ValueError, match="maturity=0"):
        surgery.ContinualBackprop(surgery.find(net), optimizer, layers={"0": {"maturity": 0}})
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in net.modules())


def test_quirk_no_transfer_leaves_the_readers_bias() -> None:
    for transfer in (True, False):
        net = net_with_dead([])
        optimizer = torch.optim.SGD(net.parameters(), 0.0)
        cbp = surgery.ContinualBackprop(surgery.find(net), optimizer, rate=0.25, maturity=1, transfer=transfer)
        bias = net[2].bias.detach().clone()
        assert not step(net, optimizer, cbp, torch.rand(8, 3))
        assert step(net, optimizer, cbp, torch.rand(8, 3))
        assert torch.equal(bias, net[2].bias) is not transfer


def test_quirk_keep_optimizer_state() -> None:
    for keep in (True, False):
        net = net_with_dead([])
        optimizer = surgery.Adam(net.parameters(), 1e-3)
        cbp = surgery.ContinualBackprop(surgery.find(net), optimizer, rate=0.25, maturity=1, keep_optimizer_state=keep)
        step(net, optimizer, cbp, torch.rand(8, 3))
        gone = step(net, optimizer, cbp, torch.rand(8, 3))["0"]
        state = optimizer.state[net[0].weight]
        assert state["exp_avg"][gone].any().item() is keep
        assert ("age_0" in state) is not keep


def test_quirk_count_all() -> None:
    counts = {}
    for count_all in (True, False):
        net = net_with_dead([])
        optimizer = torch.optim.SGD(net.parameters(), 1e-3)
        cbp = surgery.ContinualBackprop(
            surgery.find(net), optimizer, rate=0.1, maturity=10, count_all=count_all, decay=0.9
        )
        for _ in range(60):
            step(net, optimizer, cbp, torch.rand(8, 3))
        counts[count_all] = cbp.report()["replaced/0"]
    assert counts[True] > counts[False]


def test_generate_and_test_is_a_configuration() -> None:
    """Mahmood and Sutton 2012: one hidden layer, one output, the feature with the smallest |out-weight| goes."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 20), nn.Tanh(), nn.Linear(20, 1))
    optimizer = torch.optim.SGD(net.parameters(), 0.01)
    search = surgery.ContinualBackprop(surgery.find(net), optimizer, maturity=3, **surgery.GENERATE_AND_TEST)
    replaced = 0
    for _ in range(200):
        x = torch.randn(1, 5)
        optimizer.zero_grad()
        (net(x) - x.prod()).square().mean().backward()
        optimizer.step()
        before, age = net[2].weight.detach()[0].abs().clone(), search.histograms()["age/0"] + 1
        gone = search.step().get("0")
        if gone is not None:
            eligible = torch.where(age > 3, before, torch.inf)
            assert gone.tolist() == [eligible.argmin().item()]
            replaced += 1
    assert replaced == pytest.approx(200 * 20 * surgery.GENERATE_AND_TEST["rate"], rel=0.3)


@pytest.mark.parametrize("kind", [surgery.ContinualBackprop, surgery.ReDo, surgery.SelfNormalizedResets])
def test_the_halves_of_a_step_do_what_a_step_does(kind: type) -> None:
    settings = {"rate": 0.05, "maturity": 3} if kind is surgery.ContinualBackprop else {}
    x = torch.rand(40, 16, 3, generator=torch.Generator().manual_seed(0))
    ends = []
    for halves in (False, True):
        net = net_with_dead([2, 5])
        optimizer = torch.optim.SGD(net.parameters(), 0.1)
        companion = kind(surgery.find(net), optimizer, generator=torch.Generator().manual_seed(1), **settings)
        log = []
        for inputs in x:
            optimizer.zero_grad()
            net(inputs).square().mean().backward()
            optimizer.step()
            if halves:
                companion.follow()
            log.append(
                {name: index.tolist() for name, index in (companion.act if halves else companion.step)().items()}
            )
        ends.append((log, companion.report(), [parameter.tolist() for parameter in net.parameters()]))
    assert ends[0] == ends[1]
    assert any(ends[0][0]) or kind is not surgery.ContinualBackprop
