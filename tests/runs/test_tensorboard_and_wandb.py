"""Loggers: what each is told, read back from what it wrote."""

import io
import json
import math
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageSequence
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import plugin_data_pb2

from continual_agents.runs import LoggerError, Run, check_logger
from continual_agents.runs.overview import Glance
from continual_agents.runs.logger import gif
from continual_agents.runs.loggers import Loggers, open_loggers
from continual_agents.runs.tags import meaning, tag_of
from tests.helpers import ROOT, events_of
from tests.runs.test_run import CONFIG, curve, drive

OFFLINE = {"kind": "wandb", "project": "test", "entity": None, "mode": "offline"}
PICTURES = np.stack([np.full((6, 8, 3), 60 * t, np.uint8) for t in range(4)])


def records(path: Path):
    """Records of a .wandb file: LevelDB's log format after a header of 7 bytes, each record a protobuf message."""
    from wandb.proto import wandb_internal_pb2

    data, place, part = path.read_bytes(), 7, b""
    while place + 7 <= len(data):
        room = 32_768 - place % 32_768
        if room < 7:
            place += room
            continue
        _, length, kind = struct.unpack("<IHB", data[place : place + 7])
        part += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            record = wandb_internal_pb2.Record()
            record.ParseFromString(part)
            yield record
            part = b""


def sessions(folder: Path) -> list[dict]:
    """What W&B wrote, a dict per session: id, config, rows of history, summary."""
    found = []
    for path in sorted(folder.glob("wandb/offline-run-*/run-*.wandb"), key=lambda path: path.stat().st_mtime):
        session = {"config": {}, "rows": [], "summary": {}}
        while not (written := list(records(path))) or written[-1].WhichOneof("record_type") != "exit":
            time.sleep(0.05)  # W&B's own process writes; the run's finish does not wait for its last block
        for record in written:
            if record.WhichOneof("record_type") == "run":
                session["id"] = record.run.run_id
                session["config"] |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
            if record.WhichOneof("record_type") == "history":
                items = {"/".join(item.nested_key) or item.key: item.value_json for item in record.history.item}
                session["rows"].append({key: json.loads(value) for key, value in items.items()})
            if record.WhichOneof("record_type") == "summary":
                items = {"/".join(item.nested_key) or item.key: item.value_json for item in record.summary.update}
                session["summary"] |= {key: json.loads(value) for key, value in items.items()}
        found.append(session)
    return found


def charts_of(events: Any) -> Any:
    """The one category of charts in the layout."""
    (layout,) = events.Tensors("custom_scalars__config__")
    (category,) = layout_pb2.Layout.FromString(layout.tensor_proto.string_val[0]).category
    return category


def settings_of(events: Any) -> dict[str, Any]:
    """The hyperparameters that the session began with."""
    content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    started = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info.hparams
    return {key: value.string_value or value.number_value for key, value in started.items()}


def test_wandb_gets_the_curves_of_tensorboard_and_a_resumed_run_goes_on_in_the_same_one(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    with Run.open(tmp_path, CONFIG, logger=OFFLINE) as run:
        run.loggers.histogram("surgery/ages", np.arange(10.0), 1)
        run.loggers.video("video/policy", PICTURES, 1, 20)
        run.loggers.image("comparison/figure", PICTURES[0], 1)
        run.loggers.text("comparison/table", "| a < b |", 1)
        drive(run, 4, save_at=4)
    with Run.open(tmp_path, CONFIG, logger=OFFLINE) as run:
        drive(run, 10)
    first, second = sessions(tmp_path)
    assert first["id"] == second["id"] == (tmp_path / "wandb/run_id.txt").read_text()
    assert first["config"]["experiment"] == CONFIG["experiment"]
    points = [(row["_step"], row["charts/episodic_return"]) for row in first["rows"] + second["rows"]]
    assert [step for step, _ in points] == list(range(1, 11))
    assert points == [(step, pytest.approx(value, rel=1e-6)) for step, value in curve(tmp_path, "return/mean")]
    row = first["rows"][0]
    assert sum(row["surgery/ages/values"]) == 10
    assert row["video/policy/_type"] == "video-file"
    assert row["comparison/figure/_type"] == "image-file"
    assert "plasticity/dead_units" not in row  # nan leaves no point
    (video,) = tmp_path.glob("wandb/offline-run-*/files/media/videos/**/*.gif")
    with Image.open(video) as played:
        assert played.n_frames == 4
    (page,) = tmp_path.glob("wandb/offline-run-*/files/media/html/**/*.html")
    assert page.read_text() == "<pre>| a &lt; b |</pre>"
    assert second["summary"]["final/return/mean"] == pytest.approx(points[-1][1])


def test_wandb_that_is_missing_or_not_logged_in_is_one_line_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    with pytest.raises(LoggerError, match="logger.mode=sometimes: one of online, offline"):
        check_logger({**OFFLINE, "mode": "sometimes"})
    for name in ("WANDB_API_KEY", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    with pytest.raises(LoggerError, match="Use `wandb login` to log in. Or give logger.mode=offline"):
        check_logger({**OFFLINE, "mode": "online"})
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(LoggerError, match="^logger=wandb needs the package wandb: pip install"):
        check_logger(OFFLINE)


def test_unknown_logger_is_refused() -> None:
    with pytest.raises(LoggerError, match="logger.kind=tensorbored: one of tensorboard, wandb"):
        check_logger({"kind": "tensorbored"})
    check_logger({})


def test_nothing_imports_wandb_unless_asked(tmp_path: Path) -> None:
    code = f"""
import sys, numpy
from continual_agents.runs import Run
import tools.train, tools.agent, tools.stream, tools.plot, tools.report
with Run.open({str(tmp_path)!r}, {{}}, logger={{"kind": "tensorboard"}}) as run:
    run.log(1, {{"x": 1.0}})
assert "wandb" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120, cwd=ROOT)


def test_tensorboard_plays_the_video_and_shows_the_image(tmp_path: Path) -> None:
    loggers = open_loggers(tmp_path, {}, {})
    loggers.video("video/policy", PICTURES, 7, 20)
    loggers.image("comparison/figure", PICTURES[1], 7)
    loggers.close()
    events = events_of(tmp_path)
    (video,), (image,) = events.Images("video/policy"), events.Images("comparison/figure")
    assert (video.step, video.height, video.width) == (7, 6, 8)
    played = Image.open(io.BytesIO(video.encoded_image_string))
    assert played.info["duration"] == 50  # milliseconds: 20 pictures a second
    shown = [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(played)]
    np.testing.assert_array_equal(shown, PICTURES)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(image.encoded_image_string))), PICTURES[1])


def test_equal_pictures_stay_as_long_as_they_were() -> None:
    still = Image.open(io.BytesIO(gif(np.zeros((3, 4, 4, 3), np.uint8), 10)))
    assert sum(frame.info["duration"] for frame in ImageSequence.Iterator(still)) == 300


def test_a_logger_that_fails_is_not_passed_over() -> None:
    class Broken:
        def flush(self) -> None:
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        Loggers([Broken()]).flush()  # type: ignore[list-item]


def test_glance_brings_everything_to_one_scale_by_hand() -> None:
    glance = Glance()
    rank, weights = "plasticity/effective_rank", "plasticity/weight_magnitude"
    rows = [
        {"return/mean": -5.0, rank: 20.0, weights: 0.5, "plasticity/dead_units": 0.1, "task/index": 0},
        {"return/mean": 100.0, rank: 10.0, weights: 0.75, "plasticity/dead_units": math.nan, "task/index": 1},
        {"return/mean": 50.0, rank: 40.0, weights: 0.25, "plasticity/dead_units": 0.3, "task/index": 2},
    ]
    first, second, third = (glance(row) for row in rows)
    assert math.isnan(first["glance/return"])  # no scale yet
    assert (second["glance/return"], third["glance/return"]) == (1.0, 0.5)
    assert [one["glance/effective_rank"] for one in (first, second, third)] == [1.0, 0.5, 1.0]
    assert [one["glance/weight_magnitude"] for one in (first, second, third)] == [1.0, 1.5, 0.5]
    assert [one["glance/task"] for one in (first, second, third)] == [0.0, 1.0, 0.0]
    assert third["glance/dead_units"] == 0.3
    assert Glance(glance.scale)({"return/mean": 25.0})["glance/return"] == 0.25  # goes on where it was


def test_overview_has_the_charts_of_the_runs_curves_and_the_hyperparameters_lead_with_method_and_seed(
    tmp_path: Path,
) -> None:
    config = {"experiment": {"name": "walk", "kind": "agent"}, "method": {"name": "ppo"}, "seed": 3, "folder": "x"}
    loggers = open_loggers(tmp_path, config, {})
    loggers.scalars(1, {"return/mean": math.nan, "glance/return": math.nan, "task/index": 0.0})
    loggers.scalars(2, {"return/mean": 5.0, "task/index": 0.0})
    loggers.finish(2, {"return/mean": 5.0})
    loggers.close()
    events = events_of(tmp_path)
    category = charts_of(events)
    assert category.title == "Plasticity at a glance"
    assert [chart.title for chart in category.chart] == ["return", "task", "one run, all together, to scale"]
    assert [(event.step, event.value) for event in events.Scalars("charts/episodic_return")] == [(2, 5.0)]
    assert settings_of(events) == {
        "experiment": "walk", "method": "ppo", "seed": 3, "experiment.kind": "agent",
    }  # fmt: skip


def test_the_methods_of_a_stack_are_runs_of_their_own_with_their_own_settings(tmp_path: Path) -> None:
    of = {"sgd": {"name": "sgd", "rate": 0.1}, "cbp": {"name": "cbp", "rate": 0.2}}
    experiment = {"name": "digits", "constants": {"rate": 0.1}}  # read by the method sgd, and only shown as its own
    config = {"experiment": experiment, "method": {"name": "compared", "of": of}, "seed": 4}
    dead = "plasticity/dead_units"
    rows = [{"accuracy": [0.2, 0.4, 0.9, 0.9], dead: [math.nan] * 4, f"{dead}/0": [math.nan] * 4},
            {"accuracy": [0.3, 0.5, 0.8, 0.8], dead: [0.5, 0.7, 0.1, 0.1], f"{dead}/0": [0.5] * 4}]  # fmt: skip
    with Run.open(tmp_path, config) as run:
        for step, row in enumerate(rows, 1):
            run.log_runs(step, row, groups=["sgd", "sgd", "cbp", "cbp"], timing={"time/run_steps_per_second": 9.0})
        run.finish(2, {})
    for method, accuracies, share in (("sgd", [0.3, 0.4], 0.6), ("cbp", [0.9, 0.8], 0.1)):
        events = events_of(tmp_path / method)
        assert set(events.Tags()["scalars"]) == {
            "charts/accuracy", dead, "interval/accuracy/low", "interval/accuracy/high",
        }  # fmt: skip
        assert [event.value for event in events.Scalars("charts/accuracy")] == pytest.approx(accuracies)
        assert [(event.step, event.value) for event in events.Scalars(dead)] == [(2, pytest.approx(share))]
        category = charts_of(events)
        # the diagnostic has its chart though nobody had looked when the layout was written
        assert [chart.title for chart in category.chart] == ["accuracy", "dead and dormant units"]
        (series,) = category.chart[0].margin.series
        assert (series.value, series.lower) == ("charts/accuracy", "interval/accuracy/low")
        assert settings_of(events) == {
            "experiment": "digits", "method": method, "method.rate": of[method]["rate"], "seed": 4,
            **({} if method == "sgd" else {"experiment.constants.rate": 0.1}),
        }  # fmt: skip
    assert curve(tmp_path, "time/run_steps_per_second") == [(1, 9.0), (2, 9.0)]


def test_a_stack_that_goes_on_hides_what_its_methods_wrote_after_the_checkpoint(tmp_path: Path) -> None:
    def go(run: Run, steps: range, value: float) -> None:
        for step in steps:
            run.log_runs(step, {"accuracy": [value, value]}, groups=["sgd", "sgd"])

    with Run.open(tmp_path, CONFIG) as run:
        go(run, range(1, 4), 0.1)
        run.save(3, {})
        go(run, range(4, 6), 0.2)
    with Run.open(tmp_path, CONFIG) as run:
        go(run, range(4, 8), 0.3)
    points = curve(tmp_path / "sgd", "accuracy")
    assert [step for step, _ in points] == [1, 2, 3, 4, 5, 6, 7]
    assert [value for _, value in points] == pytest.approx([0.1] * 3 + [0.3] * 4)


def test_layers_are_drawn_when_asked_for(tmp_path: Path) -> None:
    values = {"surgery/replaced": 3.0, "surgery/replaced/actor.0": 2.0}
    for layers in (False, True):
        loggers = open_loggers(tmp_path / str(layers), {}, {"layers": layers})
        loggers.scalars(1, values)
        loggers.close()
        assert events_of(tmp_path / str(layers)).Tags()["scalars"] == (list(values) if layers else ["surgery/replaced"])


def test_every_curve_of_a_run_tells_what_it_is() -> None:
    assert meaning("plasticity/dead_units/actor.0") == (
        "dead units, fraction of units: flat on the whole evaluation batch; layer actor.0"
    )
    assert meaning("time/update_seconds") == "seconds of this update"
    assert meaning("policy/entropy").endswith("nats")
    assert meaning("accuracy").startswith("online accuracy over the row, a fraction")
    assert meaning("somebody/elses") == ""
    assert sorted(map(tag_of, ("policy/kl", "glance/task", "episode/length", "return/mean", "time/x")))[0] == (
        "charts/episodic_return"
    )


def test_descriptions_are_in_the_event_file(tmp_path: Path) -> None:
    loggers = open_loggers(tmp_path, {}, {})
    for step in (1, 2):
        loggers.scalars(step, {"policy/kl": 0.1})
    loggers.close()
    events = events_of(tmp_path)
    assert events.SummaryMetadata("policy/kl").summary_description == meaning("policy/kl")
