"""What published runs did otherwise: their Adam, and their draws over the zeros of newborns."""

import pytest
import torch
from torch import nn

from continual_agents import surgery

pytestmark = pytest.mark.usefixtures("ways")


def test_published_adam_in_hand_numbers_and_per_entry() -> None:
    """Gradient 1 throughout: m = 1 - .9^t, v = 1 - .99^t; entry 1 is reborn after three steps."""
    p = nn.Parameter(torch.zeros(2, dtype=torch.float64))
    optimizer = surgery.PublishedAdam([p], lr=0.5, betas=(0.9, 0.99), eps=0.0)

    def change(t: int) -> float:
        return -0.5 * (1 - 0.99**t) * (1 - 0.9**t) / (1 - 0.99**t) ** 0.5

    steps = []
    for t in range(1, 7):
        before = p.detach().clone()
        p.grad = torch.ones_like(p)
        optimizer.step()
        steps.append((p.detach() - before).tolist())
        if t == 3:
            surgery.forget_([optimizer], p, 0, torch.tensor([1]))
    for t, (old, reborn) in enumerate(steps, 1):
        assert old == pytest.approx(change(t))
        assert reborn == pytest.approx(change(t if t <= 3 else t - 3))
    assert change(1) == pytest.approx(-0.5 * 0.01)  # Adam's own first step is lr itself
    with pytest.raises(ValueError, match="betas below 1"):
        surgery.PublishedAdam([p], betas=(0.9, 1.0))


@pytest.mark.parametrize("published", [False, True])
def test_a_newborns_weight_from_a_newborn(published: bool) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2))
    optimizer = surgery.PublishedAdam(net.parameters(), lr=1e-3)
    cbp = surgery.ContinualBackprop(surgery.find(net), optimizer, rate=0.5, maturity=1, layer_by_layer=published)
    for _ in range(2):
        optimizer.zero_grad()
        net(torch.randn(4, 3)).square().mean().backward()
        optimizer.step()
        gone = cbp.step()
    assert gone.keys() == {"0", "2"}
    between = net[2].weight[gone["2"]][:, gone["0"]]
    assert between.all() if published else not between.any()
    assert not net[4].weight[:, gone["2"]].any()
    others = [i for i in range(6) if i not in gone["2"]]
    assert not net[2].weight[others][:, gone["0"]].any()
