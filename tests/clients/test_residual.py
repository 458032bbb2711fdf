"""A residual convolutional net in the manner of torchvision's: batch norm, shortcuts, downsampling, no conv biases."""

import torch
from torch import Tensor, nn

from continual_agents import surgery
from tests.clients.promises import Plan, Promises
from tests.helpers import descend


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with batch norm around a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += identity
        return self.relu(out)


class SmallResNet(nn.Module):
    """Stem, two stages, global pooling, linear head."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = BasicBlock(8, 8)
        self.layer2 = BasicBlock(8, 16, stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(16, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer2(self.layer1(x))
        return self.fc(torch.flatten(self.avgpool(x), 1))


def norm(name: str) -> dict[str, float]:
    return {f"{name}.weight": 1.0, f"{name}.bias": 0.0, f"{name}.running_mean": 0.0, f"{name}.running_var": 1.0}


def within(width: int, block: str) -> Plan:
    made, read = {f"{block}.conv1.weight": 1}, {f"{block}.conv2.weight": 1}
    return Plan(width, made, read, norm(f"{block}.bn1"), {f"{block}.bn2.running_mean": ""})


PLANS = [  # a convolution without bias hands the mean on to the running mean of the norm behind it
    Plan(
        8,
        {"conv1.weight": 1, "layer1.conv2.weight": 1},
        {"layer1.conv1.weight": 1, "layer2.conv1.weight": 1, "layer2.downsample.0.weight": 1},
        norm("bn1") | norm("layer1.bn2"),
        {"layer1.bn1.running_mean": "", "layer2.bn1.running_mean": "", "layer2.downsample.1.running_mean": ""},
    ),
    within(8, "layer1"),
    within(16, "layer2"),
    Plan(
        16,
        {"layer2.conv2.weight": 1, "layer2.downsample.0.weight": 1},
        {"fc.weight": 1},
        norm("layer2.bn2") | norm("layer2.downsample.1"),
        {"fc.bias": "fc.weight"},
    ),
]


def pictures(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Stripes in four directions, in noise."""
    labels = torch.randint(4, (32,), generator=generator)
    row, column = torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij")
    stripes = torch.stack([row % 2, column % 2, (row + column) % 2, (row // 2 + column // 2) % 2]).float()
    noise = torch.randn(32, 3, 8, 8, generator=generator)
    return stripes[labels][:, None] + noise, labels


def test_residual_net_with_batch_norm() -> None:
    torch.manual_seed(0)
    net = SmallResNet()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.02, momentum=0.9)
    units = surgery.find(net)
    layers = dict(net.named_modules())
    plans = {}
    for plan in PLANS:  # every hidden layer; residual streams are one group
        makers = {layers[name.rpartition(".")[0]] for name in plan.rows}
        plans[next(u.name for u in units if set(u.incoming) == makers)] = plan
    assert len(units) == len(plans) == 4
    assert "fc" in units.left_out
    cbp = surgery.ContinualBackprop(units, optimizer, rate=2e-3, maturity=40, decay=0.0)
    promises = Promises(net, optimizer, cbp, plans)
    generator = torch.Generator().manual_seed(1)
    losses = []
    for _ in range(300):
        x, labels = pictures(generator)
        loss = nn.functional.cross_entropy(net(x), labels)
        losses.append(descend(loss, optimizer, cbp).item())
    promises.finish(losses, at_least=3)
    net.eval()
    x, labels = pictures(generator)
    assert (net(x).argmax(1) == labels).float().mean() > 0.5, "running statistics fit the new units in evaluation too"
