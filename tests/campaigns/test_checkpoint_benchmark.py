"""The benchmark of checkpoints on two runs that take no time."""

from pathlib import Path

import pytest

from campaigns.benchmarks import checkpoints


def test_each_run_is_stopped_after_its_checkpoints_and_gets_a_row(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["scale=smoke", "method=continual_backprop"]
    runs = {
        "walker": ["experiment=slippery_ant", *words, "experiment.agent.batch=128"],
        "digits": ["experiment=permuted_digits", *words],
    }
    monkeypatch.setattr(checkpoints, "RUNS", runs)
    checkpoints.main(["--saves", "3"])
    _, _, *rows = capsys.readouterr().out.splitlines()
    assert [row.split("|")[1].strip() for row in rows] == [
        "walker",
        "digits",
        "replay log, 60,000 transitions of the ant",
        "replay log, 30,000 transitions of MinAtar",
    ]
    for row in rows:
        size, milliseconds, share = (float(cell.strip().rstrip("%")) for cell in row.split("|")[2:5])
        assert 0 < size < 70
        assert milliseconds > 0
        assert 0 < share < 100


def test_a_run_stops_when_it_has_saved_often_enough(tmp_path: Path) -> None:
    with checkpoints.Counted.open(tmp_path, {}, bar_position=None) as run:
        assert isinstance(run, checkpoints.Counted)
        run.most = 2
        run.save(1, {})
        assert not run.stop_requested
        run.save(2, {})
        assert run.stop_requested
        assert len(run.costs) == 2
        assert run.bytes == (tmp_path / "checkpoints/step_000000000002.pt").stat().st_size
