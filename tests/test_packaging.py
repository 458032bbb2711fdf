"""The wheel in an environment of its own, used from a folder of the user's far from the checkout."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from campaigns.wheel import ROOMS, rewritten
from tools.commands import COMMANDS

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"  # a copy, so that the build leaves nothing in the checkout
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("continual_agents", "campaigns", *ROOMS):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(source)]
    subprocess.run(build, check=True, capture_output=True, timeout=120)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs' folder of an environment with this wheel; what it depends on is borrowed, nothing is downloaded."""
    environment = tmp_path_factory.mktemp("installed")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    (packages,) = environment.glob("lib/python*/site-packages")
    (packages / "borrowed.pth").write_text(sysconfig.get_path("purelib"))
    python = environment / "bin/python"
    pip = [sys.executable, "-m", "pip", "--quiet", "--python", str(python), "install", "--no-deps", "--no-index"]
    subprocess.run([*pip, str(wheel)], check=True)
    return python.parent


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A working folder whose own packages have the names of the project's rooms."""
    for room in ("envs", "tools", "supervised"):
        (tmp_path / room).mkdir()
        (tmp_path / room / "__init__.py").write_text("raise ImportError('this is the user\\'s')")
    return tmp_path


def run(folder: Path, *command: str) -> str:
    settings = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        command, cwd=folder, env=settings, check=True, text=True, stdout=subprocess.PIPE, timeout=120
    ).stdout


def test_the_only_top_level_name_is_the_librarys(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        texts = {name: archive.read(name).decode() for name in names if name.endswith(".py")}
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"continual_agents"}
    for name in ("py.typed", "configs/train.yaml", "supervised/stacked/native.c", "tools/published.yaml"):
        assert f"continual_agents/{name}" in names
    assert not [name for name in names if re.search(r"/(benchmark|campaigns|chaos|site|soak|wheel)\b", name)]
    foreign = [
        (name, module)
        for name, text in texts.items()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Import | ast.ImportFrom) and not getattr(node, "level", 0)
        for module in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [one.name for one in node.names])
        if module.split(".")[0] in (*ROOMS, "campaigns", "tests")
    ]
    assert not foreign
    assert not [name for name, text in texts.items() if "python -m tools" in text]


def test_every_module_imports(installed: Path, elsewhere: Path) -> None:
    code = (
        "import pkgutil, importlib, continual_agents as package;"
        "names = [one.name for one in pkgutil.walk_packages(package.__path__, 'continual_agents.')];"
        "[importlib.import_module(name) for name in names if not name.endswith('__main__')];"
        "import sys; print(len(names), {'envs', 'tools', 'supervised'} & set(sys.modules))"
    )
    count, _, others = run(elsewhere, str(installed / "python"), "-c", code).partition(" ")
    assert int(count) > 150
    assert others == "set()\n"


@pytest.mark.parametrize("first", ["gymnasium", "continual_agents.surgery"])
def test_gymnasium_makes_the_ant_whichever_is_imported_first(installed: Path, elsewhere: Path, first: str) -> None:
    code = (
        f"import {first}, sys; early = 'pybullet' in sys.modules;"
        "import gymnasium; ant = gymnasium.make('continual_agents:SlipperyAnt-v0'); ant.reset(seed=0);"
        "print(early, ant.step(ant.action_space.sample())[0].shape, type(ant.unwrapped).__module__); ant.close()"
    )
    printed = run(elsewhere, str(installed / "python"), "-c", code)
    assert printed == "False (28,) continual_agents.envs.slippery_ant\n"


def test_train_from_the_wheel_writes_tensorboard(installed: Path, elsewhere: Path) -> None:
    for words in (["init", "-q"], ["-c", "user.name=me", "-c", "user.email=me", "commit", "-qm", "x", "--allow-empty"]):
        subprocess.run(["git", *words], cwd=elsewhere, check=True)  # a repository of the user's
    command = str(installed / "continual-agents")
    told = run(elsewhere, command, "train", "experiment=slippery_ant", "scale=smoke", "folder=runs/mine", "seed=3")
    assert "TensorBoard: tensorboard --logdir runs/mine" in told
    assert "continual-agents report runs/mine" in told
    assert list((elsewhere / "runs/mine").glob("events.out.tfevents.*"))
    assert (elsewhere / "runs/mine/figure.png").exists()
    assert json.loads((elsewhere / "runs/mine/environment.json").read_text())[0]["git"] is None


def test_the_command_lists_what_there_is(installed: Path, elsewhere: Path) -> None:
    told = run(elsewhere, str(installed / "continual-agents"))
    assert all(f"  {name} " in told for name in COMMANDS)
    assert "continual-agents train experiment=" in run(elsewhere, str(installed / "continual-agents"), "train", "-h")
    wrong = [str(installed / "python"), "-m", "continual_agents", "trian"]
    failed = subprocess.run(wrong, cwd=elsewhere, capture_output=True, text=True)
    assert (failed.returncode, failed.stderr) == (2, "error: 'trian' is no command; did you mean train?\n")


def test_what_is_rewritten() -> None:
    written = (
        "from tools.text import message\n    import envs\n>>> from supervised import train\nimport torch, tools_x\n"
    )
    assert rewritten(written) == (
        "from continual_agents.tools.text import message\n    from continual_agents import envs\n"
        ">>> from continual_agents.supervised import train\nimport torch, tools_x\n"
    )
    said = "run python -m tools.report; pip install --constraint constraints.txt -e '.[rl]'"
    assert rewritten(said) == "run continual-agents report; pip install 'continual-agents[rl]'"
    assert rewritten("environment.envs, from toolsmith import x") == "environment.envs, from toolsmith import x"


def test_a_checkout_has_the_command_too(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    told = subprocess.run(
        [sys.executable, "-m", "continual_agents"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert told.stdout.startswith("usage: continual-agents COMMAND")


@pytest.mark.parametrize("present", [False, True])
def test_make_sets_up_with_uv_where_it_is_present(tmp_path: Path, present: bool) -> None:
    for name in ("make", "sh", "bash", "env"):
        (tmp_path / name).symlink_to(str(shutil.which(name)))
    if present:
        (tmp_path / "uv").write_text("#!/bin/sh\n")
        (tmp_path / "uv").chmod(0o755)
    dry = ["make", "--dry-run", "--always-make", "--no-print-directory", "run", f"VENV={tmp_path}/venv"]
    told = subprocess.run(dry, cwd=ROOT, env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=True).stdout
    uv = f"{tmp_path}/uv"
    assert (f"{uv} venv --python 3.11 {tmp_path}/venv" in told) is present
    assert (
        f"{uv} pip install --python {tmp_path}/venv/bin/python --constraint constraints.txt --editable" in told
    ) is present
    assert ("python3.11 -m venv" in told) is not present
