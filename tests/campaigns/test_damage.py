"""`pytest -m slow tests/campaigns`: run folders damaged at random are continued, or refused in one line."""

import os
import random
import shutil
import warnings
from pathlib import Path

import pytest

from continual_agents.runs import CheckpointError, Run, RunError
from tests.runs.test_run import CONFIG, drive

SEED, COUNT = int(os.environ.get("SEED", 0)), int(os.environ.get("COUNT", 400))
KINDS = ("flip", "cut", "empty", "repeat", "text", "remove", "folder", "link")


def damage(path: Path, kind: str, draws: random.Random) -> None:
    """One file, or what stands in its place."""
    content = path.read_bytes()
    if kind == "flip":
        place = draws.randrange(max(len(content), 1))
        path.write_bytes(content[:place] + bytes([draws.randrange(256)]) + content[place + 1 :])
    elif kind == "cut":
        path.write_bytes(content[: draws.randrange(len(content) + 1)])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "repeat":
        path.write_bytes(content * 2)
    elif kind == "text":
        path.write_bytes(draws.randbytes(100))
    else:
        path.unlink()
        if kind == "folder":
            path.mkdir()
        elif kind == "link":
            path.symlink_to("/dev/zero")


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_damaged_folders_are_continued_or_refused_in_one_line(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    for until in (2, 4):
        with Run.open(whole, CONFIG) as run:
            drive(run, until, save_at=until)
    names = sorted(str(path.relative_to(whole)) for path in whole.rglob("*") if path.is_file())
    draws = random.Random(SEED)
    outcomes, said = {"continued": 0, "refused": 0}, []
    for number in range(COUNT):
        folder = tmp_path / "run"
        shutil.copytree(whole, folder)
        done = [(name, draws.choice(KINDS)) for name in draws.sample(names, draws.choice((1, 1, 2)))]
        for name, kind in done:
            damage(folder / name, kind, draws)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                Run.check(folder, CONFIG)
                with Run.open(folder, CONFIG) as run:
                    drive(run, 10, save_at=5)
            outcomes["continued"] += 1
        except (RunError, CheckpointError) as error:
            outcomes["refused"] += 1
            said.append(str(error))
        except Exception as error:
            raise AssertionError(f"case {number} of seed {SEED}: {done}: {error!r}") from error
        shutil.rmtree(folder)
    print(outcomes)
    assert not [text for text in said if "\n" in text]
    assert min(outcomes.values()) > COUNT / 10
