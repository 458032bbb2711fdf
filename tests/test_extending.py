"""The recipes of docs/extending.md, run from a folder outside the project."""

import re
import shlex
from pathlib import Path

import pandas as pd
import pytest

from tests.helpers import ROOT, elsewhere

TEXT = (ROOT / "docs/extending.md").read_text()
FILES = {block.split()[1]: block for block in re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)}
SETTINGS = {block.split()[1]: block for block in re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)}
COMMANDS = [command.replace("\\\n", " ") for command in re.findall(r"```bash\n(.*?)```", TEXT, re.DOTALL)]


def test_a_sweep_over_a_method_and_an_experiment_of_ones_own(tmp_path: Path) -> None:
    for name, text in SETTINGS.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (command,) = (one for one in COMMANDS if "--config-dir" in one)
    told = elsewhere(tmp_path, *shlex.split(command)[1:]).stdout
    assert "| stronger l2, step size 0.001 " in told
    assert "figure_sweep.png" in [path.name for path in tmp_path.glob("runs/swing_up/demo/*")]
    assert len(list(tmp_path.glob("runs/swing_up/demo/*/step_size=*/seed_0/metrics.csv"))) == 4


@pytest.mark.parametrize(
    "command",
    [command for command in COMMANDS if "--config-dir" not in command],
    ids=lambda command: command.split()[-1].split("/")[-1],
)
def test_what_is_ones_own_trains_from_another_folder(tmp_path: Path, command: str) -> None:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    elsewhere(tmp_path, *shlex.split(command)[1:])
    (folder,) = {path.parent for path in tmp_path.glob("runs/**/metrics.csv")}
    rows = pd.read_csv(folder / "metrics.csv")
    match folder.name:
        case "decay_to_mean" | "rotating":
            assert rows["accuracy"].notna().all()
            # what acts every ten steps leaves native code what lies between
            assert pd.read_csv(folder / "runs.csv")["code"].unique().tolist() == ["native"]
        case "tilting":
            assert rows["task/index"].max() == 6  # 2,048 steps, 300 a task: announced by the environment
            assert rows["return/mean"].notna().any()
        case "sparsity":
            assert rows["plasticity/sparsity"].dropna().between(0.1, 0.9).any()
        case "reinforce":
            assert rows["loss/policy"].notna().all()
            assert rows["step"].max() == 2048
        case _:
            pytest.fail(f"{command} is not looked at")


def test_every_file_that_the_page_names_is_there() -> None:
    places = re.findall(r"`((?:continual_agents|envs|supervised|tools|configs|tests)/[\w/]+\.\w+)`", TEXT)
    assert len(places) > 15
    assert [place for place in places if "NAME" not in place and not (ROOT / place).exists()] == []


def test_an_activation_of_ones_own_builds_for_agents_and_stacks(tmp_path: Path) -> None:
    code = """
import torch
from continual_agents.methods import Method
from continual_agents.networks import mlp
from supervised.networks import Mlp
from supervised.stacked.learner import StackedLearner

print(mlp(3, 2, hidden=[4], activation="snake", generator=torch.Generator())[1])
method = Method(name="x", optimizer={"kind": "sgd", "step_size": 0.01})
learner = StackedLearner(Mlp(inputs=3, outputs=1, hidden=(4,), activation="snake"), [method], [0], loss="squared_error")
print(learner.learn(torch.ones(50, 1, 1, 3), torch.ones(50, 1, 1, 1))[-1] < 0.1)
"""
    assert elsewhere(tmp_path, "-c", FILES["snake.py"] + code).stdout.split() == ["Snake()", "tensor([True])"]
