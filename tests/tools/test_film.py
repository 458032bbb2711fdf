"""Films of the ant inside TensorBoard: real training, the real simulator."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageSequence

from tests.helpers import events_of, same_tables
from tools import film
from tools.command_line import UsageError
from tools.train import build, jobs, train_one

WORDS = ["scale=smoke", "method=ppo", "experiment.environment.friction.change_every=400"]


def train(folder: Path, *words: str, steps: int = 1536) -> Path:
    config = jobs([*WORDS, f"experiment.steps={steps}", f"folder={folder}", "progress=false", *words])[0]
    assert train_one(config) == 0
    return folder


def films(folder: Path) -> dict[int, Image.Image]:
    shown = events_of(folder, images=0).Images("video/policy")
    return {one.step: Image.open(io.BytesIO(one.encoded_image_string)) for one in shown}


def test_every_task_is_filmed_at_its_end_and_the_numbers_stay_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    captions = []
    monkeypatch.setattr(film, "_captioned", lambda scene, lines: captions.append(lines) or scene)
    plain, filmed = train(tmp_path / "plain"), train(tmp_path / "filmed", "logger.video=true")
    same_tables(plain, filmed)
    task = pd.read_csv(filmed / "metrics.csv").set_index("step")["task/index"]
    task = pd.concat([pd.Series({0: 0.0}), task])  # the first task may end within the first update
    ends = [step for step, change in task.diff(-1).items() if change]  # the last row has nan: the run's end counts
    following = {step: task.index[task.index.get_loc(step) + 1] for step in ends[:-1]}
    shown = films(filmed)
    assert set(shown) == {*following.values(), 1536}  # filmed with the update in which the change was seen
    assert len(shown) >= 2
    for picture in shown.values():
        pictures = [np.asarray(frame.convert("RGB"), int) for frame in ImageSequence.Iterator(picture)]
        assert np.abs(pictures[0] - pictures[-1]).mean() > 0.5  # it moves
    frictions = pd.read_csv(filmed / "metrics.csv").set_index("step")["task/friction"]
    assert f"friction {frictions[512]:.2g}, return 0" in {lines[1] for lines in captions}
    assert captions[0][0].startswith("PPO, ")


def test_an_interrupted_run_films_what_the_whole_one_films(tmp_path: Path) -> None:
    whole = train(tmp_path / "whole", "logger.video=true")
    parts = tmp_path / "parts"
    train(parts, "logger.video=true", steps=512)
    train(parts, "logger.video=true")
    expected, got = films(whole), films(parts)
    assert set(got) == set(expected) | {512}  # its first part had an end of its own
    for step, picture in expected.items():
        one, other = ([frame.tobytes() for frame in ImageSequence.Iterator(image)] for image in (picture, got[step]))
        assert one == other  # every picture: the first one comes before any action


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["experiment=permuted_digits"], "nothing to film in experiment.kind=stream"),
        (["experiment=gymnasium"], "films the slippery walkers only, not CartPole-v1"),
    ],
)
def test_what_cannot_be_filmed_is_refused_before_any_file(words: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build(jobs(["scale=smoke", "logger.video=true", *words])[0])
