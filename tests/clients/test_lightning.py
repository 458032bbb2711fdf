"""Lightning's own loop with an attached companion: plain, with accumulation, with clipping."""

import logging
import warnings

import pytest
import torch
from torch import Tensor, nn

from continual_agents import surgery

lightning = pytest.importorskip("lightning", exc_type=ModuleNotFoundError)
pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's advice on workers and loggers

QUIET = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)


class Regression(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))

    def training_step(self, batch: list[Tensor], number: int) -> Tensor:
        (x,) = batch
        return (self.net(x) - x.sum(1, keepdim=True)).square().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        optimizer = surgery.Adam(self.parameters(), lr=1e-2)
        self.cbp = surgery.ContinualBackprop(surgery.find(self.net), optimizer, rate=0.05, maturity=3)
        self.cbp.attach()
        return optimizer


@pytest.mark.parametrize(
    ("settings", "steps"), [({}, 24), ({"accumulate_grad_batches": 3}, 8), ({"gradient_clip_val": 0.1}, 24)]
)
def test_a_companion_attached_in_configure_optimizers(settings: dict, steps: int, tmp_path) -> None:
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    module = Regression()
    data = torch.randn(24, 4, 3, generator=torch.Generator().manual_seed(1)).flatten(0, 1)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(data), batch_size=4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = lightning.Trainer(max_epochs=1, accelerator="cpu", default_root_dir=tmp_path, **QUIET, **settings)
        trainer.fit(module, loader)
    cbp = module.cbp
    assert cbp.steps == trainer.global_step == steps
    assert cbp.layers[0].replaced >= 1
    cbp.detach()
