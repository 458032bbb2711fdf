"""A GRU sequence model: a hidden unit owns its rows in every gate and its column in the recurrent matrix."""

import torch
from torch import nn

from continual_agents import surgery
from tests.clients.promises import Plan, Promises
from tests.helpers import descend


class Rememberer(nn.Module):
    """Reads a sequence, says at every step what the first input was."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(2, 12)
        self.gru = nn.GRU(12, 16, batch_first=True)
        self.head = nn.Linear(16, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden, _ = self.gru(torch.relu(self.embed(x)))
        return self.head(hidden)


def test_gru_sequence_model() -> None:
    torch.manual_seed(0)
    net = Rememberer()
    optimizer = surgery.Adam(net.parameters(), lr=5e-3)
    units = surgery.find(net)
    assert [u.name for u in units] == ["embed", "gru"]
    assert "head" in units.left_out
    cbp = surgery.ContinualBackprop(units, optimizer, rate=1e-3, maturity=40, decay=0.0)
    plans = {
        "embed": Plan(
            12,
            {"embed.weight": 1, "embed.bias": 1},
            {"gru.weight_ih_l0": 1},
            {},
            {"gru.bias_ih_l0": "gru.weight_ih_l0"},
        ),
        "gru": Plan(
            16,
            {"gru.weight_ih_l0": 3, "gru.weight_hh_l0": 3, "gru.bias_ih_l0": 3, "gru.bias_hh_l0": 3},
            {"gru.weight_hh_l0": 1, "head.weight": 1},
            {},
            {"gru.bias_hh_l0": "", "head.bias": "head.weight"},
        ),
    }
    promises = Promises(net, optimizer, cbp, plans)
    generator = torch.Generator().manual_seed(1)
    losses = []
    for _ in range(500):
        x = torch.randn(32, 6, 2, generator=generator)
        loss = nn.functional.mse_loss(net(x), x[:, :1].expand(-1, 6, -1))
        losses.append(descend(loss, optimizer, cbp).item())
    promises.finish(losses, at_least=4)
