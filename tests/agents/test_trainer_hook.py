"""`SurgeryHook` under TorchRL's stock Trainer: the guide's scripts, at tiny sizes, and what the hook promises."""

import functools
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.core.config_store import ConfigStore
from torch import nn
from torchrl.modules import QValueActor, ValueOperator
from torchrl.objectives import ClipPPOLoss, DQNLoss
from torchrl.record import TensorboardLogger

from continual_agents import surgery
from continual_agents.agents.trainer_hook import SurgeryHook
from tests.clients.test_torchrl import Critic, make_actor, make_sac, play

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "torchrl.md"
SCRIPTS = dict(re.findall(r"## (\w+)\n.*?```python\n(.*?)```", GUIDE.read_text(), re.S))
SIZES = {"PPO": (96, 32, 16, 2), "DQN": (96, 16, 8, 32), "SAC": (96, 16, 8, 32)}
STEPS = {"PPO": 3 * 2 * 2, "DQN": 5 * 16, "SAC": 5 * 16}


@pytest.fixture
def torchrl_store() -> Iterator[None]:
    """Hydra's one store holds TorchRL's configurations for these tests alone: their `logger/tensorboard` would meet the
    project's own in every later test of the process."""
    repo = ConfigStore.instance().repo
    before = set(repo)
    importlib.import_module("continual_agents.agents.trainer_config")  # registers them, the first time
    repo.update(SET_ASIDE)
    yield
    SET_ASIDE.update({group: repo.pop(group) for group in set(repo) - before - {"hydra"}})


SET_ASIDE: dict[str, Any] = {}


def made(kind: str, train: bool = True) -> dict[str, Any]:
    """The names of a script that ran at a tiny size; or stopped before its `trainer.train()`."""
    torch.manual_seed(0)
    code, count = re.subn(r"(FRAMES, .* = ).*", rf"\g<1>{SIZES[kind]}", SCRIPTS[kind])
    assert count == 1
    code = re.sub(r"interval=100", "interval=2", code).replace("rate=1e-4, maturity=1000", "rate=0.02, maturity=3")
    code = code.replace("Probe(networks))", "Probe(networks), interval=2)")
    names: dict[str, Any] = {"__name__": kind}
    exec(compile(code if train else code.replace("trainer.train()", ""), f"{GUIDE} {kind}", "exec"), names)
    return names


@pytest.mark.parametrize("kind", SIZES)
def test_the_guides_scripts(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(SCRIPTS[kind].splitlines()) < 60
    logged: dict[str, list[int]] = {}

    def log(self: Any, name: str, value: float, step: int | None = None) -> None:
        logged.setdefault(name, []).append(int(step or 0))

    monkeypatch.setattr(TensorboardLogger, "log_scalar", log)
    names = made(kind)
    cbp, trainer = names["cbp"], names["trainer"]
    assert cbp.steps == STEPS[kind] == trainer._optim_count
    replaced = cbp.report()
    assert all(replaced[f"replaced/{layer.units.name}"] > 0 for layer in cbp.layers)
    looks = [64] if kind == "PPO" else [32, 64, 96]
    assert logged["surgery/replaced"] == looks
    assert logged[f"plasticity/dead_units/{cbp.layers[0].units.name}"] == looks

    again = made(kind, train=False)
    assert again["cbp"].steps == 0
    again["trainer"].load_from_file(f"runs/{kind.lower()}_trainer")
    torch.testing.assert_close(again["cbp"].state_dict(), cbp.state_dict(), rtol=0, atol=0)
    for old, new in zip(names["loss"].parameters(), again["loss"].parameters(), strict=True):
        assert (old == new).all()


def small() -> tuple[nn.Sequential, torch.optim.Optimizer, surgery.ContinualBackprop]:
    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    return net, optimizer, surgery.ContinualBackprop(surgery.find(net), optimizer)


def test_what_is_refused() -> None:
    _, _, cbp = small()
    with pytest.raises(ValueError, match="interval=0"):
        SurgeryHook(cbp, interval=0)
    with pytest.raises(TypeError, match=r"SurgeryHook wants companions, Linear has no step\(\)"):
        SurgeryHook(nn.Linear(1, 1))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="of 1 companions, SurgeryHook has 2"):
        SurgeryHook([cbp, small()[2]]).load_state_dict(SurgeryHook(cbp).state_dict())


def test_without_a_batch_there_is_nothing_to_probe() -> None:
    """As asynchronous collection calls it."""
    _, _, cbp = small()
    hook = SurgeryHook(cbp, probe=lambda _: pytest.fail("probed"), interval=2)  # type: ignore[arg-type]
    assert hook.look(None) is None
    assert set(hook.look(None) or ()) == {f"surgery/{name}" for name in (*cbp.report(), "replaced", "eligible")}


@pytest.mark.filterwarnings(
    "ignore:DQNTrainer is an experimental:UserWarning", "ignore::FutureWarning"
)  # TorchRL's own
def test_torchrls_hydra_configuration_of_the_guide(torchrl_store: None, tmp_path: Path) -> None:
    text = re.findall(r"## Hydra\n.*?```yaml\n(.*?)```", GUIDE.read_text(), re.S)[0]
    small = {"50_000": "96", "1_000}": "3}", "1_000": "16", "1.0e-4": "0.02", "interval: 100": "interval: 2"}
    for name, value in small.items():
        assert name in text
        text = text.replace(name, value)
    (tmp_path / "dqn.yaml").write_text(text)
    exec(re.findall(r"## Hydra\n.*?```python\n(.*?)\n\n\n", GUIDE.read_text(), re.S)[0], {})
    from hydra import compose, initialize_config_dir
    from hydra.utils import instantiate

    torch.manual_seed(0)
    with initialize_config_dir(str(tmp_path), version_base="1.3"):
        config = compose("dqn", ["trainer.progress_bar=false"])
    trainer = instantiate(config.trainer)
    hook = trainer._modules["surgery"]  # what the Trainer saves with itself
    before = {name: value.clone() for name, value in trainer.loss_module.named_parameters()}
    trainer.train()
    report = hook.companions[0].report()
    assert hook.companions[0].steps == trainer._optim_count > 50
    assert report["replaced/value_network.0"] > 0
    assert report["replaced/value_network.2"] > 0
    assert any((value != before[name]).any() for name, value in trainer.loss_module.named_parameters())


class Registrar:
    """As much of a Trainer as a hook meets when it registers."""

    def __init__(self, loss: Any, optimizer: Any):
        self.loss_module, self.optimizer, self.ops = loss, optimizer, []

    def register_module(self, name: str, module: Any) -> None:
        pass

    def register_op(self, stage: str, op: Any) -> None:
        self.ops.append((stage, op))


def test_what_a_loss_trains_is_found_plain_or_stacked(torchrl_store: None) -> None:
    from continual_agents.agents.trainer_config import LossSurgery

    torch.manual_seed(0)
    for loss, expected, probed in (
        (ClipPPOLoss(make_actor(), ValueOperator(Critic(3).net, in_keys=["observation"])), 4, 2),
        (make_sac()[2], 2 + 2 * 2, 1),
    ):
        optimizer = torch.optim.Adam(loss.parameters())
        hook = LossSurgery(functools.partial(surgery.ContinualBackprop, rate=0.5, maturity=1), interval=1)
        trainer = Registrar(loss, optimizer)
        hook.register(trainer)  # type: ignore[arg-type]
        assert [stage for stage, _ in trainer.ops] == ["post_optim", "post_steps_log"]
        assert len(hook.companions[0].layers) == expected  # type: ignore[attr-defined]
        batch = play(make_actor(), 8, torch.Generator().manual_seed(1))
        numbers = hook.look(batch)
        assert numbers is not None
        dead = [name for name in numbers if name.startswith("plasticity/dead_units/")]
        assert len(dead) == 2 * probed
    linear = QValueActor(nn.Linear(3, 2), in_keys=["observation"], action_space="categorical")
    loss = DQNLoss(linear, action_space="categorical", delay_value=True)
    with pytest.raises(ValueError, match="DQNLoss trains no hidden layer that surgery finds"):
        LossSurgery(surgery.ContinualBackprop).register(Registrar(loss, None))  # type: ignore[arg-type]
