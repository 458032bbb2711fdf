"""What replacing a unit promises, for every layer and every optimizer: exact entries, unchanged mean, zero newborns."""

import pytest
import torch
from torch import nn

from continual_agents import surgery
from tests.surgery.networks import CASES, Case, network

pytestmark = pytest.mark.usefixtures("ways")

OPTIMIZERS = {
    "sgd momentum": lambda p: torch.optim.SGD(p, 0.01, momentum=0.9),
    "adam": lambda p: torch.optim.Adam(p, 0.01),
    "amsgrad": lambda p: torch.optim.Adam(p, 0.01, amsgrad=True),
    "adamw": lambda p: torch.optim.AdamW(p, 0.01),
    "nadam": lambda p: torch.optim.NAdam(p, 0.01),
    "radam": lambda p: torch.optim.RAdam(p, 0.01),
    "rmsprop": lambda p: torch.optim.RMSprop(p, 0.01, momentum=0.9, centered=True),
    "adagrad": lambda p: torch.optim.Adagrad(p, 0.01, initial_accumulator_value=0.25),
    "adamax": lambda p: torch.optim.Adamax(p, 0.01),
    "adadelta": lambda p: torch.optim.Adadelta(p, 0.01),
    "rprop": lambda p: torch.optim.Rprop(p, 0.01),
    "surgery.Adam": lambda p: surgery.Adam(p, 0.01, amsgrad=True),
}
START = {("adagrad", "sum"): 0.25, ("rprop", "step_size"): 0.01}
GONE = [1, 3]


def trained(case: Case, optimizer_name: str, steps: int = 4):
    torch.manual_seed(0)
    net = case.make()
    optimizer = OPTIMIZERS[optimizer_name](net.parameters())
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        optimizer.zero_grad()
        (net(case.inputs(generator)).square().mean() + sum(p.abs().sum() for p in net.parameters()) * 1e-3).backward()
        optimizer.step()
    units = next(u for u in surgery.find(net, case.inputs(generator)) if u.name == case.units)
    return net, optimizer, units, generator


def mask_of(case: Case, net: nn.Module, part: str) -> dict[str, torch.Tensor]:
    """Parameter or buffer name -> bool mask of the entries that the replaced units own."""
    masks = {name: torch.zeros(value.shape, dtype=torch.bool) for name, value in net.state_dict().items()}
    for i in GONE:
        for name, index in getattr(case, part)(i).items():
            masks[name][index] = True
    return masks


@pytest.mark.parametrize(
    ("layer", "optimizer_name"),
    [(layer, "surgery.Adam") for layer in CASES]
    + [(layer, name) for layer in ("mlp", "conv2d flatten", "gru") for name in OPTIMIZERS if name != "surgery.Adam"],
)
def test_exactly_the_units_entries_change_and_are_forgotten(layer: str, optimizer_name: str) -> None:
    case = CASES[layer]
    net, optimizer, units, _ = trained(case, optimizer_name)
    with torch.no_grad():
        for module in net.modules():  # norms away from where they start
            if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
                module.running_var.add_(0.5)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    identities = {name: (id(p), p.data_ptr()) for name, p in net.named_parameters()}
    state = {
        name: {k: v.clone() if torch.is_tensor(v) else v for k, v in optimizer.state[p].items()}
        for name, p in net.named_parameters()
    }
    surgery.replace_(units, GONE, optimizer, generator=torch.Generator().manual_seed(5))
    made, read = mask_of(case, net, "made"), mask_of(case, net, "read")
    assert identities == {name: (id(p), p.data_ptr()) for name, p in net.named_parameters()}
    for name, value in net.state_dict().items():
        touched = made[name] | read[name]
        assert torch.equal(value[~touched], before[name][~touched]), name
        assert not value[read[name]].any(), name
        if "bias" in name and "norm" not in name:
            assert not value[made[name]].any(), name
        elif "running_mean" in name:
            assert not value[made[name]].any()
        elif "running_var" in name or (value.ndim == 1 and "weight" in name):
            assert (value[made[name]] == 1).all()
        elif value.ndim > 1:
            fresh = made[name] & ~read[name]
            assert (value[fresh] != before[name][fresh]).all(), name
    for name, p in net.named_parameters():
        touched = made[name] | read[name]
        for key, value in optimizer.state[p].items():
            if key.startswith("age_") or key == "young":
                continue
            if torch.is_tensor(value) and value.shape == p.shape:
                assert torch.equal(value[~touched], state[name][key][~touched]), (name, key)
                assert (value[touched] == START.get((optimizer_name, key), 0.0)).all(), (name, key)
            else:
                assert torch.equal(torch.as_tensor(value), torch.as_tensor(state[name][key])), (name, key)


@pytest.mark.parametrize("layer", CASES)
def test_every_readers_output_keeps_its_mean_on_the_tracked_batch(layer: str) -> None:
    case = CASES[layer]
    torch.manual_seed(0)
    net = case.make().double()
    x = case.inputs(torch.Generator().manual_seed(1)).double()
    units = next(u for u in surgery.find(net, x) if u.name == case.units)
    optimizer = torch.optim.SGD(net.parameters(), 0.0)
    cbp = surgery.ContinualBackprop(units, optimizer, rate=2 / units.width + 1e-9, maturity=1, decay=0.0)
    heard: dict[str, torch.Tensor] = {}

    readers = [(i, r) for i, r in enumerate(units.outgoing) if not r.recurrent]
    handles = [
        r.module.register_forward_pre_hook(lambda m, args, i=i: heard.__setitem__(i, args[0].detach()))
        for i, r in readers
        if units.takes_mean(r)
    ]
    for _ in range(2):
        net(x).sum().backward()
        optimizer.step()
        inputs, weights = dict(heard), {i: dict(r.module.state_dict()) for i, r in readers}
        weights = {i: {k: v.clone() for k, v in w.items()} for i, w in weights.items()}
        behind = {i: getattr(r.centre, "running_mean", torch.zeros(1)).clone() for i, r in readers}
        replaced = cbp.step()
    for handle in handles:
        handle.remove()
    assert len(replaced[case.units]) == 2
    gone = set(replaced[case.units].tolist())
    for i, reader in readers:
        if i not in inputs or isinstance(reader.module, (nn.RNNBase, nn.RNNCellBase)):
            continue
        made_before = _alone(reader, weights[i], inputs[i])
        after = {k: v.clone() for k, v in reader.module.state_dict().items()}
        moved = getattr(reader.centre, "running_mean", torch.zeros(1)).clone() - behind[i]
        own = list(gone) if any(m is reader.module for m in units.incoming) else []
        difference = (_alone(reader, after, inputs[i]) - made_before) - moved
        keep = [k for k in range(len(difference)) if k not in own]
        torch.testing.assert_close(difference[keep], torch.zeros_like(difference[keep]), rtol=0, atol=1e-12)
        assert made_before.abs().max() > 1e-3


def _alone(reader: surgery.Reader, weights: dict, x: torch.Tensor) -> torch.Tensor:
    """Mean over batch and positions of the reader's output with these weights."""
    made = torch.func.functional_call(reader.module, weights, (x,)).detach()
    if isinstance(reader.module, nn.Linear):
        return made.reshape(-1, made.shape[-1]).mean(0)
    return made.transpose(0, 1).flatten(1).mean(1)


def test_recurrent_mean_goes_to_the_hidden_bias() -> None:
    torch.manual_seed(0)
    cell, head = nn.GRUCell(3, 4).double(), nn.Linear(4, 2).double()
    units = surgery.Units("cell", cell, (head,))
    mean = torch.rand(4, dtype=torch.float64)
    expected = cell.bias_hh + cell.weight_hh[:, [1, 2]] @ mean[[1, 2]]
    expected[[1, 2, 5, 6, 9, 10]] = 0
    surgery.replace_(units, [1, 2], means=mean)
    torch.testing.assert_close(cell.bias_hh, expected)


@pytest.mark.parametrize("order", [("0", "2"), ("2", "0")])
def test_newborn_to_newborn_weights_are_zero_whatever_the_order(order: tuple[str, str]) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1))
    found = {u.name: u for u in surgery.find(net)}
    optimizer = torch.optim.SGD(net.parameters(), 0.0)
    cbp = surgery.ContinualBackprop([found[name] for name in order], optimizer, rate=0.5, maturity=1)
    for _ in range(2):  # units may go when they are older than one step
        net(torch.randn(8, 3)).sum().backward()
        optimizer.step()
        gone = cbp.step()
    assert len(gone["0"]) == len(gone["2"]) == 2
    block = net[2].weight[gone["2"]][:, gone["0"]]
    assert not block.any()
    stays = [i for i in range(4) if i not in gone["0"].tolist()]
    assert net[2].weight[gone["2"]][:, stays].all()  # drawn anew, not zero
    assert not net[2].bias[gone["2"]].any()  # nothing handed over to a newborn


def test_a_reader_without_bias_gets_nothing_and_says_so() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2, bias=False))
    units = surgery.find(net)[0]
    assert "no bias: the mean is not handed over" in repr(units)
    surgery.replace_(units, [0], means=torch.ones(4))
    assert not net[2].weight[:, 0].any()


def test_hand_numbers() -> None:
    a, b = nn.Linear(1, 2), nn.Linear(2, 1)
    with torch.no_grad():
        a.weight.copy_(torch.tensor([[1.0], [2.0]]))
        a.bias.copy_(torch.tensor([3.0, 4.0]))
        b.weight.copy_(torch.tensor([[5.0, 6.0]]))
        b.bias.copy_(torch.tensor([7.0]))
    surgery.replace_(surgery.Units("a", a, (b,)), [1], means=torch.tensor([0.5, 0.25]))
    assert b.bias.item() == 7.0 + 6.0 * 0.25
    assert b.weight.tolist() == [[5.0, 0.0]]
    assert a.bias.tolist() == [3.0, 0.0]
    assert a.weight[0].item() == 1.0
    assert abs(a.weight[1].item()) <= 1


@pytest.mark.parametrize(("indices", "error"), [([6], IndexError), ([-1], IndexError), ([[0]], IndexError)])
def test_indices_outside_the_layer_are_refused(indices, error) -> None:
    net = CASES["mlp"].make()
    with pytest.raises(error, match="outside the width 6"):
        surgery.replace_(surgery.find(net)[0], indices)


def test_initial_bias() -> None:
    net = CASES["mlp"].make()
    surgery.replace_(surgery.find(net)[0], [0, 1, 2], bias="initial")
    assert net[0].bias[:3].all()
    assert net[0].bias[:3].abs().max() <= 3**-0.5
    with pytest.raises(ValueError, match="bias='one'"):
        surgery.replace_(surgery.find(net)[0], [0], bias="one")


def stream() -> nn.Module:
    """A residual stream whose units feed back into themselves through two layers."""

    def forward(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
        h = net.a(x)
        h = h + torch.relu(net.b(h))
        return net.head(h + torch.relu(net.c(h)))

    return network(forward, a=nn.Linear(3, 6), b=nn.Linear(6, 6), c=nn.Linear(6, 6), head=nn.Linear(6, 2))


def test_units_that_feed_back_into_themselves_keep_the_mean_roughly_and_say_so() -> None:
    """What the first layer makes of them anew goes into what the next one reads: less than a fifth of what it would
    move by without the mean handed over, over 20 networks."""
    moved = {True: 0.0, False: 0.0}
    for seed in range(20):
        for handed in moved:
            torch.manual_seed(seed)
            net, x = stream().double(), torch.randn(200, 3).double() + 1
            units = surgery.find(net)[0]
            assert repr(units).endswith("; the mean is kept roughly: they feed back into themselves")
            seen: list[torch.Tensor] = []
            hooks = [
                r.module.register_forward_pre_hook(lambda m, args: seen.append(args[0].mean(0).detach()))  # noqa: B023
                for r in units.outgoing
            ]
            before = net(x).mean(0)
            for hook in hooks:
                hook.remove()
            surgery.replace_(units, [1], means=seen if handed else None)
            moved[handed] += (net(x).mean(0) - before).abs().mean().item() / 20
    assert 1e-6 < moved[True] < 0.2 * moved[False]
