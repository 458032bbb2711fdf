"""The methods of configs/method on DQN and SAC, as the command line applies them; resets relearn from the buffer."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.agents.helpers import run_job
from tools.agent import AgentJob

SMALL = [
    "experiment.steps=120", "experiment.agent.init_random_frames=20", "experiment.agent.batch_size=16",
    "experiment.agent.log_interval=20", "experiment.agent.replay_buffer.size=100", "experiment.network.hidden=[16,16]",
]  # fmt: skip
KINDS = ["dqn_cartpole", "sac_pendulum"]
CHANGES = ["experiment.environment.changing={kind:offset,change_every:40,at_episode_end:false}"]
METHODS = {
    "continual_backprop": ["experiment.replacement.rate=0.05", "experiment.replacement.maturity=5"],
    "redo": ["experiment.redo.period=10", "experiment.redo.threshold=0.5"],
    "regrama": [],
    "self_normalized_resets": [],
    "shrink_and_perturb": [],
    "l2_init": [],
    "periodic_reset": ["experiment.reset.period=30"],
    "periodic_last_layers_reset": ["experiment.reset.period=30"],
    "last_layers_reset": CHANGES,
    "fresh": CHANGES,
}


def done(experiment: str, method: str, words: list[str], folder: Path) -> tuple[AgentJob, pd.DataFrame]:
    job = run_job(folder, f"experiment={experiment}", "scale=smoke", f"method={method}", *SMALL, *words)
    return job, pd.read_csv(folder / "metrics.csv")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("experiment", KINDS)
def test_a_method_applies(experiment: str, method: str, tmp_path: Path) -> None:
    job, table = done(experiment, method, METHODS[method], tmp_path / "run")
    learner: Any = job.learner
    assert learner.gradient_steps == 110, "ten after every ten steps, the first after 20"
    assert table["loss/value"].notna().all()
    if method in ("continual_backprop", "redo"):
        assert table["surgery/replaced"].sum() > 0
    if ("reset" in method and method != "self_normalized_resets") or method == "fresh":
        # after 30, 60 and 90 gradient steps; or at steps 40, 80 and 120
        assert table["surgery/resets"].iloc[-1] == 3
        assert len(learner.replay) == 100, "what is relearned from stays"


@pytest.mark.parametrize("experiment", KINDS)
def test_a_buffer_that_is_emptied_at_a_change_holds_one_task(experiment: str, tmp_path: Path) -> None:
    words = [*CHANGES, "experiment.agent.empty_at_change=true"]
    job, table = done(experiment, "fresh", words, tmp_path / "whole")
    assert (len(job.learner.replay), job.learner.replay.count) == (0, 120), "the last change came with the last step"
    assert table["loss/value"].notna().all()
    done(experiment, "fresh", [*words, "experiment.steps=60"], tmp_path / "parts")  # 20 steps after the first change
    done(experiment, "fresh", words, tmp_path / "parts")
    assert (tmp_path / "parts/metrics.csv").read_bytes() == (tmp_path / "whole/metrics.csv").read_bytes()


@pytest.mark.parametrize("experiment", KINDS)
def test_more_updates_than_data(experiment: str, tmp_path: Path) -> None:
    job, _ = done(
        experiment, "periodic_reset", ["experiment.agent.utd_ratio=4", "experiment.reset.period=100"], tmp_path
    )
    assert job.learner.gradient_steps == 4 * 110
    assert job.learner.operations[0].report()["resets"] == 4
