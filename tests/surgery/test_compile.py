"""torch.compile: the same units and weights as eager, in one graph; late companions; the donated-buffer trap."""

import pytest
import torch
from torch import nn

from continual_agents import surgery

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def run(backend: str | None, utility: str, *, warm: bool = False, watched: bool = True):
    torch._dynamo.reset()
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 12), nn.ReLU(), nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 2)).double()
    optimizer = torch.optim.SGD(net.parameters(), 0.01)

    def loss_of(x: torch.Tensor) -> torch.Tensor:
        return (net(x) - x[:, :2]).square().mean()

    step = torch.compile(loss_of, backend=backend) if backend else loss_of
    if warm:  # compiled, forward and backward, before there is anybody to watch
        step(torch.randn(8, 4, dtype=torch.float64)).backward()
        optimizer.zero_grad()
    if not watched:
        return None
    cbp = surgery.ContinualBackprop(surgery.find(net), optimizer, rate=0.02, maturity=10, decay=0.9, utility=utility)
    g = torch.Generator().manual_seed(1)
    log = []
    for _ in range(40):
        optimizer.zero_grad()
        step(torch.randn(8, 4, generator=g, dtype=torch.float64)).backward()
        optimizer.step()
        log.append({name: index.tolist() for name, index in cbp.step().items()})
    return log, [p.detach() for p in net.parameters()]


@pytest.mark.parametrize(
    ("backend", "utility"),
    [
        ("aot_eager", "adaptable_contribution"),
        ("aot_eager", "gradient"),
        pytest.param("inductor", "contribution", marks=pytest.mark.slow),
        pytest.param("inductor", "gradient", marks=pytest.mark.slow),
    ],
)
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")  # by dynamo itself
def test_compiled_is_eager(backend: str, utility: str) -> None:
    expected, weights = run(None, utility)
    torch._dynamo.utils.counters.clear()
    log, compiled = run(backend, utility)
    assert log == expected
    assert any(log)
    for p, q in zip(compiled, weights, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-10, atol=1e-12)
    if utility != "gradient":
        assert not torch._dynamo.utils.counters["graph_break"]
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 2  # no recompilation step by step


def test_a_companion_made_after_the_first_compiled_call_says_that_it_sees_nothing() -> None:
    """Its hooks never fire, and the cached backward may reuse the memory that they would read: refused, not silent."""
    with pytest.raises(RuntimeError, match="before the first call of a torch.compile'd model"):
        run("aot_eager", "contribution", warm=True)


@pytest.mark.slow
def test_a_recording_survives_buffers_that_inductor_donates() -> None:
    """The loss is compiled without hooks in the same process first: its cached backward owns the last activation."""
    run("inductor", "contribution", warm=True, watched=False)
    expected, _ = run(None, "contribution")
    log, _ = run("inductor", "contribution")
    assert log == expected


def test_a_compiled_step_of_adam_is_refused_while_entries_are_young() -> None:
    """It used to be taken once, while it was compiled, and never again."""
    torch._dynamo.reset()
    p = nn.Parameter(torch.ones(3, 2))
    optimizer = surgery.Adam([p])
    p.grad = torch.ones_like(p)
    step = torch.compile(optimizer.step, backend="eager")
    step()
    surgery.forget_([optimizer], p, 0, torch.tensor([1]))
    with pytest.raises(Exception, match=r"outside of torch\.compile"):
        step()
    before = p.detach().clone()
    optimizer.step()
    assert (p != before).all()
