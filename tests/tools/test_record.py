"""Videos of a policy: real checkpoints of an untrained agent, the real simulator."""

import re
import subprocess
from pathlib import Path

import gymnasium
import imageio_ffmpeg
import numpy as np
import pytest

from continual_agents.runs import Checkpoints
from tests.agents.helpers import checkpointed
from tests.helpers import ended
from tools import record


def make_run(folder, *words, step=2048, friction=0.3):
    checkpointed(folder, *words, step=step)
    (folder / "metrics.csv").write_text(f"step,task/friction\n{step - 1},1.0\n{step},{friction}\n")
    return folder


def pictures_of(path):
    """Every picture of a video, decoded by ffmpeg itself: imageio's reader leaves its pipes open."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-i", path, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    done = subprocess.run(command, capture_output=True, check=True, stdin=subprocess.DEVNULL)
    width, height = map(int, re.search(rb"rawvideo.*?(\d{2,5})x(\d{2,5})", done.stderr).groups())
    return np.frombuffer(done.stdout, np.uint8).reshape(-1, height, width, 3)


def life(run, steps, **how):
    """The ground's friction, and what is seen after so many steps."""
    player = record.player_of(run, **how)
    for _ in range(steps):
        player.step()
    player.environment.close()
    return player.environment.friction, np.asarray(player.observation)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    return make_run(root / "ppo", "method=ppo"), make_run(root / "cbp", "method=continual_backprop", friction=1.5)


def test_side_by_side_video(runs, tmp_path, capfd):
    output = record.record(runs, tmp_path / "both.mp4", seconds=0.3)
    assert "recording: 100%" in capfd.readouterr().err
    pictures = pictures_of(output)
    assert len(pictures) == 9
    height, width, _ = pictures[0].shape
    assert width % 2 == height % 2 == 0
    left, right = pictures[0][:, : width // 2], pictures[0][:, width // 2 :]
    scene = slice(0, int(height * 0.75))
    assert np.abs(left[scene].astype(int) - right[scene]).mean() < 3  # the same starting pose
    assert np.abs(pictures[0][scene].astype(int) - pictures[-1][scene]).mean() > 0.5  # it moves


def test_gif_of_one_run(runs, tmp_path):
    record.main([str(runs[0]), "--seconds", "0.2", "--friction", "0.05", "--output", str(tmp_path / "one.gif")])
    assert len(pictures_of(tmp_path / "one.gif")) == 6


def test_same_seed_same_life_and_the_ground_is_the_one_asked_for(runs):
    given = [life(runs[0], 200, seed=3, friction=friction, sample=True) for friction in (None, None, 0.02)]
    grounds, lives = zip(*given, strict=True)
    assert grounds == pytest.approx((0.3, 0.3, 0.02))
    np.testing.assert_array_equal(lives[0], lives[1])
    assert np.abs(lives[0] - lives[2]).max() > 1e-3


def test_policy_is_that_of_the_checkpoint(runs, tmp_path):
    folder = make_run(tmp_path / "other", "method=ppo", "seed=5")
    one, other = record.player_of(runs[0]), record.player_of(folder)
    content = Checkpoints(folder / "checkpoints").load()
    expected = content["state"]["run"]["learner"]["actor"]
    for name, value in other.policy.state_dict().items():
        assert np.array_equal(value, expected[name])
    assert not np.array_equal(one.policy.state_dict()["body.0.weight"], expected["body.0.weight"])
    named = record.player_of(runs[0], checkpoint=next((folder / "checkpoints").glob("*.pt")))
    assert np.array_equal(named.policy.state_dict()["body.0.weight"], expected["body.0.weight"])
    for player in (one, other, named):
        player.environment.close()


def test_sampled_actions_differ_from_the_mean_and_repeat_with_the_seed(runs):
    ends = [life(runs[0], 5, sample=sample)[1] for sample in (False, True, True)]
    assert np.abs(ends[0] - ends[1]).max() > 1e-3
    np.testing.assert_array_equal(ends[1], ends[2])


@pytest.mark.parametrize("table", ["step\n2048\n", "step,task/friction\n2048,\n"], ids=["no column", "no value"])
def test_a_table_without_frictions_asks_for_one(tmp_path, capsys, table):
    folder = make_run(tmp_path / "run", "method=ppo")
    (folder / "metrics.csv").write_text(table)
    said = f"{folder}/metrics.csv has no task/friction: give --friction"
    assert said in ended(capsys, record.main, folder)


def test_a_package_that_an_environment_draws_with_is_named_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise gymnasium.error.DependencyNotInstalled('pygame is not installed, run `pip install "gymnasium[x]"`')

    monkeypatch.setattr(record, "record", refuse)
    said = 'error: pygame is not installed, run `pip install "gymnasium[x]"`\n'
    assert ended(capsys, record.main, tmp_path) == said
