"""Surgery in TorchRL's Hydra configurations of trainers: importing this module adds `surgery` to the group `hook`.

It needs Hydra, as those configurations do.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModule, TensorDictModuleBase
from torch import nn
from torchrl.objectives import LossModule
from torchrl.trainers import Trainer
from torchrl.trainers.algorithms.configs import ConfigStore
from torchrl.trainers.algorithms.configs.hooks import HookConfig

from continual_agents import surgery
from continual_agents.methods import AfterStep
from continual_agents.plasticity import Probe

from .trainer_hook import SurgeryHook


class LossSurgery(SurgeryHook):
    """A `SurgeryHook` that is made before its Trainer: it finds the networks that the Trainer's loss trains.

    TorchRL's trainers register the hooks of a configuration last, so that targets follow surgery one step later.

    Args:
        companion: (units, optimizer) -> what looks after them, as `functools.partial(ContinualBackprop, rate=1e-4)`.
        probe: also look at the networks, but for stacked critics.
        interval: as of `SurgeryHook`.
    """

    def __init__(
        self,
        companion: Callable[[list[surgery.Units], torch.optim.Optimizer], AfterStep],
        *,
        probe: bool = True,
        interval: int = 10,
    ) -> None:
        super().__init__([], interval=interval)
        self.make, self.looks = companion, probe

    def register(self, trainer: Trainer, name: str = "surgery") -> None:
        """Find the units, then as `SurgeryHook`.

        Raises:
            ValueError: the loss trains nothing that surgery could look after.
        """
        units, networks = networks_of(trainer.loss_module)
        self.companions = [self.make(units, trainer.optimizer)]
        if self.looks and networks:
            self.probe = Probe({name: net for name, (net, _) in networks.items()})
            self.probe_inputs = lambda batch: {
                name: tuple(batch[key] for key in keys) for name, (_, keys) in networks.items()
            }
        super().register(trainer, name)


def networks_of(loss: LossModule) -> tuple[list[surgery.Units], dict[str, tuple[nn.Module, Sequence[Any]]]]:
    """The units of what a loss trains, and its plain networks with the keys that they read.

    Raises:
        ValueError: there are none.
    """
    units: list[surgery.Units] = []
    plain: dict[str, tuple[nn.Module, Sequence[Any]]] = {}
    for name, network in vars(loss).items():
        parameters = getattr(loss, f"{name}_params", None)
        if not isinstance(network, nn.Module) or not isinstance(parameters, TensorDictBase | nn.Module):
            continue
        if parameters.batch_size:  # the members of a stack: [n, ...]
            units += surgery.find(network, parameters=parameters)
            continue
        found = [
            (module.module, module.in_keys)
            for module in network.modules()
            if isinstance(module, TensorDictModule)
            and not isinstance(module.module, TensorDictModuleBase | nn.ModuleList)
        ]
        for number, one in enumerate(found):
            plain[name if len(found) == 1 else f"{name}.{number}"] = one
    if plain:
        units += surgery.find({name: net for name, (net, _) in plain.items()})
    if not units:
        raise ValueError(f"{type(loss).__name__} trains no hidden layer that surgery finds")
    return units, plain


@dataclasses.dataclass
class SurgeryHookConfig(HookConfig):  # type: ignore[misc]
    """Configuration of `LossSurgery`; `companion` is a partial object: `_target_`, and its settings."""

    companion: Any = dataclasses.field(
        default_factory=lambda: {"_target_": "continual_agents.surgery.ContinualBackprop", "_partial_": True}
    )
    probe: bool = True
    interval: int = 10
    _target_: str = f"{__name__}.LossSurgery"

    def __post_init__(self) -> None:
        """As TorchRL's."""
        super().__post_init__()


ConfigStore.instance().store(group="hook", name="surgery", node=SurgeryHookConfig)
