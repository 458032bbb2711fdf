import pytest
import torch
from torch import nn

from continual_agents import plasticity, surgery
from tests.helpers import descend
from tests.surgery.networks import network


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def mlp(activation=nn.ReLU, seed=0):
    net = nn.Sequential(nn.Linear(5, 8), activation(), nn.Linear(8, 6), activation(), nn.Linear(6, 2))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator(seed)) * 0.5)
    return net


BATCH = torch.randn(40, 5, generator=generator(1))


def test_numbers_are_those_of_the_activations_computed_by_hand():
    net = mlp()
    with torch.no_grad():
        net[0].bias[2] = -100.0  # dead whatever comes in
    first = net[1](net[0](BATCH))
    second = net[3](net[2](first))
    seen = plasticity.Probe(net)(BATCH)
    assert seen["plasticity/dead_units/0"] >= 1 / 8
    assert seen["plasticity/dead_units/0"] == (first == 0).all(0).double().mean().item()
    dead = (first == 0).all(0).sum() + (second == 0).all(0).sum()
    assert seen["plasticity/dead_units"] == pytest.approx(dead.item() / 14)
    assert seen["plasticity/effective_rank/2"] == pytest.approx(plasticity.effective_rank(second).item())
    assert seen["plasticity/weight_magnitude/4"] == pytest.approx(net[4].weight.abs().mean().item())
    weights = torch.cat([net[k].weight.flatten() for k in (0, 2, 4)])
    assert seen["plasticity/weight_magnitude"] == pytest.approx(weights.abs().mean().item())
    assert all(isinstance(value, float) for value in seen.values())


def test_actor_and_critic_have_prefixed_names():
    probe = plasticity.Probe({"actor": mlp(seed=0), "critic": mlp(seed=1)})
    seen = probe(BATCH)
    for measure in ("dead_units", "dormant_units", "effective_rank", "weight_magnitude", "feature_norm"):
        assert {
            f"plasticity/{measure}",
            f"plasticity/{measure}/actor.0",
            f"plasticity/{measure}/critic.2",
        } <= seen.keys()
    alone = plasticity.Probe(mlp(seed=1))(BATCH)
    assert seen["plasticity/effective_rank/critic.2"] == alone["plasticity/effective_rank/2"]
    assert probe({"actor": BATCH, "critic": BATCH * 2})["plasticity/feature_norm/actor.0"] == pytest.approx(
        seen["plasticity/feature_norm/actor.0"]
    )


def test_tanh_and_sigmoid_units_die_by_saturation():
    for activation, bias in ((nn.Tanh, -50.0), (nn.Sigmoid, 50.0)):
        net = mlp(activation)
        with torch.no_grad():
            net[0].weight.mul_(0.01)
            net[0].bias.zero_()
            net[0].bias[3] = bias
        assert plasticity.Probe(net)(BATCH)["plasticity/dead_units/0"] == 1 / 8


def test_functional_activations_are_recognised():
    layers = {"first": nn.Linear(5, 8), "second": nn.Linear(8, 2)}
    net = network(lambda net, x: net.second(torch.tanh(net.first(x))), **layers)
    with torch.no_grad():
        net.first.weight.mul_(0.01)
        net.first.bias.zero_()
        net.first.bias[:2] = 30.0
    assert plasticity.Probe(net)(BATCH)["plasticity/dead_units/first"] == 2 / 8


def test_recurrent_layers_count_every_step_as_batch():
    layers = {"memory": nn.GRU(5, 6, batch_first=True), "head": nn.Linear(6, 2)}
    net = network(lambda net, x: net.head(net.memory(x)[0][:, -1]), **layers)
    sequences = BATCH.reshape(4, 10, 5)
    seen = plasticity.Probe(net, sequences).activations(sequences)
    torch.testing.assert_close(seen["memory"], net.memory(sequences)[0].reshape(-1, 6))


def test_convolutions_count_positions_as_batch():
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2)
    )
    images = torch.randn(5, 2, 8, 8, generator=generator())
    with torch.no_grad():
        net[0].bias[1] = -100.0
        net[3].bias[2] = -100.0
    seen = plasticity.Probe(net, images).activations(images)
    pooled = net[:3](images)
    torch.testing.assert_close(seen["0"], pooled.permute(0, 2, 3, 1).reshape(-1, 4))
    last = net[:5](images)  # [5, 3, 2, 2]; flattened, each channel has four inputs of the linear layer
    torch.testing.assert_close(seen["3"], last.permute(0, 2, 3, 1).reshape(-1, 3))
    measured = plasticity.Probe(net, images)(images)
    assert measured["plasticity/dead_units/0"] == (pooled == 0).all(0).all(-1).all(-1).double().mean().item()


def test_nothing_is_disturbed():
    net = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 2)).train()
    net[1].eval()  # a frozen norm stays frozen
    before = {name: value.clone() for name, value in net.state_dict().items()}
    probe = plasticity.Probe(net, BATCH)
    torch.manual_seed(7)
    state = torch.get_rng_state()
    seen = probe.activations(BATCH)["0"]
    assert torch.equal(torch.get_rng_state(), state)
    linear = BATCH @ before["0.weight"].T + before["0.bias"]
    normed = linear / (1 + net[1].eps) ** 0.5  # the norm's running statistics, not the batch's
    torch.testing.assert_close(seen, normed.relu())  # and no dropout
    assert net.training
    assert net[3].training
    assert not net[1].training
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())
    assert all(parameter.grad is None for parameter in net.parameters())


class Noisy(nn.ReLU):
    def forward(self, x):
        return super().forward(x) + torch.rand(())


def test_a_network_that_draws_numbers_leaves_the_generators_as_they_were():
    net = nn.Sequential(nn.Linear(5, 8), Noisy(), nn.Linear(8, 2))
    probe = plasticity.Probe(net, units=[surgery.Units("0", net[0], (net[2],))])
    torch.manual_seed(7)
    state = torch.get_rng_state()
    probe(BATCH)
    assert torch.equal(torch.get_rng_state(), state)


def test_flags_and_hooks_are_put_back_when_the_network_fails():
    net = mlp().train()
    probe = plasticity.Probe(net)
    with pytest.raises(RuntimeError):
        probe(torch.zeros(3, 99))
    assert net.training
    assert not any(module._forward_pre_hooks for module in net.modules())


def test_surgery_does_not_see_the_probe():
    nets = [mlp(), mlp()]
    companions = []
    for number, net in enumerate(nets):
        optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
        units = surgery.find(net)
        companion = surgery.ContinualBackprop(units, optimizer, rate=0.05, maturity=3, generator=generator())
        probe = plasticity.Probe(net)
        for _ in range(12):
            descend(net(BATCH).square().mean(), optimizer, companion)
            if number:
                probe(BATCH * 100)
        companions.append(companion)
    for one, other in zip(*(net.parameters() for net in nets), strict=True):
        assert torch.equal(one, other)
    one, other = (torch.utils._pytree.tree_leaves(companion.state_dict()) for companion in companions)
    assert len(one) == len(other) > 0
    for left, right in zip(one, other, strict=True):
        assert (
            torch.equal(torch.as_tensor(left), torch.as_tensor(right)) if not isinstance(left, str) else left == right
        )


def test_a_compiled_network_is_read_like_the_one_inside_it():
    net = mlp()
    compiled = torch.compile(net, backend="eager")
    compiled(BATCH)
    assert plasticity.Probe(compiled)(BATCH) == plasticity.Probe(net)(BATCH)


def test_period_keeps_the_share():
    probe = plasticity.Probe(mlp())
    probe(BATCH)
    assert probe.seconds > 0
    probe.seconds = 0.1
    assert probe.period(2.0) == 2  # .1 s every 2 steps of 2 s is 2.5%
    assert probe.period(2.0, share=0.01) == 5
    assert probe.period(100.0) == 1


def test_refusals():
    with pytest.raises(ValueError, match="0: output layer"):
        plasticity.Probe(nn.Sequential(nn.Linear(3, 2)))
