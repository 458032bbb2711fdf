"""What find() finds, what it leaves out and why, and what it refuses."""

import copy
import re
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from continual_agents import surgery
from continual_agents.surgery.finding import LAYERS
from tests.surgery.checks import check
from tests.surgery.networks import CASES, Recurrent, heads, network, resnet, transformer


def mlp(n_in: int = 4) -> nn.Sequential:
    return nn.Sequential(nn.Linear(n_in, 8), nn.ReLU(), nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 2))


def names(found: surgery.Found) -> list[str]:
    return [units.name for units in found]


def test_mlp_in_words() -> None:
    expected = "0: Linear[8] -> ReLU -> 2: Linear\n2: Linear[6] -> Tanh -> 4: Linear\nleft out:\n  4: output layer"
    assert repr(surgery.find(mlp())) == expected
    assert repr(surgery.find(mlp(), torch.randn(3, 4))) == expected


def test_actor_and_critic_are_never_paired() -> None:
    """Module order would pair the actor's output (2 wide) with a critic that happens to read 2 inputs."""
    found = surgery.find({"actor": mlp(), "critic": mlp(2)})
    assert names(found) == ["actor.0", "actor.2", "critic.0", "critic.2"]
    assert set(found.left_out) == {"actor.4", "critic.4"}
    for units in found:
        assert len(units.outgoing) == 1
    assert names(surgery.find([mlp(), mlp(2)])) == ["0.0", "0.2", "1.0", "1.2"]
    assert names(surgery.find(nn.ModuleDict({"a": mlp()}))) == ["a.0", "a.2"]
    both = network(lambda net, x: (net.actor(x), net.critic(x[:, :2])), actor=mlp(), critic=mlp(2))
    found = surgery.find(both, torch.randn(3, 4))
    assert names(found) == ["actor.0", "actor.2", "critic.0", "critic.2"]
    assert found.left_out == {"actor.4": "output layer", "critic.4": "output layer"}


@pytest.mark.parametrize("layer", [name for name in CASES if "cell" not in name and "conv" not in name])
def test_finding_changes_nothing(layer: str) -> None:
    torch.manual_seed(0)
    net = CASES[layer].make()
    before = copy.deepcopy(net.state_dict())
    modes = [m.training for m in net.modules()]
    hooks = [len(m._forward_pre_hooks) + len(m._forward_hooks) + ("forward" in vars(m)) for m in net.modules()]
    x = CASES[layer].inputs(torch.Generator().manual_seed(0))
    random = torch.get_rng_state()
    surgery.find(net, x)
    assert torch.equal(random, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert modes == [m.training for m in net.modules()]
    assert hooks == [len(m._forward_pre_hooks) + len(m._forward_hooks) + ("forward" in vars(m)) for m in net.modules()]
    assert all(p.grad is None for p in net.parameters())


def test_conv_net_of_continual_imagenet_with_and_without_inputs() -> None:
    net = nn.Sequential(
        *(nn.Conv2d(3, 32, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(64, 128, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(512, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 2)),
    )
    symbolic, traced = surgery.find(net), surgery.find(net, torch.randn(2, 3, 32, 32))
    assert repr(symbolic) == repr(traced)
    assert "6: Conv2d[128] -> ReLU -> MaxPool2d -> Flatten -> 10: Linear (4 inputs a unit)" in repr(traced)
    assert names(traced) == ["0", "3", "6", "10", "12"]


def test_residual_stream_is_one_group() -> None:
    found = surgery.find(resnet(), torch.randn(2, 3, 5, 5))
    assert names(found) == ["stem", "blocks.0.conv1", "blocks.1.conv1", "blocks.1.conv2"]
    stem, last = found[0], found[3]
    assert len(stem.incoming) == 2  # stem and the block that adds to it
    assert [type(r.module) for r in stem.outgoing] == [nn.Conv2d] * 3
    assert len(last.incoming) == 2  # conv2 and the projection of the skip
    assert names(surgery.find(resnet())) == names(found)


def test_a_stream_that_the_input_is_added_to_is_left_out_with_the_reason() -> None:
    layers = {"a": nn.Linear(4, 4), "b": nn.Linear(4, 4), "c": nn.Linear(4, 1)}
    skip = network(lambda net, x: net.c(x + net.b(F.relu(net.a(x)))), **layers)
    for found in (surgery.find(skip), surgery.find(skip, torch.randn(2, 4))):
        assert names(found) == ["a"]
        assert found.left_out == {"b": "a value that is no unit is added to them (+)", "c": "output layer"}


def test_transformer_offers_its_mlp_blocks() -> None:
    found = surgery.find(transformer(), torch.randn(2, 5, 3))
    assert names(found) == ["encoder.layers.0.linear1"]
    assert "MultiheadAttention" in found.left_out["embed"]
    with pytest.raises(ValueError, match=r"give example inputs: surgery.find\(net, \*inputs\)"):
        surgery.find(transformer())


def test_recurrent_layers() -> None:
    found = surgery.find(Recurrent("GRU"), torch.randn(2, 5, 3))
    assert repr(found[0]) == "rnn: GRU[5, recurrent] -> head: Linear"

    class State(Recurrent):
        def forward(self, x: Tensor) -> Tensor:
            y, h = self.rnn(x)
            return self.head(y[:, -1]), h

    assert names(surgery.find(State("LSTM"), torch.randn(2, 5, 3))) == ["rnn"]  # a state is no output
    assert "bidirectional" in surgery.find({"r": nn.LSTM(3, 5, bidirectional=True)}, torch.randn(4, 2, 3)).left_out["r"]


def test_a_recurrence_written_by_hand() -> None:
    def forward(net: nn.Module, x: Tensor) -> Tensor:
        h = torch.zeros(len(x), 5)
        for t in range(x.shape[1]):
            h = torch.tanh(net.u(x[:, t]) + net.w(h))
        return net.o(h)

    hand = network(forward, u=nn.Linear(3, 5), w=nn.Linear(5, 5, bias=False), o=nn.Linear(5, 2))
    found = surgery.find(hand, torch.randn(2, 4, 3))
    assert names(found) == ["u"]
    assert {type(m) for m in found[0].incoming} == {nn.Linear}
    assert len(found[0].incoming) == 2
    assert len(found[0].outgoing) == 2


def test_several_readers_and_concatenation() -> None:
    found = surgery.find(heads(), torch.randn(3, 3))
    assert repr(found[0]) == "trunk: Linear[6] -> relu -> left: Linear + right: Linear (inputs 3..)"
    assert [r.source for r in found[0].outgoing] == [0, 1]  # they read different tensors


def test_units_that_are_also_returned_are_left_out() -> None:
    def forward(net: nn.Module, x: Tensor) -> dict[str, Tensor]:
        h = F.relu(net.a(x))
        return {"features": h, "value": net.b(h)}

    found = surgery.find(network(forward, a=nn.Linear(3, 4), b=nn.Linear(4, 1)), torch.randn(2, 3))
    assert names(found) == []
    assert "also the network's output (find(..., outputs=...)" in found.left_out["a"]
    assert found.left_out["b"] == "output layer"
    assert repr(found).startswith("no units\nleft out:")


def test_a_reader_shared_with_something_else_is_left_out() -> None:
    parts = {"a": nn.Linear(3, 3), "shared": nn.Linear(3, 1)}
    net = network(lambda net, x: net.shared(F.relu(net.a(x))) + net.shared(x), **parts)
    assert "also applied to something else" in surgery.find(net).left_out["a"]


def around(between: Callable[[Tensor], Tensor]) -> nn.Module:
    """Two layers, and `between` them something."""
    return network(lambda net, x: net.b(between(net.a(x))), a=nn.Linear(3, 4), b=nn.Linear(4, 1))


@pytest.mark.parametrize(
    ("between", "reason"),
    [
        (lambda x: x @ torch.ones(4, 4), "flows into matmul"),
        (lambda x: x.softmax(-1), "flows into softmax"),
        (lambda x: x[:, [1, 0, 2, 3]], "flows into getitem"),
        (lambda x: torch.cat(x.chunk(2, -1), 0).view(-1, 4), "cut apart by chunk"),
        (lambda x: x.T.reshape(-1, 4), "does not read them along"),
        (lambda x: torch.linalg.norm(x, dim=-1, keepdim=True).expand(-1, 4), "flows into"),
    ],
)
def test_what_mixes_units_is_named(between, reason: str) -> None:
    found = surgery.find(around(between), torch.randn(4, 3))
    assert names(found) == []
    assert re.search(reason, found.left_out["a"])


@pytest.mark.parametrize(
    "between",
    [
        lambda x: F.dropout(x.clone().relu_().mul(2) / 3 + 1, 0.5),
        lambda x: x.unsqueeze(1).transpose(1, 2).squeeze(-1),
        lambda x: x.reshape(2, 2, 4).permute(2, 0, 1).flatten(1).T,
        lambda x: torch.maximum(x, torch.tensor(0.0)) * torch.sigmoid(x),
        lambda x: F.silu(x)[..., :][:, :],
        lambda x: torch.stack([x, x]).mean(0) if False else x.view(2, 2, 4).view(4, 4),
        lambda x: torch.cat([x, x.abs()], 0).sum(0, keepdim=True),
    ],
)
def test_what_leaves_units_alone_is_seen_through(between) -> None:
    found = surgery.find(around(between), torch.randn(4, 3))
    assert names(found) == ["a"], found


def test_channels_last_flatten_is_refused() -> None:
    parts = {"a": nn.Conv2d(1, 3, 2), "b": nn.Linear(12, 1)}
    last = network(lambda net, x: net.b(net.a(x).permute(0, 2, 3, 1).flatten(1)), **parts)
    assert "splits or mixes" in surgery.find(last, torch.randn(2, 1, 3, 3)).left_out["a"]


def test_an_unknown_layer_names_register_and_a_registered_one_works() -> None:
    class Gate(nn.Module):
        def __init__(self, n_in: int, n_out: int) -> None:
            super().__init__()
            self.value = nn.Parameter(torch.randn(n_out, n_in))
            self.gate = nn.Parameter(torch.randn(n_out, n_in))
            self.offset = nn.Parameter(torch.zeros(n_out))

        def forward(self, x: Tensor) -> Tensor:
            return (x @ self.value.T + self.offset) * torch.sigmoid(x @ self.gate.T)

    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), Gate(4, 5), nn.Linear(5, 2))
    for found in (surgery.find(net), surgery.find(net, torch.randn(2, 3))):
        assert names(found) == []
        assert "flows into 2, a kind of layer that surgery does not know (Gate)" in found.left_out["0"]
        assert "surgery.register(Gate, out={...}, inp={...})" in found.left_out["2"]
    with pytest.raises(TypeError, match=r"surgery.register\(Gate"):
        surgery.Units("x", net[2], (net[3],))
    surgery.register(
        Gate, out={"value": 0, "gate": 0, "offset": 0}, inp={"value": 1, "gate": 1}, bias={"value": "offset"}
    )
    try:
        found = surgery.find(net)
        assert names(found) == ["0", "2"]
        before = copy.deepcopy(net.state_dict())
        surgery.replace_(found[1], [1], means=torch.ones(5))
        assert (net[2].value[1] != before["2.value"][1]).all()
        assert (net[2].gate[1] != before["2.gate"][1]).all()
        assert net[2].offset[1] == 0
        surgery.replace_(found[0], [2], means=torch.ones(4))
        assert not net[2].value[:, 2].any()
        assert not net[2].gate[:, 2].any()
        stays = [0, 2, 3, 4]
        torch.testing.assert_close(net[2].offset[stays], before["2.value"][stays, 2])
    finally:
        del LAYERS[Gate]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"layer": 3, "out": {"weight": 0}, "inp": {}}, TypeError),
        ({"layer": nn.Bilinear, "out": {}, "inp": {}}, ValueError),
        ({"layer": nn.Bilinear, "out": {"weight": "0"}, "inp": {}}, TypeError),
        ({"layer": nn.Bilinear, "out": {"weight": 0}, "inp": {}, "axis": 1}, ValueError),
    ],
)
def test_register_refuses_nonsense(arguments: dict, error: type) -> None:
    with pytest.raises(error):
        surgery.register(**arguments)
    assert nn.Bilinear not in LAYERS


def test_layers_that_cannot_be_edited_are_left_out_with_the_reason() -> None:
    net = nn.Sequential(nn.ConvTranspose2d(4, 4, 3, groups=2), nn.Flatten(), nn.Linear(144, 2))
    assert "groups=2" in surgery.find(net, torch.randn(2, 4, 4, 4)).left_out["0"]
    normed = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(3, 4)), nn.ReLU(), nn.Linear(4, 2))
    assert "weight norm" in surgery.find(normed, torch.randn(2, 3)).left_out["0"]
    tied = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3))
    tied[2].weight = tied[0].weight
    assert set(surgery.find(tied).left_out) == {"0", "2", "4"}


def test_a_grouped_convolution_makes_units_and_what_it_reads_is_left_out() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 6, 3, groups=2), nn.ReLU(), nn.Flatten(), nn.Linear(24, 2))
    net, x = net.double(), torch.randn(5, 3, 4, 4, dtype=torch.float64)
    found = surgery.find(net, x)
    assert repr(found[0]).startswith("1: Conv2d[6] -> ReLU")
    assert names(found) == ["1"]
    assert "grouped convolution (groups=2)" in found.left_out["0"]
    with pytest.raises(ValueError, match=r"cannot edit what reads units 'a': grouped convolution"):
        surgery.Units("a", net[0], (net[1],))
    check(net, found[0], [0, 5], lambda: net(x))
    before = net[1].weight.detach().clone()
    surgery.replace_(found[0], [2], birth="default")
    changed = (net[1].weight != before).flatten(1).any(1)
    assert changed.tolist() == [False, False, True, False, False, False]
    assert net[1].weight[2].abs().max() <= (2 * 9) ** -0.5  # PyTorch's own bound: 2 input channels of 3x3 a group


def test_units_check_what_they_are_given() -> None:
    with pytest.raises(ValueError, match="no multiple of the width"):
        surgery.Units("x", nn.Linear(2, 4), (nn.Linear(6, 1),))
    with pytest.raises(ValueError, match="do not fit"):
        surgery.Units("x", nn.Linear(2, 4), (surgery.Reader(nn.Linear(6, 1), start=3),))
    with pytest.raises(ValueError, match="differ in width"):
        surgery.Units("x", (nn.Linear(2, 4), nn.Linear(2, 3)), (nn.Linear(4, 1),))
    with pytest.raises(ValueError, match="need a layer that makes them"):
        surgery.Units("x", nn.Linear(2, 4), ())


@pytest.mark.filterwarnings("ignore:.*torch.jit.script_method.*:DeprecationWarning")  # torch's own, in inductor
def test_wrapped_networks_are_unwrapped() -> None:
    net = mlp()
    assert repr(surgery.find(torch.compile(net))) == repr(surgery.find(net))
    assert surgery.find(nn.DataParallel(net))[0].incoming[0] is net[0]
    with pytest.raises(TypeError, match="wants modules, got int"):
        surgery.find({"a": 3})


@pytest.mark.parametrize(
    ("between", "positive"),
    [
        (F.relu, True),
        (lambda x: F.dropout(torch.sigmoid(x)), True),
        (lambda x: x, False),
        (lambda x: F.relu(x) - 1, False),
        (lambda x: -F.relu(x), False),
        (lambda x: F.relu(x) * -2, False),
        (lambda x: F.leaky_relu(F.relu(x) + 0), False),
        (lambda x: F.relu(x) + F.relu(x), True),
    ],
)
def test_whether_what_is_read_is_at_least_zero(between, positive: bool) -> None:
    net = around(between)
    for found in (surgery.find(net), surgery.find(net, torch.randn(2, 3))):
        assert found[0].outgoing[0].positive is positive
