import math

import pytest
import torch
from torch import nn

from continual_agents.methods import Method, ModuleTarget, Perturb, PullToInit
from tests.helpers import descend


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))


def target(*parameters: nn.Parameter, seed: int = 0) -> ModuleTarget:
    module = nn.ParameterList(parameters)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    return ModuleTarget(module, optimizer, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optimizer": {"kind": "adamm"}}, "optimizer.kind=adamm is unknown: did you mean 'adam'?"),
        ({"operations": {"continual_backprob": {}}}, "did you mean 'continual_backprop'"),
    ],
)
def test_unknown_names_suggest_the_nearest(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("?", r"\?")):
        Method(name="x", **settings)


def test_optimizer_settings_reach_the_optimizer() -> None:
    optimizer = Method(
        name="x",
        optimizer={"kind": "adam", "step_size": 0.5, "betas": [0.9, 0.99], "weight_decay": 0.1, "momentum": 0.3},
    ).make_optimizer(net().parameters())
    group = optimizer.param_groups[0]
    assert (group["lr"], group["betas"], group["weight_decay"]) == (0.5, (0.9, 0.99), 0.1)
    optimizer = Method(name="x", optimizer={"kind": "sgd", "step_size": 0.5, "momentum": 0.3}).make_optimizer(
        net().parameters()
    )
    assert isinstance(optimizer, torch.optim.SGD)
    assert optimizer.param_groups[0]["momentum"] == 0.3


def test_perturbation_is_gaussian_of_the_given_size_and_continues_exactly() -> None:
    parameter = nn.Parameter(torch.zeros(200, 100))
    perturb = Perturb(target(parameter), noise=0.01)
    for _ in range(4):
        perturb.step()
    # four independent draws of .01 add up to .02
    assert parameter.std().item() == pytest.approx(0.02, rel=0.02)
    state, value = perturb.state_dict(), parameter.detach().clone()
    perturb.step()
    after = parameter.detach().clone()
    with torch.no_grad():
        parameter.copy_(value)
    again = Perturb(target(parameter, seed=1), noise=0.01)
    again.load_state_dict(state)
    again.step()
    assert torch.equal(parameter, after)


def test_pull_goes_a_fraction_of_the_way_to_the_initial_weights() -> None:
    parameter = nn.Parameter(torch.tensor([1.0, -2.0]))
    pull = PullToInit(target(parameter), strength=0.25)
    with torch.no_grad():
        parameter.copy_(torch.tensor([5.0, 2.0]))
    assert pull.report()["distance_from_init"] == pytest.approx(4.0)
    pull.step()
    assert parameter.tolist() == [4.0, 1.0]


@pytest.mark.parametrize("value", [-0.1, math.nan])
def test_values_out_of_range_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="perturb.noise"):
        Perturb(target(nn.Parameter(torch.zeros(2))), noise=value)
    with pytest.raises(ValueError, match="l2_init.strength"):
        PullToInit(target(nn.Parameter(torch.zeros(2))), strength=value)


def test_operations_of_an_actor_and_a_critic_are_made_once_for_both() -> None:
    modules = nn.ModuleDict({"actor": net(), "critic": net()})
    method = Method(
        name="cbp",
        optimizer={"kind": "adam", "step_size": 1e-3},
        operations={"continual_backprop": {"rate": 0.1, "maturity": 2}, "perturb": {"noise": 1e-5}},
    )
    optimizer = method.make_optimizer(modules.parameters())
    operations = method.make_operations(dict(modules.items()), optimizer, torch.Generator().manual_seed(0))
    for _ in range(30):
        loss = sum(module(torch.randn(16, 4)).square().mean() for module in modules.values())
        descend(loss, optimizer, *operations)
    report = operations[0].report()
    assert report["replaced/actor.0"] > 0
    assert report["replaced/critic.0"] > 0
