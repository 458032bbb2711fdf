"""The networks that surgery's tests share, each with the entries that a unit owns, written down by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass
class Case:
    """A network, an input, the units under test and what unit i owns: parameter name -> index into it."""

    make: Callable[[], nn.Module]
    inputs: Callable[[torch.Generator], Tensor]
    units: str
    made: Callable[[int], dict]  # in-weights, biases, norms
    read: Callable[[int], dict]  # out-weights


def network(forward: Callable, **parts: object) -> nn.Module:
    """A network of these parts, made in this order; `forward(net, x)` is its pass."""
    net = type("Network", (nn.Module,), {"forward": forward})()
    for name, part in parts.items():
        setattr(net, name, part)
    return net


class Recurrent(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.rnn = getattr(nn, kind)(3, 5, batch_first=True)
        self.head = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x)[0])


class DeepRecurrent(nn.Module):
    """Two layers of recurrence; the head reads the last one's last state."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.rnn = getattr(nn, kind)(3, 5, num_layers=2, batch_first=True)
        self.head = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        state = self.rnn(x)[1]
        return self.head(state[0][-1] if isinstance(state, tuple) else state[-1])


class Cell(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.cell = getattr(nn, kind)(3, 5)
        self.head = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        state = None
        for t in range(x.shape[1]):
            state = self.cell(x[:, t], state)
        return self.head(state[0] if isinstance(state, tuple) else state)


class Residual(nn.Module):
    """A residual block with batch norm, as in torchvision's ResNets."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(n_out)
        self.down = nn.Conv2d(n_in, n_out, 1, bias=False) if n_in != n_out else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + (x if self.down is None else self.down(x)))


def resnet() -> nn.Module:
    def forward(net: nn.Module, x: Tensor) -> Tensor:
        return net.head(F.adaptive_avg_pool2d(net.blocks(F.relu(net.stem(x))), 1).flatten(1))

    blocks = {"stem": nn.Conv2d(3, 6, 3, padding=1), "blocks": nn.Sequential(Residual(6, 6), Residual(6, 8))}
    return network(forward, **blocks, head=nn.Linear(8, 4))


def transformer() -> nn.Module:
    embed, layer = nn.Linear(3, 8), nn.TransformerEncoderLayer(8, 2, 12, dropout=0.0, batch_first=True)
    parts = {"embed": embed, "encoder": nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)}
    return network(lambda net, x: net.head(net.encoder(net.embed(x))), **parts, head=nn.Linear(8, 2))


def heads() -> nn.Module:
    """One trunk, two heads that read it differently, and a skip connection that is concatenated."""

    def forward(net: nn.Module, x: Tensor) -> Tensor:
        h = F.relu(net.trunk(x))
        return net.left(h) + net.right(torch.cat([x, torch.tanh(h)], -1))

    return network(forward, trunk=nn.Linear(3, 6), left=nn.Linear(6, 2), right=nn.Linear(3 + 6, 2))


def gated() -> nn.Module:
    """Two layers whose units are multiplied: value and gate of a unit belong together."""
    parts = {"value": nn.Linear(3, 6), "gate": nn.Linear(3, 6), "out": nn.Linear(6, 2)}
    return network(lambda net, x: net.out(net.value(x) * torch.sigmoid(net.gate(x))), **parts)


class Squeeze(nn.Module):
    """A squeeze-and-excite block, whose gate is made by other layers, and a bare gain."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.out = nn.Conv2d(2, 6, 3, padding=1), nn.Conv2d(6, 3, 1)
        self.down, self.up = nn.Conv2d(6, 4, 1), nn.Conv2d(4, 6, 1)
        self.gain = nn.Parameter(torch.full((6, 1, 1), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv(x))
        gate = torch.sigmoid(self.up(F.relu(self.down(x.mean((2, 3), keepdim=True)))))
        return self.out(x * gate * self.gain)


class Functional(nn.Module):
    """A norm in function form, whose entries have names of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, 6), nn.Linear(6, 2)
        self.scale, self.shift = nn.Parameter(torch.rand(6)), nn.Parameter(torch.rand(6))
        self.register_buffer("middle", torch.rand(6))
        self.register_buffer("spread", torch.rand(6))

    def forward(self, x: Tensor) -> Tensor:
        h = F.batch_norm(self.a(x), self.middle, self.spread, self.scale, self.shift, self.training)
        return self.b(F.relu(h))


def concatenated() -> nn.Module:
    """Concatenated ReLU: every unit is read twice."""

    def forward(net: nn.Module, x: Tensor) -> Tensor:
        h = net.hidden(x)
        return net.out(F.relu(torch.cat([h, -h], -1)))

    return network(forward, hidden=nn.Linear(3, 4), out=nn.Linear(8, 2))


def gates(i: int, n: int, width: int = 5) -> list[int]:
    return [i + k * width for k in range(n)]


def recurrent(n: int, suffix: str = "_l0", name: str = "rnn") -> tuple[Callable, Callable]:
    def made(i: int) -> dict:
        parts = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        return {f"{name}.{part}{suffix}": gates(i, n) for part in parts}

    def read(i: int) -> dict:
        return {f"{name}.weight_hh{suffix}": (slice(None), i), "head.weight": (slice(None), i)}

    return made, read


def normal(*shape: int) -> Callable[[torch.Generator], Tensor]:
    return lambda generator: torch.randn(shape, generator=generator)


ALL = slice(None)
BATCH_NORM = ("weight", "bias", "running_mean", "running_var")
STREAM = ("stem.weight", "stem.bias", "blocks.0.conv2.weight", *(f"blocks.0.bn2.{name}" for name in BATCH_NORM))

CASES: dict[str, Case] = {
    "mlp": Case(
        lambda: nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2)),
        normal(16, 3),
        "0",
        lambda i: {"0.weight": i, "0.bias": i},
        lambda i: {"2.weight": (ALL, i)},
    ),
    "batch norm": Case(
        lambda: nn.Sequential(nn.Linear(3, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.0), nn.Linear(6, 2)),
        normal(16, 3),
        "0",
        lambda i: dict.fromkeys(("0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var"), i),
        lambda i: {"4.weight": (ALL, i)},
    ),
    "layer norm": Case(
        lambda: nn.Sequential(nn.Linear(3, 6), nn.LayerNorm(6), nn.ReLU(), nn.Linear(6, 2)),
        normal(16, 3),
        "0",
        lambda i: {"0.weight": i, "0.bias": i, "1.weight": i, "1.bias": i},
        lambda i: {"3.weight": (ALL, i)},
    ),
    "conv2d flatten": Case(
        lambda: nn.Sequential(nn.Conv2d(2, 6, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(6 * 4, 2)),
        normal(8, 2, 6, 6),
        "0",
        lambda i: {"0.weight": i, "0.bias": i},
        lambda i: {"4.weight": (ALL, slice(4 * i, 4 * i + 4))},
    ),
    "conv2d conv2d": Case(
        lambda: nn.Sequential(
            nn.Conv2d(2, 6, 3), nn.GroupNorm(2, 6), nn.ReLU(), nn.Conv2d(6, 3, 3, stride=2, padding=1)
        ),
        normal(8, 2, 7, 7),
        "0",
        lambda i: {"0.weight": i, "0.bias": i, "1.weight": i, "1.bias": i},
        lambda i: {"3.weight": (ALL, i)},
    ),
    "conv1d": Case(
        lambda: nn.Sequential(
            nn.Conv1d(2, 6, 3), nn.GELU(), nn.AvgPool1d(2), nn.Conv1d(6, 3, 2, padding_mode="circular")
        ),
        normal(8, 2, 9),
        "0",
        lambda i: {"0.weight": i, "0.bias": i},
        lambda i: {"3.weight": (ALL, i)},
    ),
    "conv3d": Case(
        lambda: nn.Sequential(nn.Conv3d(1, 6, 2), nn.ReLU(), nn.Conv3d(6, 2, 2)),
        normal(4, 1, 4, 4, 4),
        "0",
        lambda i: {"0.weight": i, "0.bias": i},
        lambda i: {"2.weight": (ALL, i)},
    ),
    "gru": Case(lambda: Recurrent("GRU"), normal(4, 6, 3), "rnn", *recurrent(3)),
    "lstm": Case(lambda: Recurrent("LSTM"), normal(4, 6, 3), "rnn", *recurrent(4)),
    "rnn": Case(lambda: Recurrent("RNN"), normal(4, 6, 3), "rnn", *recurrent(1)),
    "gru cell": Case(lambda: Cell("GRUCell"), normal(4, 6, 3), "cell", *recurrent(3, "", "cell")),
    "lstm cell": Case(lambda: Cell("LSTMCell"), normal(4, 6, 3), "cell", *recurrent(4, "", "cell")),
    "deep gru": Case(lambda: DeepRecurrent("GRU"), normal(4, 6, 3), "rnn", *recurrent(3, "_l1")),
    "deep lstm": Case(lambda: DeepRecurrent("LSTM"), normal(4, 6, 3), "rnn", *recurrent(4, "_l1")),
    "depthwise": Case(
        lambda: nn.Sequential(
            nn.Conv2d(2, 6, 1),
            nn.ReLU(),
            nn.Conv2d(6, 6, 3, groups=6),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.Conv2d(6, 3, 1),
        ),
        normal(8, 2, 5, 5),
        "0",
        lambda i: dict.fromkeys(("0.weight", "0.bias", "2.weight", "2.bias", *(f"3.{name}" for name in BATCH_NORM)), i),
        lambda i: {"5.weight": (ALL, i)},
    ),
    "transposed": Case(
        lambda: nn.Sequential(
            nn.ConvTranspose2d(2, 6, 2, stride=2), nn.ReLU(), nn.ConvTranspose2d(6, 3, 3, stride=2, padding=1)
        ),
        normal(8, 2, 3, 3),
        "0",
        lambda i: {"0.weight": (ALL, i), "0.bias": i},
        lambda i: {"2.weight": i},
    ),
    "transposed 1d": Case(
        lambda: nn.Sequential(nn.ConvTranspose1d(2, 6, 3), nn.Tanh(), nn.ConvTranspose1d(6, 2, 4, 3, 2, 2, dilation=2)),
        normal(8, 2, 5),
        "0",
        lambda i: {"0.weight": (ALL, i), "0.bias": i},
        lambda i: {"2.weight": i},
    ),
    "norm as a function": Case(
        Functional,
        normal(16, 3),
        "a",
        lambda i: dict.fromkeys(("a.weight", "a.bias", "scale", "shift", "middle", "spread"), i),
        lambda i: {"b.weight": (ALL, i)},
    ),
    "squeeze and excite": Case(
        Squeeze,
        normal(4, 2, 4, 4),
        "conv",
        lambda i: dict.fromkeys(("conv.weight", "conv.bias", "up.weight", "up.bias", "gain"), i),
        lambda i: {"out.weight": (ALL, i), "down.weight": (ALL, i)},
    ),
    "residual stream": Case(
        resnet,
        normal(4, 3, 5, 5),
        "stem",
        lambda i: dict.fromkeys(STREAM, i),
        lambda i: dict.fromkeys(("blocks.0.conv1.weight", "blocks.1.conv1.weight", "blocks.1.down.weight"), (ALL, i)),
    ),
    "residual inside": Case(
        resnet,
        normal(4, 3, 5, 5),
        "blocks.1.conv1",
        lambda i: {
            f"blocks.1.{name}": i
            for name in ("conv1.weight", "bn1.weight", "bn1.bias", "bn1.running_mean", "bn1.running_var")
        },
        lambda i: {"blocks.1.conv2.weight": (ALL, i)},
    ),
    "transformer": Case(
        transformer,
        normal(4, 5, 3),
        "encoder.layers.0.linear1",
        lambda i: {"encoder.layers.0.linear1.weight": i, "encoder.layers.0.linear1.bias": i},
        lambda i: {"encoder.layers.0.linear2.weight": (ALL, i)},
    ),
    "heads": Case(
        heads,
        normal(16, 3),
        "trunk",
        lambda i: {"trunk.weight": i, "trunk.bias": i},
        lambda i: {"left.weight": (ALL, i), "right.weight": (ALL, 3 + i)},
    ),
    "gated": Case(
        gated,
        normal(16, 3),
        "value",
        lambda i: dict.fromkeys(("value.weight", "value.bias", "gate.weight", "gate.bias"), i),
        lambda i: {"out.weight": (ALL, i)},
    ),
    "concatenated relu": Case(
        concatenated,
        normal(16, 3),
        "hidden",
        lambda i: {"hidden.weight": i, "hidden.bias": i},
        lambda i: {"out.weight": (ALL, [i, 4 + i])},
    ),
}
