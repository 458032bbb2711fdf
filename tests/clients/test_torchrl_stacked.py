"""Critics that TorchRL's losses train as stacked parameters: the units of every member, under vmap and in a loop."""

import copy
import itertools
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule, TensorDictSequential
from torch import Tensor, nn
from torchrl.data import Bounded
from torchrl.modules import TanhModule, ValueOperator
from torchrl.objectives import REDQLoss, SACLoss, SoftUpdate, TD3Loss

from continual_agents import surgery
from tests.clients.test_torchrl import Critic, make_actor, mlp, play
from tests.helpers import descend

MEMBERS = 3
EXAMPLE = (torch.zeros(2, 3), torch.zeros(2, 1))


def sac(critic: nn.Module, **settings: Any) -> SACLoss:
    return SACLoss(make_actor(), dressed(critic), num_qvalue_nets=MEMBERS, target_entropy=-1.0, **settings)


def redq(critic: nn.Module, **settings: Any) -> REDQLoss:
    return REDQLoss(
        make_actor(), dressed(critic), num_qvalue_nets=MEMBERS, sub_sample_len=2, target_entropy=-1.0, **settings
    )


def td3(critic: nn.Module, **settings: Any) -> TD3Loss:
    actor = TensorDictSequential(
        TensorDictModule(mlp(3, 1), ["observation"], ["action"]), TanhModule(in_keys=["action"])
    )
    return TD3Loss(actor, dressed(critic), num_qvalue_nets=MEMBERS, action_spec=Bounded(-1, 1, (1,)), **settings)


def dressed(critic: nn.Module) -> ValueOperator:
    return ValueOperator(critic, in_keys=["observation", "action"])


LOSSES: dict[str, Callable[..., Any]] = {"sac": sac, "redq": redq, "td3": td3}


class Recorder:
    """The critic's live passes, told apart by a slow rule: the values that the stack itself gives for the inputs."""

    def __init__(self, critic: Critic, parameters: Any) -> None:
        self.critic, self.parameters = critic, parameters

    def hidden(self, observation: Tensor, action: Tensor, member: int, layer: int) -> Tensor:
        h = torch.cat((observation, action), -1)
        for index in (0, 2)[: layer + 1]:
            weight = self.parameters["module", "net", str(index), "weight"][member]
            bias = self.parameters["module", "net", str(index), "bias"][member]
            h = (h @ weight.T + bias).relu()
        return h.detach()


def losses_of(loss: Any, batch: TensorDict) -> Tensor:
    values = loss(batch)
    return sum(value for name, value in values.items() if name in ("loss_actor", "loss_qvalue"))


@pytest.mark.parametrize("deactivate_vmap", [False, True])
@pytest.mark.parametrize("kind", LOSSES)
def test_units_and_statistics_are_those_of_the_critics_own_pass(kind: str, deactivate_vmap: bool) -> None:
    torch.manual_seed(0)
    critic = Critic(4)
    loss = LOSSES[kind](critic, deactivate_vmap=deactivate_vmap)
    SoftUpdate(loss, tau=0.05)  # it warns without one
    parameters = loss.qvalue_network_params
    found = surgery.find(loss.qvalue_network, *EXAMPLE, parameters=parameters)
    assert [units.name for units in found] == [f"{n}.net.{i}" for n in range(MEMBERS) for i in (0, 2)]
    optimizer = torch.optim.Adam(loss.parameters(), lr=1e-3)
    cbp = surgery.ContinualBackprop(found, optimizer, rate=0.0, decay=0.0)
    recorder = Recorder(critic, parameters)
    for _ in range(2):
        batch = played(16)
        optimizer.zero_grad()
        losses_of(loss, batch).backward()
        for number, layer in enumerate(cbp.layers):
            (watch,) = layer.watches
            assert len(watch._records) == 1, "not the target's pass, nor the actor's"
            watch.settle()
            expected = recorder.hidden(batch["observation"], batch["action"], number // 2, number % 2)
            torch.testing.assert_close(watch._records[0][1]["mean"], expected.mean(0))
        optimizer.step()
        cbp.step()


def played(count: int) -> TensorDict:
    return play(make_actor(), count, torch.Generator().manual_seed(1))


@pytest.mark.parametrize("make", [torch.optim.Adam, surgery.Adam, lambda p, lr: torch.optim.SGD(p, lr, momentum=0.9)])
@pytest.mark.parametrize("kind", LOSSES)
def test_a_replacement_edits_one_members_slice_and_its_optimizer_state_alone(kind: str, make: Any) -> None:
    torch.manual_seed(0)
    loss = LOSSES[kind](Critic(4))
    updater = SoftUpdate(loss, tau=0.05)
    optimizer = make(loss.parameters(), lr=1e-3)
    found = surgery.find(loss.qvalue_network, *EXAMPLE, parameters=loss.qvalue_network_params)
    for _ in range(3):
        descend(losses_of(loss, played(16)), optimizer, updater)
    stacks = {".".join(key): value for key, value in loss.qvalue_network_params.items(True, True)}
    before = {name: value.detach().clone() for name, value in stacks.items()}
    states = {name: copy.deepcopy(optimizer.state[value]) for name, value in stacks.items()}
    targets = loss.target_qvalue_network_params.clone()
    units = next(one for one in found if one.name == "1.net.0")
    surgery.replace_(units, [4, 7], optimizer)
    wheres = {"weight": (1, [4, 7]), "bias": (1, [4, 7])}
    reader = "module.net.2.weight"
    for name, value in stacks.items():
        changed = torch.zeros_like(value, dtype=torch.bool)
        if name.startswith("module.net.0."):
            changed[wheres[name.rpartition(".")[2]]] = True
        elif name == reader:
            changed[1, :, [4, 7]] = True
        assert torch.equal(value[~changed], before[name][~changed])
        assert (value[changed] != before[name][changed]).all()
        for key, state in optimizer.state[value].items():
            if isinstance(state, Tensor) and state.shape == value.shape:
                assert not state[changed].any()
                assert torch.equal(state[~changed], states[name][key][~changed])
    assert not stacks[reader][1, :, [4, 7]].any()
    assert (targets == loss.target_qvalue_network_params).all()


def continual(utility: str) -> Callable[..., Any]:
    return lambda *given: surgery.ContinualBackprop(*given, rate=0.01, maturity=5, decay=0.9, utility=utility)


def regrama(*given: Any) -> surgery.ReGraMa:
    return surgery.ReGraMa(*given, threshold=0.2, period=5)


@pytest.mark.parametrize(
    ("make", "deactivate_vmap"),
    [*itertools.product([continual("contribution"), regrama], [False, True]), (continual("gradient"), True)],
)
def test_each_member_is_looked_after_as_it_would_be_alone(make: Any, deactivate_vmap: bool) -> None:
    """A regression of stacked parameters against the members as plain networks: same units, same weights."""
    torch.manual_seed(0)
    plain = [mlp(3, 1) for _ in range(MEMBERS)]
    stack = {k: nn.Parameter(torch.stack([dict(net.named_parameters())[k].detach() for net in plain])) for k in
             dict(plain[0].named_parameters())}  # fmt: skip
    base = mlp(3, 1)
    optimizer = torch.optim.Adam(stack.values(), lr=1e-2)
    cbp = make(surgery.find(base, parameters=stack), optimizer)
    other = torch.optim.Adam([p for net in plain for p in net.parameters()], lr=1e-2)
    twin = make(surgery.find(nn.ModuleList(plain)), other)
    generator, replaced = torch.Generator().manual_seed(2), 0
    for _ in range(60):
        x = torch.randn(8, 3, generator=generator)

        def call(parameters: dict[str, Tensor], x: Tensor = x) -> Tensor:
            return torch.func.functional_call(base, parameters, (x,))

        if deactivate_vmap:
            y = torch.stack([call({k: v[n] for k, v in stack.items()}) for n in range(MEMBERS)])
        else:
            y = torch.func.vmap(call)(stack)
        descend((y - x.sum(-1, keepdim=True)).square().mean((1, 2)).sum(), optimizer)
        descend(sum((net(x) - x.sum(-1, keepdim=True)).square().mean() for net in plain), other)
        mine, theirs = cbp.step(), twin.step()
        assert {k: v.tolist() for k, v in mine.items()} == {k: v.tolist() for k, v in theirs.items()}
        replaced += sum(len(index) for index in mine.values())
    assert replaced > 20
    for n, net in enumerate(plain):
        for name, parameter in net.named_parameters():
            torch.testing.assert_close(stack[name][n], parameter, rtol=1e-4, atol=1e-5)


def test_what_cannot_be_is_said() -> None:
    loss = sac(Critic(4))
    SoftUpdate(loss, tau=0.05)
    parameters = loss.qvalue_network_params
    with pytest.raises(ValueError, match=r"surgery.find\(loss.qvalue_network, parameters=loss.qvalue_network_params\)"):
        surgery.find(loss)
    with pytest.raises(ValueError, match=r"parameters: nothing of the name 'a.weight', but \['module.net"):
        surgery.find(nn.ModuleDict({"a": nn.Linear(4, 24)}), parameters=parameters)
    with pytest.raises(
        ValueError, match=r"'net.0.weight' has shape \[3, 24, 4\], \[members, ...\] of the network's \[24, 5\]"
    ):
        surgery.find(Critic(5), parameters=parameters)
    with pytest.raises(TypeError, match="stacked tensors by name are needed, got list"):
        surgery.find(loss.qvalue_network, parameters=[1])
    with pytest.raises(ValueError, match="the optimizer trains none of the layers that make units '0.net.0'"):
        surgery.ContinualBackprop(
            surgery.find(loss.qvalue_network, *EXAMPLE, parameters=parameters), torch.optim.Adam(Critic(4).parameters())
        )
    found = surgery.find(loss.qvalue_network, *EXAMPLE, parameters=parameters)
    optimizer = torch.optim.Adam(loss.parameters())
    seen = surgery.ContinualBackprop(found, optimizer, utility="gradient")
    with pytest.raises(RuntimeError, match="see none under vmap: give the loss deactivate_vmap=True"):
        losses_of(loss, played(8))
    seen.detach()


def test_a_critic_of_any_number_of_inputs_is_found_without_an_example() -> None:
    parameters = sac(Critic(4)).qvalue_network_params
    found = surgery.find(dressed(Critic(4)), parameters=parameters)
    assert [units.name for units in found] == [f"{n}.net.{i}" for n in range(MEMBERS) for i in (0, 2)]


def twice() -> tuple[nn.Sequential, dict[str, nn.Parameter]]:
    base = mlp(3, 1)
    return base, {name: nn.Parameter(torch.stack([p.detach()] * 2)) for name, p in base.named_parameters()}


def test_copies_of_the_module_tell_nobody() -> None:
    base, stack = twice()
    units = surgery.find(base, parameters=stack)
    watched = surgery.ContinualBackprop(units, torch.optim.SGD(stack.values(), lr=0.1))
    for copied in (copy.deepcopy(base), pickle.loads(pickle.dumps(base))):
        torch.func.vmap(lambda p, net=copied: torch.func.functional_call(net, p, (torch.zeros(2, 3),)))(stack)
        assert not any(watch.recorded for layer in watched.layers for watch in layer.watches)


def test_parameters_that_move_are_found_again() -> None:
    base, stack = twice()
    optimizer = torch.optim.SGD(stack.values(), lr=0.1)
    redo = surgery.ContinualBackprop(surgery.find(base, parameters=stack), optimizer, rate=0.5, maturity=1)
    for parameter in stack.values():
        parameter.data = parameter.data.double()  # as module.to(...) does
    for _ in range(5):
        y = torch.func.vmap(lambda p: torch.func.functional_call(base, p, (torch.ones(2, 3).double(),)))(stack)
        y.sum().backward()
        optimizer.step()
        before = {name: value.detach().clone() for name, value in stack.items()}
        replaced = redo.step()
    assert replaced
    assert any(not torch.equal(before[name], value) for name, value in stack.items())
