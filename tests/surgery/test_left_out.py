"""What find does with what it does not know, must not touch or cannot reach: never silently the wrong thing."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import prune

from continual_agents import surgery
from continual_agents.surgery.finding import LAYERS, NORMS
from tests.surgery.checks import check
from tests.surgery.networks import network


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 2))


def names(found: surgery.Found) -> list[str]:
    return [units.name for units in found]


@pytest.fixture
def tables():
    """Registrations of a test end with it."""
    layers, norms = dict(LAYERS), dict(NORMS)
    yield
    for table, known in ((LAYERS, layers), (NORMS, norms)):
        table.clear()
        table.update(known)


class Transposed(nn.Module):
    """A layer as GPT-2's: a Linear whose weight is [inputs, outputs]."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(inputs, outputs)), nn.Parameter(torch.randn(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias, x, self.weight)


class RootMeanSquare(nn.Module):
    """A norm as Llama's."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(width))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


@pytest.mark.parametrize("inputs", [(), (torch.randn(3, 4),)])
def test_frozen_layers_are_left_out_and_said(inputs: tuple) -> None:
    net = mlp()
    net[0].requires_grad_(False)
    found = surgery.find(net, *inputs)
    assert names(found) == ["2"]
    assert found.left_out["0"] == "0 is frozen (requires_grad=False)"
    net[0].requires_grad_(True)
    net[4].weight.requires_grad_(False)  # a newborn behind it would stay mute for ever
    found = surgery.find(net, *inputs)
    assert names(found) == ["0"]
    assert found.left_out["2"] == "4 is frozen (requires_grad=False)"
    assert names(surgery.find(net, *inputs, frozen=True)) == ["0", "2"]


def test_frozen_later_can_be_asked_for() -> None:
    net = mlp()
    units = surgery.find(net)[0]
    assert units.frozen() is None
    net[0].bias.requires_grad_(False)
    assert units.frozen() is None
    net[0].requires_grad_(False)
    assert units.frozen() == "0 is frozen (requires_grad=False)"


def test_a_layer_nobody_knows_is_listed_even_where_no_unit_flows_into_it(tables) -> None:
    net = nn.Sequential(Transposed(4, 6), nn.ReLU(), Transposed(6, 2))
    for inputs in ((), (torch.randn(3, 4),)):
        found = surgery.find(net, *inputs)
        assert not len(found)
        for name in ("0", "2"):
            assert "surgery does not know (Transposed)" in found.left_out[name]
            assert "surgery.register(Transposed, out={...}, inp={...})" in found.left_out[name]
    surgery.register(Transposed, out={"weight": 1, "bias": 0}, inp={"weight": 0}, bias={"weight": "bias"})
    x = torch.randn(3, 4)
    found = surgery.find(net, x)
    assert repr(found[0]) == "0: Transposed[6] -> ReLU -> 2: Transposed"
    check(net, found[0], [1, 4], lambda: net(x))


def test_an_unknown_norm_leaves_out_what_it_touches_and_offers_the_rest(tables) -> None:
    net = nn.Sequential(
        *(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6), RootMeanSquare(6), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2))
    )
    x = torch.randn(3, 4)
    found = surgery.find(net, x)
    assert names(found) == ["0", "4"]
    assert "flows into 3" in found.left_out["2"]
    assert "surgery.register_norm(RootMeanSquare, {'weight': 1.0})" in found.left_out["2"]
    assert "surgery.register_norm(RootMeanSquare, {'weight': 1.0})" in found.left_out["3"]
    surgery.register_norm(RootMeanSquare, {"weight": 1.0})
    for found in (surgery.find(net), surgery.find(net, x)):
        assert names(found) == ["0", "2", "4"]
        assert "roughly: RootMeanSquare makes them depend on each other" in repr(found[1])
    check(net, found[1], [3], lambda: net(x))
    assert net[3].weight[3] == 1.0
    assert not net[4].weight[:, 3].any()


def test_a_norm_registered_as_a_layer_is_refused_with_the_way_out(tables) -> None:
    surgery.register(RootMeanSquare, out={"weight": 0}, inp={"weight": 0})
    net = nn.Sequential(nn.Linear(4, 6), RootMeanSquare(6), nn.Linear(6, 2))
    with pytest.raises(ValueError, match=r"no matrix.*surgery.register_norm\(RootMeanSquare, \{'weight': 1.0\}\)"):
        surgery.find(net)
    surgery.register(RootMeanSquare, out={"gain": 0}, inp={})
    with pytest.raises(ValueError, match=r"register\(RootMeanSquare\): 'gain' is no tensor of the layer"):
        surgery.find(net)


def test_a_layer_registered_with_one_side_only(tables) -> None:
    net = nn.Sequential(nn.Linear(4, 6), Transposed(6, 5), nn.Linear(5, 2))
    surgery.register(Transposed, out={}, inp={"weight": 0}, bias={"weight": "bias"})
    assert names(surgery.find(net)) == ["0"]
    surgery.register(Transposed, out={"weight": 1, "bias": 0}, inp={})
    found = surgery.find(net)
    assert names(found) == ["1"]
    assert "registered as reading no units" in found.left_out["0"]


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ((3, {"weight": 1.0}), TypeError, "wants a subclass of torch.nn.Module"),
        ((nn.Bilinear, {}), ValueError, "start is empty"),
        ((nn.Bilinear, {"weight": "1"}), TypeError, "must be a number, got '1'"),
    ],
)
def test_register_norm_refuses_nonsense(arguments: tuple, error: type, words: str) -> None:
    with pytest.raises(error, match=words):
        surgery.register_norm(*arguments)
    assert nn.Bilinear not in NORMS


def test_leave_out() -> None:
    net = nn.Sequential(mlp(), nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    assert names(surgery.find(net)) == ["0.0", "0.2", "0.4", "1"]
    found = surgery.find(net, leave_out=["0.2"])
    assert names(found) == ["0.4", "1"]
    assert found.left_out["0.2"] == "left out as asked"
    assert found.left_out["0.0"] == "0.2, which was to be left out, touches them"
    assert names(surgery.find(net, leave_out=[net[0]])) == ["1"]
    with pytest.raises(ValueError, match=r"no layer '0.3.1': did you mean '0.3'"):
        surgery.find(net, leave_out=["0.3.1"])
    with pytest.raises(ValueError, match="no layer this Linear"):
        surgery.find(net, leave_out=[nn.Linear(2, 2)])


class NormAndActivation(nn.BatchNorm2d):
    """As timm's: a subclass with parts and a forward of its own."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, self.training, 0.1, self.eps)
        return self.act(x)


class ChannelNorm(nn.LayerNorm):
    """As timm's: a layer norm over the channels of images."""

    def forward(self, x: Tensor) -> Tensor:
        x = F.layer_norm(x.permute(0, 2, 3, 1), self.normalized_shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)


def test_norms_that_go_their_own_way_are_looked_into() -> None:
    net = nn.Sequential(nn.Conv2d(2, 6, 3, bias=False), NormAndActivation(6), nn.Conv2d(6, 3, 1))
    x = torch.randn(4, 2, 5, 5)
    for found in (surgery.find(net), surgery.find(net, x)):
        assert repr(found[0]) == "0: Conv2d[6] -> batch_norm -> ReLU -> 2: Conv2d"
        assert {slot.name for slot in found[0].normed} == {"weight", "bias", "running_mean", "running_var"}
    assert net[1].num_batches_tracked == 0, "finding changes nothing"
    with torch.no_grad():
        net[1].running_var.fill_(3.0)
    net.eval()
    check(net, found[0], [2], lambda: net(x))
    assert net[1].running_var.tolist() == [3, 3, 1, 3, 3, 3]

    net = nn.Sequential(nn.Conv2d(2, 6, 3), ChannelNorm(6), nn.GELU(), nn.Conv2d(6, 3, 1))
    with torch.no_grad():
        net[1].weight.fill_(2.0)
    units = surgery.find(net, x)[0]
    assert "roughly: layer_norm makes them depend on each other" in repr(units)
    check(net, units, [2], lambda: net(x))
    assert net[1].weight.tolist() == [2, 2, 1, 2, 2, 2]


def test_a_gain_starts_at_the_median_of_the_gains_and_an_offset_at_0() -> None:
    net = network(
        lambda net, x: net.b(F.relu(net.a(x)) * net.gain.view(1, -1) + net.offset),
        **{"a": nn.Linear(3, 4), "b": nn.Linear(4, 1), "offset": nn.Parameter(torch.ones(1, 4))},
        gain=nn.Parameter(torch.tensor([1e-5, 2e-5, 3e-5, 0.0])),
    )
    x = torch.randn(5, 3)
    for found in (surgery.find(net), surgery.find(net, x)):
        assert names(found) == ["a"]
    check(net, surgery.find(net, x)[0], [3], lambda: net(x))
    torch.testing.assert_close(net.gain.detach(), torch.tensor([1e-5, 2e-5, 3e-5, 1e-5]))
    assert net.offset.tolist() == [[1, 1, 1, 0]]


def test_one_factor_for_all_units_is_no_unit_and_hinders_none() -> None:
    layers = {"a": nn.Linear(3, 4), "factor": nn.Linear(3, 1), "b": nn.Linear(4, 1)}
    attended = network(lambda net, x: net.b(net.a(x) * torch.sigmoid(net.factor(x))), **layers)
    for found in (surgery.find(attended), surgery.find(attended, torch.randn(2, 3))):
        assert names(found) == ["a"]
        assert found.left_out["factor"] == "one factor for all units of another layer"


def test_an_empty_sequential_is_an_identity() -> None:
    def forward(net: nn.Module, x: Tensor) -> Tensor:
        h = F.relu(net.a(x))
        return net.out(F.relu(net.b(h) + net.short(h)))

    layers = {"a": nn.Linear(3, 4), "b": nn.Linear(4, 4), "short": nn.Sequential(), "out": nn.Linear(4, 1)}
    net = network(forward, **layers)
    symbolic, traced = surgery.find(net), surgery.find(net, torch.randn(2, 3))
    assert repr(symbolic) == repr(traced)
    assert "a + b: Linear[4]" in repr(traced)


def test_an_agent_without_forward_gets_the_hint() -> None:
    class Agent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.actor, self.critic = mlp(), mlp()

    words = r"Agent has no forward.*surgery.find\(\{'actor': net.actor, 'critic': net.critic\}\)"
    for inputs in ((), (torch.randn(2, 4),)):
        with pytest.raises(ValueError, match=words):
            surgery.find(Agent(), *inputs)


def test_outputs_names_what_counts_as_output() -> None:
    def features(kind: type) -> nn.Module:
        def forward(net: nn.Module, x: Tensor):
            h = F.relu(net.a(x))
            return {"features": h, "value": net.b(h)} if kind is dict else (net.b(h), h)

        return network(forward, a=nn.Linear(3, 4), b=nn.Linear(4, 1))

    x = torch.randn(2, 3)
    for kind, key in ((dict, "value"), (tuple, 0)):
        for inputs in ((), (x,)):
            assert "outputs=..." in surgery.find(features(kind), *inputs).left_out["a"]
            found = surgery.find(features(kind), *inputs, outputs=key)
            assert names(found) == ["a"]
            assert found.left_out == {"b": "output layer"}
    assert names(surgery.find(features(dict), x, outputs=["value"])) == ["a"]
    with pytest.raises(ValueError, match=r"outputs='policy': the network returns 'features', 'value'"):
        surgery.find(features(dict), x, outputs="policy")
    with pytest.raises(ValueError, match=r"outputs=3: the network returns 0 to 1"):
        surgery.find(features(tuple), x, outputs=3)


def test_lazy_layers_get_their_parameters_from_the_example_or_say_so() -> None:
    net = nn.Sequential(nn.LazyLinear(8), nn.ReLU(), nn.LazyLinear(2))
    with pytest.raises(ValueError, match=r"layers \['0', '2'\] are lazy and have no parameters yet: run the network"):
        surgery.find(net)
    torch.manual_seed(0)
    parameter = net[0].weight
    assert names(surgery.find(net, torch.randn(3, 4))) == ["0"]
    assert net[0].weight is parameter  # an optimizer that holds it goes on holding it
    assert names(surgery.find(net)) == ["0"]


def test_pruned_layers_are_left_out_with_the_reason() -> None:
    net = nn.Sequential(*mlp(), nn.ReLU(), nn.Linear(2, 3))
    prune.l1_unstructured(net[2], "weight", amount=0.5)
    for inputs in ((), (torch.randn(3, 4),)):
        found = surgery.find(net, *inputs)
        assert names(found) == ["4"]
        for name in ("0", "2"):
            assert found.left_out[name] == "'weight' of 2 is computed from others (pruned?); make it permanent first"
    prune.remove(net[2], "weight")
    assert names(surgery.find(net)) == ["0", "2", "4"]


def tasks() -> nn.Module:
    """One trunk, one head for each task."""
    parts = {"trunk": nn.Sequential(nn.Linear(3, 8), nn.ReLU()), "heads": nn.ModuleList(map(nn.Linear, (8, 8), (2, 3)))}
    return network(lambda net, x, task=0: net.heads[task](net.trunk(x)), **parts)


def test_heads_that_are_used_in_turn_are_all_readers() -> None:
    net, x = tasks(), torch.randn(5, 3)
    found = surgery.find(net, x)
    assert found.left_out["heads.1"].startswith("no forward pass reached it: give one that does")
    for passes in ([(x, 0), (x, 1)], [{"x": x, "task": 0}, {"x": x, "task": 1}]):
        found = surgery.find(net, passes=passes)
        assert [reader.module for reader in found[0].outgoing] == list(net.heads)
        assert found.left_out == {"heads.0": "output layer", "heads.1": "output layer"}
    assert len(surgery.find(net, x, passes=[(x, 1)])[0].outgoing) == 2
    check(net, found[0], [0, 5], lambda: [net(x, 0), net(x, 1)])
    for head in net.heads:
        assert not head.weight[:, [0, 5]].any()


def test_state_of_a_deep_recurrent_layer() -> None:
    def found(at: object) -> surgery.Found:
        layers = {"rnn": nn.GRU(3, 5, num_layers=2), "head": nn.Linear(5, 2)}
        return surgery.find(network(lambda net, x: net.head(net.rnn(x)[1][at]), **layers), torch.randn(4, 2, 3))

    assert names(found(-1)) == names(found(1)) == ["rnn"]
    assert "state of an inner layer is used" in found(0).left_out["rnn"]
    assert "the states of all 2 layers" in found(slice(None)).left_out["rnn"]


def test_tied_weights_are_refused_with_the_reason() -> None:
    layers = {"table": nn.Embedding(9, 6), "a": nn.Linear(6, 8), "b": nn.Linear(8, 6), "out": nn.Linear(6, 9)}
    tied = network(lambda net, x: net.out(F.relu(net.b(F.relu(net.a(net.table(x)))))), **layers)
    tied.out.weight = tied.table.weight
    found = surgery.find(tied, torch.tensor([1, 2]))
    assert names(found) == ["a"]
    assert found.left_out["b"] == "out shares a parameter with another layer"


def test_attention_is_left_out_with_the_reason() -> None:
    def forward(net: nn.Module, x: Tensor) -> Tensor:
        q, k, v = (layer(x).view(2, 5, 2, 4).transpose(1, 2) for layer in (net.q, net.k, net.v))
        return net.o(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(2, 5, 8))

    found = surgery.find(network(forward, **{name: nn.Linear(8, 8) for name in "qkvo"}), torch.randn(2, 5, 8))
    assert not len(found)
    for name in "qkv":
        assert "splits or mixes them" in found.left_out[name]


def test_notes_say_where_the_mean_is_kept_roughly() -> None:
    norm = nn.Sequential(nn.Linear(3, 6), nn.LayerNorm(6, elementwise_affine=False), nn.ReLU(), nn.Linear(6, 2))
    assert repr(surgery.find(norm)[0]).endswith(
        "3: Linear; the mean is kept roughly: LayerNorm makes them depend on each other"
    )
    batch = nn.Sequential(nn.Linear(3, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 2))
    assert "roughly" not in repr(surgery.find(batch)[0])


def test_finding_again_gives_the_same() -> None:
    net = tasks()
    before = copy.deepcopy(net.state_dict())
    x = torch.randn(2, 3)
    assert repr(surgery.find(net, passes=[(x, 0), (x, 1)])) == repr(surgery.find(net, passes=[(x, 0), (x, 1)]))
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_readers_from_before_layers_turned_out_to_share_their_units() -> None:
    def forward(net: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
        a, b = net.a(x), net.b(x)
        return net.early(b), net.late(a + b)

    layers = {"a": nn.Linear(3, 6), "b": nn.Linear(3, 6), "early": nn.Linear(6, 2), "late": nn.Linear(6, 2)}
    net, x = network(forward, **layers), torch.randn(4, 3)
    (units,) = surgery.find(net, x)
    assert {reader.module for reader in units.outgoing} == {net.early, net.late}
    check(net, units, [1, 2], lambda: net(x))
