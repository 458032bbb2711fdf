"""Where PyBullet has no wheel (Python 3.12 and later) everything but the walkers works, and they say what to do."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
REMEDY = (
    "the walkers need PyBullet, which has wheels for Python 3.10 and 3.11: use one of these (make PYTHON=python3.11)"
)


@pytest.fixture
def without(tmp_path: Path) -> dict[str, str]:
    """An environment whose PyBullet is as good as not installed."""
    for name in ("pybullet", "pybullet_data"):
        (tmp_path / f"{name}.py").write_text(f"raise ModuleNotFoundError('No module named {name}', name={name!r})\n")
    return {"PYTHONPATH": f"{tmp_path}:{ROOT}", "PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}


def python(environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words], cwd=environment["HOME"], env=environment, capture_output=True, text=True, timeout=240
    )


def test_what_needs_no_simulator_imports(without: dict[str, str]) -> None:
    code = (
        "import envs, gymnasium; print(sorted(envs.ROBOTS))\n"
        "walled = envs.ChangingObservation(gymnasium.make('CartPole-v1'), change_every=9)\n"
        "print(walled.reset(seed=0)[0].shape)\n"
        "for make in (lambda: envs.SlipperyAnt, lambda: gymnasium.make('continual_agents:SlipperyAnt-v0')):\n"
        "    try: make()\n"
        "    except ImportError as error: print(error)\n"
    )
    done = python(without, "-c", code)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[:2] == ["['ant', 'half_cheetah', 'hopper', 'humanoid', 'walker2d']", "(4,)"]
    assert [line.startswith(REMEDY) for line in lines[2:]] == [True, True]


def test_the_command_trains_what_is_no_walker(without: dict[str, str]) -> None:
    refused = python(without, "-m", "tools.train", "experiment=slippery_ant", "scale=smoke")
    assert refused.returncode == 2
    assert refused.stderr.startswith(f"error: {REMEDY}")
    assert refused.stderr.count("\n") == 1
    trained = python(without, "-m", "tools.train", "experiment=changing_cartpole", "scale=smoke", "method=ppo")
    assert trained.returncode == 0, trained.stderr
    assert "| PPO " in trained.stdout
