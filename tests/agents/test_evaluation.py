"""A policy out of its run folder does what the policy in training did."""

import hashlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from continual_agents.agents import load_policy, make_environment, rescale_actions
from continual_agents.agents.evaluation import TrainedPolicy, evaluate
from continual_agents.runs import RunError
from continual_agents.runs.checkpoint import FORMAT
from tests.agents.helpers import checkpointed
from tests.helpers import ended, refusal
from tools import evaluate as tool
from tools.agent import AgentJob

KINDS = {
    "ppo on Box": ["experiment=gymnasium", "experiment.environment.id=Pendulum-v1", "method=layer_norm"],
    "ppo on Discrete": ["experiment=gymnasium", "method=crelu"],
    "dqn": ["experiment=dqn_cartpole", "method=backprop"],
    "sac": ["experiment=sac_pendulum", "method=backprop"],
    "recurrent": ["experiment=recurrent_cartpole", "method=backprop"],
    "recurrent on Box": ["experiment=recurrent_cartpole", "experiment.environment.id=Pendulum-v1", "method=backprop"],
}


def saved(folder: Path, words: list[str]) -> tuple[dict[str, Any], AgentJob]:
    return checkpointed(folder, *words, moved=0.01)


@pytest.mark.parametrize("kind", KINDS)
def test_it_acts_as_in_training(tmp_path: Path, kind: str) -> None:
    _, job = saved(tmp_path / "run", KINDS[kind])
    policy, trained = load_policy(tmp_path / "run"), job.learner.networks.policy
    trained.explore(1_000_000)
    assert policy.step == 512
    observations = np.random.default_rng(0).normal(size=(5, job.collector._current.shape[1])).astype(np.float32)
    noise = trained.draw_noise((5,), torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = trained.act(torch.from_numpy(observations), torch.zeros_like(noise)).numpy()
    np.testing.assert_array_equal(policy.act(observations), expected)
    np.testing.assert_allclose(policy.act(observations[2]), expected[2], rtol=1e-5, atol=1e-6)
    environment = job.environment
    assert environment.action_space.contains(policy.act(observations[0])) or kind == "ppo on Box"


def test_returns_by_hand() -> None:
    class Still(TrainedPolicy):
        def __init__(self) -> None:
            pass

        def begin(self) -> None:
            pass

        def act(self, observation: Any, *, sample: bool = False) -> Any:
            return 0

    environment = make_environment("CartPole-v1")
    returns = evaluate(Still(), environment, episodes=3, seed=0)
    # pushed to the left only, the pole falls within 8 to 11 steps; each step is worth 1
    assert len(returns) == 3
    assert all(8 <= value <= 11 for value in returns)
    assert returns == evaluate(Still(), environment, episodes=3, seed=0)
    with pytest.raises(ValueError, match="episodes=0: at least 1"):
        evaluate(Still(), environment, episodes=0)


def test_what_is_no_trained_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is no run folder with a checkpoint"):
        load_policy(tmp_path)
    saved(tmp_path / "run", KINDS["dqn"])
    config = yaml.safe_load((tmp_path / "run/config.yaml").read_text())
    config["experiment"]["network"]["hidden"] = [3]
    (tmp_path / "run/config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(RunError, match="holds no policy that fits its config.yaml"):
        load_policy(tmp_path / "run")


def test_the_command_writes_table_and_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved(tmp_path / "run", ["experiment=slippery_ant", "experiment.environment.time_limit=20"])
    tool.main([str(tmp_path / "run"), "--episodes", "2", "--friction", ".02", "2"])
    said = capsys.readouterr().out
    assert "0.02" in said
    lines = (tmp_path / "run/evaluation.csv").read_text().splitlines()
    assert lines[0] == "run,setting,step,friction,episodes,return,low,high"
    assert len(lines) == 3
    assert (tmp_path / "run/evaluation.png").exists()
    saved(tmp_path / "sac", KINDS["sac"])
    tool.main([str(tmp_path / "sac"), "--episodes", "1"])
    said = ended(capsys, tool.main, tmp_path / "sac", "--episodes", "1", "--friction", "1")
    assert "Pendulum-v1 has no friction to set: leave out --friction" in said


def test_a_stranger_s_run_is_evaluated_within_its_folder_or_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, _ = saved(tmp_path / "run", KINDS["dqn"])
    folder, outside = (tmp_path / "run").rename(tmp_path / "run\x1b[2J"), tmp_path / "outside"
    outside.write_text("precious")
    for name in ("evaluation.csv", "evaluation.png", "evaluation.svg"):
        (folder / name).symlink_to(outside)
    tool.main([str(folder), "--episodes", "1"])
    assert outside.read_text() == "precious"
    assert "\x1b" not in capsys.readouterr().out
    right = config["experiment"]["environment"]
    for wrong, said in (
        ("a b", "cannot be run: 'str' object is not a mapping"),
        ({}, "has no 'id'"),
        (None, "cannot be"),
    ):
        config["experiment"]["environment"] = wrong
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        assert said in ended(capsys, tool.main, folder, "--episodes", "1")
    config["experiment"]["environment"] = right
    for wrong, said in (
        ({"hidden": [300_000, 300_000]}, r"network.hidden=\[300000, 300000\] is not of these weights"),
        ({"hidden": 5}, "TypeError"),
        (5, "TypeError"),
    ):
        config["experiment"]["network"] = wrong
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        assert re.search(f"holds no policy that fits its config.yaml .*{said}", refusal(RunError, load_policy, folder))
    (path,) = (folder / "checkpoints").glob("*.pt")
    torch.save({"format": FORMAT, "step": None, "state": {"run": {"learner": {}}}}, path)
    path.with_suffix(".sha256").write_text(hashlib.sha256(path.read_bytes()).hexdigest())
    said = ended(capsys, tool.main, folder, "--episodes", "1")
    assert said.endswith("its step is no count): start in a new folder\n")


def test_rescaled_actions_reach_the_whole_range() -> None:
    environment = rescale_actions(make_environment("Pendulum-v1"))
    assert environment.action_space.high == 1
    environment.reset(seed=0)
    environment.step(np.array([1.0], np.float32))
    assert environment.unwrapped.last_u == pytest.approx(2.0)  # type: ignore[union-attr]
