"""timm's networks, small: what is found, the leak test and the mean at the readers for every layer that is offered."""

import pytest
import torch
from torch import nn

from continual_agents import surgery
from tests.clients.stand_in import torchvision
from tests.surgery.checks import check

with torchvision():
    timm = pytest.importorskip("timm", exc_type=ModuleNotFoundError)
    from timm.models._efficientnet_builder import decode_arch_def
    from timm.models.convnext import ConvNeXt
    from timm.models.densenet import DenseNet
    from timm.models.efficientnet import EfficientNet
    from timm.models.mlp_mixer import MlpMixer
    from timm.models.resnet import BasicBlock, ResNet
    from timm.models.vision_transformer import VisionTransformer

BLOCKS = [["ds_r1_k3_s1_e1_c8_se0.25"], ["ir_r2_k3_s2_e3_c12_se0.25"]]
NETS = {
    "resnet": lambda: ResNet(BasicBlock, (1, 2, 1, 1), num_classes=3, channels=(6, 8, 8, 10)),
    "densenet": lambda: DenseNet(growth_rate=4, block_config=(2, 2), num_classes=3),
    "efficientnet": lambda: EfficientNet(decode_arch_def(BLOCKS), num_classes=3, stem_size=8, num_features=16),
    "convnext": lambda: ConvNeXt(num_classes=3, depths=(1, 2, 1, 1), dims=(6, 8, 10, 12)),
    "vit": lambda: VisionTransformer(16, 8, embed_dim=12, depth=2, num_heads=2, mlp_ratio=2, num_classes=3),
    "mixer": lambda: MlpMixer(num_classes=3, img_size=16, patch_size=8, num_blocks=2, embed_dim=12),
}
FOUND = {  # groups of units, and layers in them
    "resnet": (10, 15),
    "densenet": (10, 10),
    "efficientnet": (8, 16),
    "convnext": (9, 19),
    "vit": (2, 2),
    "mixer": (4, 4),
}


@pytest.mark.parametrize("name", NETS)
def test_every_layer_that_is_offered_keeps_the_promises(name: str) -> None:
    torch.manual_seed(0)
    net = NETS[name]().eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.3, 0.3)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    side = 32 if name == "convnext" else 16
    x = torch.randn(2, 3, side, side)
    found = surgery.find(net, x)
    for units in found:
        check(net, units, [0, units.width - 1], lambda: net(x))
    if name == "convnext":  # its layer scales are gains of the units they scale
        assert {slot.name for slot in found[0].normed} == {"gamma", "weight", "bias"}
    assert (len(found), sum(len(units.incoming) for units in found)) == FOUND[name], found
