"""The imports that must never exist, read from the sources."""

import ast
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import ROOT
from tools.commands import COMMANDS

ROOMS = ("continual_agents", "envs", "supervised", "tools", "campaigns")
FORBIDDEN = {
    "continual_agents": ("envs", "supervised", "configs", "tools", "campaigns", "hydra"),
    "continual_agents/runs": ("continual_agents.agents", "torchrl", "tensordict", "gymnasium", "pybullet"),
    "continual_agents/plasticity": ("continual_agents.agents", "torchrl", "tensordict", "gymnasium", "pybullet"),
    "envs": ("continual_agents", "supervised", "tools", "campaigns", "torch", "hydra"),
    "supervised": (
        "envs",
        "continual_agents.agents",
        "torchrl",
        "tensordict",
        "gymnasium",
        "tools",
        "campaigns",
        "hydra",
    ),
}


def imports(path: Path) -> set[str]:
    """Every module a file imports, also inside functions; relative imports are resolved."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            found |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return found


def hits(module: str, names: tuple[str, ...]) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in names)


@pytest.mark.parametrize("room", FORBIDDEN)
def test_room_does_not_import_what_is_above_it(room: str) -> None:
    files = sorted((ROOT / room).rglob("*.py"))
    assert files
    bad = [(str(path), module) for path in files for module in imports(path) if hits(module, FORBIDDEN[room])]
    assert not bad


@pytest.mark.parametrize("room", ["tools", "campaigns"])
def test_every_command_and_module_is_in_a_table(room: str) -> None:
    cells = re.findall(r"^\| (.+?) \|", (ROOT / room / "README.md").read_text(), re.MULTILINE)
    named = re.findall(r"`(?:python -m )?(?:(?:tools|campaigns)\.)?(\w+)(?: NAME)?(?:\.py|/)?`", " ".join(cells))
    there = {path.stem for path in (ROOT / room).glob("*.py")} | {
        path.parent.name for path in (ROOT / room).glob("*/__init__.py")
    }
    assert there - {"__init__", "benchmarks"} == set(named)


def test_the_installed_package_has_every_command_of_the_first_table() -> None:
    users = (ROOT / "tools/README.md").read_text().split("What ")[1]
    named = re.findall(r"`(?:python -m )?tools\.(\w+)`", users)
    assert len(named) == len(set(named))
    assert set(named) == set(COMMANDS)


def test_no_users_command_imports_a_maintainers() -> None:
    """But for the older names, which are nothing else and which no one imports."""
    older = {ROOT / "tools" / f"{name}.py" for name in ("benchmark", "chaos", "soak")}
    names = ("campaigns", *(f"tools.{path.stem}" for path in older))
    files = set((ROOT / "tools").rglob("*.py")) - older
    assert not [(str(path), module) for path in files for module in imports(path) if hits(module, names)]
    assert all(len(path.read_text().splitlines()) < 8 for path in older)


@pytest.mark.parametrize("name", ["benchmark", "chaos", "soak"])
def test_older_names_are_the_same_commands(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["", "--help"])
    with pytest.raises(SystemExit):
        runpy.run_module(f"tools.{name}", run_name="__main__", alter_sys=True)
    assert capsys.readouterr().out.startswith(f"usage: python -m campaigns.{name} ")


def test_nothing_imports_the_tests() -> None:
    files = [path for room in ROOMS for path in (ROOT / room).rglob("*.py")]
    assert not [(str(path), module) for path in files for module in imports(path) if hits(module, ("tests",))]


def test_surgery_imports_torch_and_the_standard_library_only() -> None:
    allowed = set(sys.stdlib_module_names) | {"torch"}
    bad = [
        (path.name, module)
        for path in (ROOT / "continual_agents/surgery").rglob("*.py")
        for module in imports(path)
        if not hits(module, ("continual_agents.surgery",)) and module.split(".")[0] not in allowed
    ]
    assert not bad


def test_importing_surgery_loads_no_reinforcement_learning_package() -> None:
    code = (
        "import sys, continual_agents.surgery;"
        "print(sorted({'torchrl', 'tensordict', 'gymnasium', 'pybullet', 'hydra', 'numpy.random'} & set(sys.modules)))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert not {"torchrl", "tensordict", "gymnasium", "pybullet", "hydra"} & set(ast.literal_eval(loaded.stdout))


@pytest.mark.parametrize("room", ["continual_agents/runs", "continual_agents/plasticity"])
def test_no_circle_of_imports(room: str) -> None:
    """Imports inside functions count: a circle that is put off is one."""
    names = {path: f"{room.replace('/', '.')}.{path.stem}" for path in (ROOT / room).glob("*.py")}
    reads = {
        name: {other for other in names.values() if hits(other, tuple(imports(path)))} for path, name in names.items()
    }
    left = {name: others - {name} for name, others in reads.items() if not name.endswith("__init__")}
    while free := [name for name, others in left.items() if not others & left.keys()]:
        for name in free:
            del left[name]
    assert not left


def test_checking_a_folder_loads_no_tensorboard(tmp_path: Path) -> None:
    code = (
        "import sys; from continual_agents.runs import Run, check_logger;"
        f"Run.check({str(tmp_path / 'run')!r}, {{'seed': 0}}); check_logger({{}});"
        "print(sorted(name for name in sys.modules if 'tensorboard' in name))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert loaded.stdout == "[]\n"
