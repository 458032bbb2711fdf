"""Where PyBullet has no wheel (Python 3.12 and later) everything but the walkers works, and they say what to do."""

from pathlib import Path

import pytest

from tests.helpers import ROOT, elsewhere

REMEDY = (
    "the walkers need PyBullet, which has wheels for Python 3.10 and 3.11: use one of these (make PYTHON=python3.11)"
)


@pytest.fixture
def without(tmp_path: Path) -> str:
    """A path on which PyBullet is as good as not installed."""
    for name in ("pybullet", "pybullet_data"):
        (tmp_path / f"{name}.py").write_text(f"raise ModuleNotFoundError('No module named {name}', name={name!r})\n")
    return f"{tmp_path}:{ROOT}"


def test_what_needs_no_simulator_imports(tmp_path: Path, without: str) -> None:
    code = (
        "import envs, gymnasium; print(sorted(envs.ROBOTS))\n"
        "walled = envs.ChangingObservation(gymnasium.make('CartPole-v1'), change_every=9)\n"
        "print(walled.reset(seed=0)[0].shape)\n"
        "for make in (lambda: envs.SlipperyAnt, lambda: gymnasium.make('continual_agents:SlipperyAnt-v0')):\n"
        "    try: make()\n"
        "    except ImportError as error: print(error)\n"
    )
    lines = elsewhere(tmp_path, "-c", code, path=without).stdout.splitlines()
    assert lines[:2] == ["['ant', 'half_cheetah', 'hopper', 'humanoid', 'walker2d']", "(4,)"]
    assert [line.startswith(REMEDY) for line in lines[2:]] == [True, True]


def test_the_command_trains_what_is_no_walker(tmp_path: Path, without: str) -> None:
    words = ("-m", "tools.train", "scale=smoke")
    refused = elsewhere(tmp_path, *words, "experiment=slippery_ant", path=without, check=False)
    assert refused.returncode == 2
    assert refused.stderr.startswith(f"error: {REMEDY}")
    assert refused.stderr.count("\n") == 1
    trained = elsewhere(tmp_path, *words, "experiment=changing_cartpole", "method=ppo", path=without)
    assert "| PPO " in trained.stdout
