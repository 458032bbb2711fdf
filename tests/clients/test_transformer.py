"""Small transformer encoders: torch's own layer, and a block written by hand whose residual stream is one group."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from continual_agents import surgery
from tests.clients.promises import Plan, Promises, linear_plan
from tests.helpers import descend


class Encoder(nn.Module):
    """torch.nn.TransformerEncoderLayer twice between an embedding and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(3, 16)
        layer = nn.TransformerEncoderLayer(16, 2, 24, 0.0, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(16, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(self.embed(x)).mean(1))


class Block(nn.Module):
    """Pre-norm attention and MLP."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 24), nn.Linear(24, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(batch, length, 3, 2, width // 2).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape)
        x = x + self.out(attended)
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Handwritten(nn.Module):
    """Two blocks written by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.blocks = nn.Linear(3, 16), nn.Sequential(Block(16), Block(16))
        self.head = nn.Linear(16, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.embed(x)).mean(1))


def train(net: nn.Module, optimizer: torch.optim.Optimizer, cbp: surgery.ContinualBackprop, steps: int) -> list[float]:
    """Learn the largest first component and the mean size of the second, over the positions."""
    generator = torch.Generator().manual_seed(1)
    losses = []
    for _ in range(steps):
        x = torch.randn(32, 5, 3, generator=generator)
        target = (x[:, :, 0].amax(1) + x[:, :, 1].abs().mean(1))[:, None]
        losses.append(descend(F.mse_loss(net(x), target), optimizer, cbp).item())
    return losses


MLPS = {
    Encoder: [(f"encoder.layers.{i}.linear1", f"encoder.layers.{i}.linear2") for i in (0, 1)],
    Handwritten: [(f"blocks.{i}.up", f"blocks.{i}.down") for i in (0, 1)],
}


@pytest.mark.parametrize("kind", [Encoder, Handwritten])
def test_the_mlp_blocks_of_a_transformer(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    net = kind()
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)
    found = surgery.find(net, torch.randn(2, 5, 3))
    assert "head" in found.left_out
    plans = {maker: linear_plan(maker, reader, 24) for maker, reader in MLPS[kind]}
    cbp = surgery.ContinualBackprop([u for u in found if u.name in plans], optimizer, rate=5e-4, maturity=40, decay=0.0)
    assert [u.name for u in cbp.units] == list(plans)
    promises = Promises(net, optimizer, cbp, plans)
    promises.finish(train(net, optimizer, cbp, 300), at_least=3)


def test_the_residual_stream_is_one_group() -> None:
    torch.manual_seed(0)
    net = Handwritten()
    optimizer = surgery.Adam(net.parameters(), lr=3e-3)
    found = surgery.find(net, torch.randn(2, 5, 3))
    stream = next(u for u in found if u.width == 16)
    makers = ["embed", *(f"blocks.{i}.{layer}" for i in (0, 1) for layer in ("out", "down"))]
    readers = [*(f"blocks.{i}.{layer}" for i in (0, 1) for layer in ("qkv", "up")), "head"]
    norms = [f"blocks.{i}.{norm}" for i in (0, 1) for norm in ("norm1", "norm2")]
    plan = Plan(
        16,
        {f"{name}.{tensor}": 1 for name in makers for tensor in ("weight", "bias")},
        {f"{name}.weight": 1 for name in readers},
        {f"{name}.{tensor}": value for name in norms for tensor, value in (("weight", 1.0), ("bias", 0.0))},
        {f"{name}.bias": f"{name}.weight" for name in readers},
    )
    cbp = surgery.ContinualBackprop(stream, optimizer, rate=5e-4, maturity=40, decay=0.0)
    promises = Promises(net, optimizer, cbp, {stream.name: plan})
    promises.finish(train(net, optimizer, cbp, 300), at_least=2, share=0.9)
