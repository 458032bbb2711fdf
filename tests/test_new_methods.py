"""Operations against numbers computed by hand, for modules; `supervised/test_twin.py` compares stacks with modules."""

import copy
import math

import pytest
import torch
from torch import nn

from continual_agents.methods import OPERATIONS, Method, Operation
from continual_agents.methods.upgd import UPGD
from tests.helpers import descend


def linear(*weight: list[float], bias: list[float] | None = None) -> nn.Linear:
    layer = nn.Linear(len(weight[0]), len(weight), bias=bias is not None)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weight))
        if bias is not None:
            layer.bias.copy_(torch.tensor(bias))
    return layer


def made(net: nn.Module, fresh=None, **operations: dict) -> tuple[torch.optim.Optimizer, list]:
    method = Method(name="test", optimizer={"kind": "sgd", "step_size": 0.1, "momentum": 0.9}, operations=operations)
    optimizer = method.make_optimizer(net.parameters())
    return optimizer, method.make_operations(net, optimizer, torch.Generator().manual_seed(0), fresh)


def close(tensor: torch.Tensor, expected: list) -> None:
    torch.testing.assert_close(tensor.detach(), torch.tensor(expected))


def test_weights_and_biases_are_clipped_at_the_bound_over_the_root_of_the_fan_in() -> None:
    net = linear([3.0, -3.0, 0.1, 0.6], bias=[0.7])
    _, (operation,) = made(net, weight_clipping={"bound": 1.0})
    operation.step()
    close(net.weight, [[0.5, -0.5, 0.1, 0.5]])
    close(net.bias, [0.5])


def test_spectral_pulls_the_largest_singular_value_towards_one() -> None:
    net = linear([2.0], bias=[0.5])
    _, (operation,) = made(net, spectral={"strength": 0.01})
    operation.step()
    # 4 sigma (sigma^2 - 1) = 4 * 2 * 3 = 24; bias: 4 * .25 * .5
    close(net.weight, [[2 - 0.24]])
    close(net.bias, [0.5 * (1 - 0.01)])
    wide = linear([3.0, 0.0], [0.0, 0.5])
    _, (operation,) = made(wide, spectral={"strength": 0.01})
    for _ in range(300):
        operation.step()
    assert torch.linalg.svdvals(wide.weight.detach()).tolist() == pytest.approx([1.0, 0.5], abs=1e-2)


def test_parseval_pulls_rows_of_hidden_layers_to_orthogonality() -> None:
    net = nn.Sequential(linear([1.0, 0.0], [0.0, 2.0]), nn.ReLU(), linear([5.0, 5.0]))
    _, (operation,) = made(net, parseval={"strength": 0.01, "scale": 2.0})
    operation.step()
    # W W^T - 2 I = diag(-1, 2); the step is 4 * .01 * diag(-1 * 1, 2 * 2)
    close(net[0].weight, [[1.04, 0.0], [0.0, 1.84]])
    close(net[2].weight, [[5.0, 5.0]])


def test_projection_keeps_direction_and_initial_norm() -> None:
    net = nn.Sequential(linear([3.0, 4.0]), nn.ReLU(), linear([1.0]))
    _, (operation,) = made(net, projection={})
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[0.0, 2.0]]))
        net[2].weight.mul_(7)
    operation.step()
    close(net[0].weight, [[0.0, 5.0]])
    close(net[2].weight, [[7.0]])


def test_the_hare_jumps_back_to_the_tortoise_and_the_optimizer_forgets() -> None:
    net = linear([0.0])
    optimizer, (operation,) = made(net, hare_and_tortoise={"rate": 0.25, "period": 2})
    for value in (1.0, 3.0):
        net.weight.sum().backward()
        optimizer.step()
        with torch.no_grad():
            net.weight.fill_(value)
        operation.step()
    # slow: 0 -> .25 -> .25 + .25 * 2.75
    close(net.weight, [[0.9375]])
    assert not optimizer.state


def test_a_soft_reset_goes_part_of_the_way_to_a_fresh_network() -> None:
    net = linear([10.0], bias=[1.0])
    _, (operation,) = made(net, lambda index: linear([float(index)], bias=[0.0]), soft_reset={"period": 3})
    for _ in range(3):
        operation.step()
    close(net.weight, [[0.8 * 10 + 0.2 * 1]])
    close(net.bias, [0.8])


def test_operations_act_by_period_at_tasks_or_both() -> None:
    net = linear([10.0])
    _, (reset,) = made(net, lambda index: linear([float(index)]), reset={"layers": "all", "period": 2, "at_task": True})
    assert isinstance(reset, Operation)
    seen = []
    for _ in range(5):
        reset.step()
        seen.append(net.weight.item())
    assert seen == [10, 1, 1, 2, 2]
    reset.start_task()
    assert net.weight.item() == 1
    assert reset.report() == {"resets": 3.0}
    _, (only_at_tasks,) = made(net, perturb={"noise": 1.0, "at_task": True})
    before = net.weight.item()
    only_at_tasks.step()
    assert net.weight.item() == before
    only_at_tasks.start_task()
    assert net.weight.item() != before


def test_plasticity_injection_leaves_the_function_and_trains_new_weights() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
    optimizer, (operation,) = made(net, plasticity_injection={"most": 2})
    x = torch.randn(5, 3)
    descend(net(x).square().mean(), optimizer)
    before, weights, kept = net(x).detach(), copy.deepcopy(net.state_dict()), [id(p) for p in net.parameters()]
    operation.start_task()
    torch.testing.assert_close(net(x).detach(), before)
    assert [id(p) for p in net.parameters()] == kept
    assert not optimizer.state
    assert not torch.equal(net[0].weight, weights["0.weight"])
    descend(net(x).square().mean(), optimizer)
    assert not torch.equal(net(x).detach(), before)
    operation.start_task()
    state, after = operation.state_dict(), net(x).detach()
    operation.start_task()  # most=2: nothing more
    assert torch.equal(net(x).detach(), after)
    again = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
    _, (other,) = made(again, plasticity_injection={"most": 2})
    again.load_state_dict(net.state_dict())
    other.load_state_dict(state)
    torch.testing.assert_close(again(x).detach(), after)


def test_upgd_is_adam_held_back_where_weights_are_useful() -> None:
    weight = nn.Parameter(torch.tensor([2.0, -1.0]))
    optimizer = UPGD([weight], lr=0.1, sigma=0.0, weight_decay=0.5)
    weight.grad = torch.tensor([-1.0, -1.0])
    optimizer.step()
    # utilities -g w: 2 and -1, over their greatest: 1 and -.5; Adam's first direction is the gradient's sign
    gates = [1 - 1 / (1 + math.exp(-u)) for u in (1.0, -0.5)]
    expected = [w * (1 - 0.1 * 0.5) + 0.1 * gate for w, gate in zip((2.0, -1.0), gates, strict=True)]
    close(weight, expected)


def test_upgd_perturbs_the_useless_and_continues_exactly() -> None:
    def run(steps: int, start: tuple | None = None) -> tuple[torch.Tensor, dict]:
        weight = nn.Parameter(torch.ones(4) if start is None else start[0].clone())
        optimizer = UPGD([weight], lr=0.1, sigma=0.1)
        if start is not None:
            optimizer.load_state_dict(start[1])
        for _ in range(steps):
            weight.grad = weight.detach().sin()
            optimizer.step()
        return weight.detach().clone(), copy.deepcopy(optimizer.state_dict())

    whole = run(9)[0]
    assert len(set(whole.tolist())) == 4  # equal weights and gradients: only noise tells them apart
    assert torch.equal(run(5, run(4))[0], whole)


@pytest.mark.parametrize(
    ("operation", "message"),
    [
        ({"weight_clipping": {"bound": 0}}, "weight_clipping.bound=0: a positive multiple"),
        ({"spectral": {"strength": -1.0}}, "spectral.strength=-1.0: a strength is at least 0"),
        ({"hare_and_tortoise": {"rate": 2}}, r"hare_and_tortoise.rate=2: .* lies in \[0, 1\]"),
        ({"soft_reset": {"shrink": math.nan}}, "soft_reset.shrink=nan"),
        ({"plasticity_injection": {"most": 0}}, "plasticity_injection.most=0: at least one injection"),
        ({"perturb": {"noise": 1, "period": 0}}, "perturb: period=0: a number of gradient steps"),
        ({"redo": {"at_task": True}}, "redo.at_task is unknown"),
        ({"redo": {}, "reset": {"layers": "all"}}, "reset draws the whole network anew, which leaves redo nothing"),
    ],
)
def test_bad_settings_are_told_in_one_line(operation: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        made(linear([1.0]), **operation)


@pytest.mark.parametrize("name", [name for name, row in OPERATIONS.items() if row.stacks])
def test_every_operation_says_where_it_is_from(name: str) -> None:
    text = OPERATIONS[name].make.__doc__ or ""
    assert "(" in text.splitlines()[0] + text
    assert any(str(year) in text for year in range(2012, 2027)), name


def test_regrama_renews_the_unit_that_gets_no_gradient() -> None:
    net = nn.Sequential(
        linear([1.0, 1.0], [2.0, 1.0], [-1.0, -1.0], bias=[0.0] * 3), nn.ReLU(), linear([1.0, 1.0, 1.0])
    )
    optimizer, (regrama,) = made(net, regrama={"threshold": 0.01, "period": 2})
    for step in (1, 2):
        descend(net(torch.ones(4, 2)).sum(), optimizer)
        replaced = regrama.step()
        assert bool(replaced) == (step == 2)
    assert [index.tolist() for index in replaced.values()] == [[2]]
    assert net[2].weight[0, 2] == 0
    descend(net(torch.ones(4, 2)).sum(), optimizer)
    optimizer.zero_grad()
    with pytest.raises(RuntimeError, match="call it before zero_grad"):
        regrama.step()
