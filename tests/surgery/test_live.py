"""Life in a training loop: whose passes count, which steps count, and what a companion leaves behind."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn

from continual_agents import surgery

pytestmark = pytest.mark.usefixtures("ways")


def mlp(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 12), nn.ReLU(), nn.Linear(12, 12), nn.Tanh(), nn.Linear(12, 2))


def batch(i: int, n: int = 8) -> torch.Tensor:
    return torch.randn(n, 4, generator=torch.Generator().manual_seed(1000 + i))


def companion(net: nn.Module, optimizer=None, **settings):
    optimizer = optimizer or surgery.Adam(net.parameters(), lr=0.01)
    settings = {"rate": 0.01, "maturity": 5, "decay": 0.9, **settings}
    return optimizer, surgery.ContinualBackprop(surgery.find(net), optimizer, **settings)


def train(net, optimizer, cbp, steps, start: int = 0, call=None):
    log = []
    for i in range(start, start + steps):
        optimizer.zero_grad()
        (call or net)(batch(i)).square().mean().backward()
        optimizer.step()
        if cbp is not None:
            log.append({name: index.tolist() for name, index in cbp.step().items()})
    return log


def values(net: nn.Module) -> list[torch.Tensor]:
    return [p.detach().clone() for p in net.parameters()]


def same(a, b) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_only_training_passes_of_the_model_itself_are_recorded() -> None:
    net, plain = mlp(), mlp()
    (optimizer, cbp), (other, alone) = companion(net), companion(plain)
    target = copy.deepcopy(net)
    for i in range(40):
        with torch.no_grad():
            net(batch(i) * 100)
        with torch.inference_mode():
            net(batch(i) * 100)
        torch.func.vmap(lambda x: net(x))(batch(i) * 100)
        target(batch(i) * 100).sum().backward()
        pickle.loads(pickle.dumps(net))(batch(i) * 100)
        assert train(net, optimizer, cbp, 1, i) == train(plain, other, alone, 1, i)
    assert same(values(net), values(plain))
    assert cbp.report() == alone.report()


def test_attach_does_the_same_as_step() -> None:
    net, plain = mlp(), mlp()
    (optimizer, cbp), (other, explicit) = companion(net), companion(plain)
    cbp.attach()
    train(net, optimizer, None, 60)
    train(plain, other, explicit, 60)
    assert same(values(net), values(plain))
    assert cbp.report() == explicit.report()
    assert cbp.report()["replaced/0"] > 2


def test_detach_leaves_no_trace() -> None:
    net = mlp()
    optimizer, cbp = companion(net, birth="data_scaled")
    cbp.attach()
    train(net, optimizer, None, 20)
    cbp.detach()
    for module in net.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
    assert not optimizer._optimizer_step_post_hooks
    before = cbp.report()
    train(net, optimizer, None, 20)
    assert cbp.report() == before


def test_nothing_leaks_into_the_model() -> None:
    net, plain = mlp(), mlp()
    companion(net)
    assert net.state_dict().keys() == plain.state_dict().keys()
    assert len(list(net.parameters())) == len(list(plain.parameters()))
    assert len(list(net.modules())) == len(list(plain.modules()))


def test_copies_targets_and_averages_are_left_alone() -> None:
    net = mlp()
    optimizer, cbp = companion(net, rate=0.1)
    train(net, optimizer, cbp, 3)
    target, average = copy.deepcopy(net), torch.optim.swa_utils.AveragedModel(net)
    buffer = io.BytesIO()
    torch.save(net, buffer)
    before = values(target)
    train(net, optimizer, cbp, 30, 3)
    assert same(before, values(target))
    assert same(before, values(average.module))
    buffer.seek(0)
    assert same(before, values(torch.load(buffer, weights_only=False)))
    assert not same(before, values(net))


def test_gradient_accumulation_averages_over_the_passes_of_a_step() -> None:
    whole, parts = mlp(), mlp()
    (a, one), (b, two) = (
        companion(net, torch.optim.SGD(net.parameters(), 0.01), rate=0.02, utility="contribution")
        for net in (whole, parts)
    )
    for i in range(60):
        x = batch(i, 12)
        a.zero_grad()
        whole(x).square().mean().backward()
        a.step()
        b.zero_grad()
        for piece in (x[:3], x[3:9], x[9:]):  # unequal pieces
            (parts(piece).square().mean() * len(piece) / len(x)).backward()
        b.step()
        first, second = one.step(), two.step()
        assert {k: v.tolist() for k, v in first.items()} == {k: v.tolist() for k, v in second.items()}
    for p, q in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-5)
    assert one.report()["replaced/0"] > 3


@pytest.mark.parametrize("kind", ["surgery.Adam", "torch fused"])
@pytest.mark.parametrize("attached", [False, True])
def test_a_step_that_grad_scaler_skips_is_no_step(kind: str, attached: bool) -> None:
    net, plain = mlp(), mlp()
    make = {"surgery.Adam": surgery.Adam, "torch fused": lambda p, lr: torch.optim.Adam(p, lr, fused=True)}[kind]
    (optimizer, cbp), (other, alone) = (companion(n, make(n.parameters(), 0.01)) for n in (net, plain))
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0, growth_interval=1000)
    if attached:
        cbp.attach()
    i = 0
    for k in range(40):
        optimizer.zero_grad()
        overflow = k % 4 == 1
        loss = net(batch(i)).square().mean()
        scaler.scale(loss * float("inf") if overflow else loss).backward()
        scaler.step(optimizer)
        scaler.update()
        if not attached:
            assert bool(cbp.step()) is False or not overflow
        if not overflow:
            train(plain, other, alone, 1, i)
            i += 1
        assert cbp.steps == alone.steps == i
    if not attached:  # attached, the passes of a skipped step count towards the next one
        for p, q in zip(net.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-5)
    assert cbp.report()["replaced/0"] > 1
    assert all(torch.isfinite(p).all() for p in net.parameters())


def test_autocast_statistics_are_kept_in_float32() -> None:
    net = mlp()
    optimizer, cbp = companion(net, utility="adaptable_contribution")
    for i in range(30):
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = net(batch(i)).square().mean()
        loss.backward()
        optimizer.step()
        cbp.step()
    assert all(value.dtype == torch.float32 for value in cbp.layers[0].averages)
    assert cbp.report()["replaced/0"] > 1


def test_moving_the_model_after_construction() -> None:
    """To another type, which moves every parameter's data; and to another device, as far as a CPU can tell."""
    net = mlp()
    optimizer, cbp = companion(net, torch.optim.SGD(net.parameters(), 0.01), utility="adaptable_contribution")
    train(net, optimizer, cbp, 10)
    net.double()
    log = train(net, optimizer, cbp, 30, 10, call=lambda x: net(x.double()))
    assert any(log)
    assert all(p.dtype == torch.float64 and torch.isfinite(p).all() for p in net.parameters())
    meta = torch.device("meta")
    layer = cbp.layers[0]
    net.to(meta)
    cbp.running[0].arrange()
    assert all(t.device == meta for t in (layer.birth_step, *layer.averages, *layer.weights, *layer.upcoming))


def test_several_optimizers() -> None:
    """In-weights and out-weights of a layer may belong to different optimizers."""
    nets = [mlp(), mlp()]
    one = surgery.Adam(nets[0].parameters(), lr=0.01)
    groups = [[*nets[1][0].parameters()], [*nets[1][2].parameters(), *nets[1][4].parameters()]]
    two = [surgery.Adam(group, lr=0.01) for group in groups]
    single = surgery.ContinualBackprop(surgery.find(nets[0]), one, rate=0.02, maturity=5)
    double = surgery.ContinualBackprop(surgery.find(nets[1]), two, rate=0.02, maturity=5)
    double.attach()
    for i in range(40):
        for optimizer in two:
            optimizer.zero_grad()
        nets[1](batch(i)).square().mean().backward()
        for optimizer in two:
            optimizer.step()
        train(nets[0], one, single, 1, i)
    assert double.steps == 40
    assert same(values(nets[0]), values(nets[1]))


def test_different_settings_per_layer() -> None:
    net = mlp()
    _, cbp = companion(net, layers={"2": {"rate": 0.0, "utility": "weight", "maturity": 3}})
    optimizer = cbp.optimizers[0]
    train(net, optimizer, cbp, 40)
    report = cbp.report()
    assert report["replaced/0"] > 2
    assert report["replaced/2"] == 0
    assert report["next_replacement_in/2"] == float("inf")
    with pytest.raises(KeyError, match="there is no layer '3': known are 0, 2"):
        companion(net, layers={"3": {}})
    with pytest.raises(KeyError, match="no setting 'rates': did you mean 'rate'"):
        companion(net, layers={"2": {"rates": 1}})


def test_report_is_alive_from_the_first_step() -> None:
    net = mlp()
    optimizer, cbp = companion(net, rate=0.01, maturity=20)
    train(net, optimizer, cbp, 1)
    report = cbp.report()
    assert all(isinstance(value, float) for value in report.values())
    assert report["eligible/0"] == 0
    assert report["age_mean/0"] == 1
    assert report["next_replacement_in/0"] == 19 + 9  # 19 more steps to be mature, then 9 of .12 each
    assert report["utility_p10/0"] <= report["utility_p50/0"] <= report["utility_p90/0"]
    assert set(cbp.histograms()) == {"age/0", "age/2", "utility/0", "utility/2"}
    log = train(net, optimizer, cbp, 28, 1)
    assert [bool(entry) for entry in log] == [False] * 27 + [True]


def test_statistics_of_an_overflow_do_not_stay() -> None:
    net = mlp()
    optimizer, cbp = companion(net, utility="mean_corrected_contribution")
    train(net, optimizer, cbp, 3)
    net(batch(3) * float("inf")).sum()  # a graph-building pass that overflows
    train(net, optimizer, cbp, 30, 3)
    for layer in cbp.layers:
        assert torch.isfinite(layer.utility).all()
        assert all(torch.isfinite(mean).all() for mean in layer.averages)
    assert all(torch.isfinite(p).all() for p in net.parameters())


def test_a_companion_that_sees_nothing_says_so() -> None:
    net = mlp()
    optimizer, cbp = companion(net)
    copied = copy.deepcopy(net)
    for p, q in zip(net.parameters(), copied.parameters(), strict=True):
        q.data = p.data  # trains, but through other modules
    copied(batch(0)).sum().backward()
    for p, q in zip(net.parameters(), copied.parameters(), strict=True):
        p.grad = q.grad
    optimizer.step()
    with pytest.raises(RuntimeError, match="no training pass through"):
        cbp.step()


def test_output_layers_never_change_by_surgery_but_for_their_columns() -> None:
    net = mlp()
    optimizer, cbp = companion(net, torch.optim.SGD(net.parameters(), 0.0), rate=0.5, maturity=1, transfer=False)
    before = values(net)
    log = train(net, optimizer, cbp, 2)
    columns = log[1]["2"]
    weight, bias = list(net.parameters())[-2:]
    stays = [i for i in range(12) if i not in columns]
    assert torch.equal(weight[:, stays], before[-2][:, stays])
    assert torch.equal(bias, before[-1])


def test_every_third_step_is_looked_at_with_the_decay_of_three() -> None:
    """Rate 0: the running means over steps 3, 6, 9, ...; and a run cut at step 7 continues exactly."""
    net, again = mlp(), mlp()
    settings = {"rate": 0.0, "decay": 0.9, "every": 3, "maturity": 3, "utility": "adaptable_contribution"}
    (optimizer, cbp), (other, cut) = (
        companion(n, torch.optim.SGD(n.parameters(), 0.0), **settings) for n in (net, again)
    )
    train(net, optimizer, cbp, 12)
    mean, weight = torch.zeros(12), 0.0
    for i in (2, 5, 8, 11):
        mean = 0.9**3 * mean + (1 - 0.9**3) * net[1](net[0](batch(i))).detach().mean(0)
        weight = 0.9**3 * weight + 1 - 0.9**3
    torch.testing.assert_close(cbp.layers[0].corrected()[1], mean / weight)
    train(again, other, cut, 7)
    state = cut.state_dict()
    cut.detach()
    _, cut = companion(again, other, **settings)
    cut.load_state_dict(state)
    train(again, other, cut, 5, 7)
    assert all(torch.equal(x, y) for x, y in zip(cbp.layers[1].averages, cut.layers[1].averages, strict=True))
    for bad, why in (({"every": 0}, "every=0"), ({"every": 9, "maturity": 8}, "maturity=8, every=9")):
        with pytest.raises(ValueError, match=why):
            companion(net, **bad)
