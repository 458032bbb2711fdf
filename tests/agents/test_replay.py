"""The replay buffer: the same transitions at the same places after any number of interruptions."""

from pathlib import Path

import pytest
import torch
from tensordict import TensorDict

from continual_agents.agents.replay import Replay, transitions
from continual_agents.runs import CheckpointError

SIZE = 50


def rows(start: int, count: int) -> TensorDict:
    numbers = torch.arange(start, start + count, dtype=torch.float32)[:, None]
    following = {"observation": numbers + 1, "reward": numbers / 2, "terminated": numbers % 5 == 0}
    return TensorDict({"observation": numbers, "next": TensorDict(following, [count])}, [count])


STORAGE = ["memory"]


@pytest.fixture(params=["memory", "memmap"], autouse=True)
def storage(request: pytest.FixtureRequest) -> None:
    """Every test for both places."""
    STORAGE[0] = request.param


def made(*filled: tuple[int, int], saved_to: Path | None = None) -> Replay:
    """A buffer, with these rows in it and saved."""
    replay = Replay(SIZE, torch.Generator().manual_seed(0), STORAGE[0])
    for start, count in filled:
        replay.extend(rows(start, count))
    if saved_to is not None:
        replay.save(saved_to)
    return replay


def test_samples_are_uniform_over_the_last_rows() -> None:
    replay = made(*((start, 10) for start in range(0, 130, 10)))
    assert (len(replay), replay.count) == (50, 130)
    drawn = replay.sample(20_000)
    counts = torch.bincount(drawn["observation"].flatten().long(), minlength=130)
    assert counts[:80].sum() == 0
    assert counts[80:].min() > 300  # 400 each, deviation 20
    assert torch.equal(drawn["next", "observation"], drawn["observation"] + 1)
    assert replay.recent(3)["observation"].flatten().tolist() == [127.0, 128.0, 129.0]


@pytest.mark.parametrize("saves", [[10], [40], [60], [30, 90], [20, 70, 130], [10, 20, 30, 200]])
def test_a_loaded_buffer_is_the_one_that_was_saved(tmp_path: Path, saves: list[int]) -> None:
    whole, log = made(*((start, 10) for start in range(0, saves[-1], 10))), tmp_path / "replay"
    current, at = made(), 0
    for end in saves:  # a new process after every save
        for start in range(at, end, 10):
            current.extend(rows(start, 10))
        current.save(log)
        current, at = made(), end
        current.load(log, end)
    for _ in range(3):
        assert torch.equal(current.sample(64)["observation"], whole.sample(64)["observation"])
        for one in (current, whole):
            one.extend(rows(one.count, 10))


def test_rows_after_the_checkpoint_are_forgotten_and_the_one_before_it_is_kept(tmp_path: Path) -> None:
    replay = made()
    for start in range(0, 400, 20):
        replay.extend(rows(start, 20))
        replay.save(tmp_path)
    sizes = sorted(path.name for path in tmp_path.glob("rows_*"))
    assert len(sizes) == 4  # what the checkpoints at 380 and at 400 hold, and no more
    older, newer = made(), made()
    newer.load(tmp_path, 400)
    older.load(tmp_path, 380)
    assert older.recent(50)["observation"].flatten().tolist() == list(range(330, 380))
    with pytest.raises(CheckpointError, match="lacks the transitions 380 to 400 of the replay buffer"):
        newer.load(tmp_path, 400)


def test_a_save_writes_what_is_new_only(tmp_path: Path) -> None:
    replay = made((0, 40), saved_to=tmp_path)
    first = next(tmp_path.iterdir())
    written = first.stat().st_mtime_ns
    replay.extend(rows(40, 2))
    replay.save(tmp_path)
    assert first.stat().st_mtime_ns == written
    (second,) = set(tmp_path.iterdir()) - {first}
    assert torch.load(second, weights_only=True)["observation"].shape == (2, 1)


def test_an_emptied_buffer_holds_what_came_later_and_continues(tmp_path: Path) -> None:
    replay = made((0, 70), saved_to=tmp_path)
    replay.extend(rows(70, 10))  # never saved: forgotten before the next checkpoint
    replay.empty()
    assert len(replay) == 0
    replay.extend(rows(80, 30))
    replay.save(tmp_path)
    loaded = made()
    loaded.load(tmp_path, 110, since=80)
    for one in (replay, loaded):
        drawn = one.sample(500)["observation"].flatten()
        assert set(drawn.tolist()) == set(range(80, 110))
        one.extend(rows(110, 30))
        assert one.recent(50)["observation"].flatten().tolist() == list(range(90, 140))
    # both have drawn as often
    assert torch.equal(replay.sample(64)["observation"], loaded.sample(64)["observation"])
    older = made()
    older.load(tmp_path, 70)
    assert older.recent(50)["observation"].flatten().tolist() == list(range(20, 70))


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    made((0, 20), saved_to=tmp_path)
    next(tmp_path.iterdir()).write_bytes(b"half")
    with pytest.raises(CheckpointError, match="rows_000000000000_000000000020.pt is not a file of torch.save"):
        made().load(tmp_path, 20)


def test_a_batch_of_several_environments_is_cut_into_transitions() -> None:
    batch = torch.stack([rows(0, 4), rows(100, 4)])
    batch["action"] = torch.zeros(2, 4, 1)
    cut = transitions(batch)
    assert cut["observation"].flatten().tolist() == [0, 1, 2, 3, 100, 101, 102, 103]
    assert cut["next"].keys() == {"observation", "reward", "terminated"}


def test_what_a_killed_session_left_half_written_is_removed(tmp_path: Path) -> None:
    made((0, 20), saved_to=tmp_path)
    (tmp_path / ".rows_000000000020_000000000040.pt.123.tmp").write_bytes(b"half")
    made().load(tmp_path, 20)
    assert [path.name for path in tmp_path.iterdir()] == ["rows_000000000000_000000000020.pt"]
