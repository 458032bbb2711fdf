"""A run folder or checkpoint from a stranger: nothing outside it changes, nothing is read for ever."""

import contextlib
import hashlib
import json
import os
import re
import shutil
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from continual_agents.runs import CheckpointError, Checkpoints, LoggerError, Run, RunError, read_configuration
from continual_agents.runs.checkpoint import load_data
from continual_agents.runs.unpacking import SLACK
from tests.helpers import refusal
from tests.runs.test_run import CONFIG, drive


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """A run with two checkpoints, tables and curves."""
    with Run.open(tmp_path / "run", CONFIG) as run:
        drive(run, 2, save_at=2)
    with Run.open(tmp_path / "run", CONFIG) as run:
        drive(run, 4, save_at=4)
    return tmp_path / "run"


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "file").write_text("precious\n")
    return folder


def remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)


INSTEAD: dict[str, Callable[[Path, Path], Any]] = {
    "a link": lambda path, outside: path.symlink_to(outside / "file"),
    "a link to nothing": lambda path, outside: path.symlink_to(outside / "new"),
    "a link to a folder": lambda path, outside: path.symlink_to(outside),
    "a hard link": lambda path, outside: os.link(outside / "file", path),
    "a device": lambda path, outside: path.symlink_to("/dev/zero"),
    "a pipe": lambda path, outside: os.mkfifo(path),
    "a folder": lambda path, outside: path.mkdir(),
}
NAMES = (
    "config.yaml", "environment.json", ".lock", ".lock.2", ".lock.3", "metrics.csv", "timing.csv", "checkpoints",
    "checkpoints/step_000000000004.pt", "checkpoints/step_000000000004.sha256", "events.out.tfevents.1.x",
)  # fmt: skip


@pytest.mark.filterwarnings("ignore::UserWarning")  # what is passed over is said
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("what", INSTEAD)
def test_nothing_outside_the_folder_changes_whether_it_is_refused_or_not(
    begun: Path, outside: Path, name: str, what: str
) -> None:
    remove(begun / name)
    INSTEAD[what](begun / name, outside)
    started = time.monotonic()
    try:
        Run.check(begun, CONFIG)
        with Run.open(begun, CONFIG) as run:
            drive(run, 10, save_at=5)
    except (RunError, CheckpointError) as error:
        assert "\n" not in str(error)
    else:
        Run.check(begun, CONFIG)
    assert time.monotonic() - started < 60  # a pipe or /dev/zero would never end
    assert [path.name for path in outside.iterdir()] == ["file"]
    assert (outside / "file").read_text() == "precious\n"


def test_temporary_names_that_somebody_has_taken_are_no_way_out(begun: Path, outside: Path) -> None:
    for name in ("config.yaml", "environment.json"):
        (begun / f".{name}.{os.getpid()}.tmp").symlink_to(outside / "file")
    (begun / f"checkpoints/.step_000000000005.pt.{os.getpid()}.tmp").symlink_to(outside / "file")
    with Run.open(begun, CONFIG) as run:
        run.save(5, {})
    assert (outside / "file").read_text() == "precious\n"


@pytest.mark.parametrize(
    "text",
    [
        "z: " + "1:" * 20_000 + "1", "z: " + "9" * 60_000, "[" * 60_000, "{" + "a," * 30_000 + "}", "x" * 70_000,
        "z: 0x" + "f" * 60_000, "z: !!int ''", "z: !!float ''",
    ],
    ids=["base 60", "digits", "depth", "keys", "size", "hexadecimal", "no int", "no float"],
)  # fmt: skip
def test_yaml_is_read_or_refused_soon(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.yaml").write_text(text)
    started = time.process_time()
    try:
        assert len(str(read_configuration(tmp_path / "config.yaml"))) < 100_000
    except ValueError as error:
        assert "\n" not in str(error)
    assert time.process_time() - started < 30  # 1 MB of base 60 took hours


def test_numbers_in_base_60_and_dates_are_words(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("a: 1:30\nb: 2001-01-01\nc: 0x10\nd: 1e-4\ne: 1.5e-4\nf: 1_000\n")
    found = read_configuration(tmp_path / "config.yaml")
    # 1e-4 without a point is a word in YAML 1.1; OmegaConf writes 0.0001
    assert found == {"a": "1:30", "b": "2001-01-01", "c": 16, "d": "1e-4", "e": 1.5e-4, "f": 1000}


class Program:
    """A pickle for torch's machine, opcode by opcode."""

    def __init__(self, *parts: bytes):
        self.text = b"\x80\x02" + b"".join(parts) + b"."

    def write(self, path: Path) -> Path:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", self.text)
            archive.writestr("archive/version", "3\n")
            archive.writestr("archive/byteorder", "little")
            archive.writestr("archive/data/0", bytes(4))
        return path


STORAGE = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x01tQ"
BOMBS = {
    "tensors of stride 0": Program(
        b"ctorch._utils\n_rebuild_tensor_v2\n(", STORAGE, b"K\x00\x8a\x05\x00\x00\x00\x00\x10\x85K\x00\x85\x89",
        b"ccollections\nOrderedDict\n)RtR",
    ),
    "bytearray": Program(b"cbuiltins\nbytearray\n\x8a\x06\x00\x00\x00\x00\x00\x01\x85R"),
    "torch.Tensor": Program(b"ctorch\nTensor\n\x8a\x05\x00\x00\x00\x00\x10\x85R"),
    "tuples within tuples": Program(b"}", b"K\x01", *(b"q\x00h\x00\x86" for _ in range(60)), b"K\x01s"),
    "attributes again and again": Program(
        b"]", b"}(", b"".join(b"M" + n.to_bytes(2, "little") + b"N" for n in range(10_000)), b"uq\x00",
        b"0ccollections\nOrderedDict\nq\x01", b"]", b"".join(b"h\x01)Rh\x00ba" for _ in range(3000)),
    ),
    "a mapping of a list": Program(b"ccollections\nOrderedDict\n]\x85R"),
    "an opcode": Program(b"]2"),
    "a function": Program(b"cposix\nsystem\nX\x04\x00\x00\x00true\x85R"),
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_checkpoint_is_judged_by_what_unpacking_makes(tmp_path: Path, name: str) -> None:
    path = BOMBS[name].write(tmp_path / "bomb.pt")
    assert path.stat().st_size < 200_000
    assert re.search("do not use this file|is damaged", refusal(CheckpointError, load_data, path))


def test_what_torch_writes_is_read(tmp_path: Path) -> None:
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    optimizer = torch.optim.Adam(net.parameters(), amsgrad=True)
    net(torch.ones(2, 3)).sum().backward()
    optimizer.step()
    kinds = (torch.float16, torch.bfloat16, torch.float64, torch.complex64, torch.int8, torch.uint8, torch.bool)
    content = {
        "net": net.state_dict(), "optimizer": optimizer.state_dict(), "parameters": list(net.parameters()),
        "kinds": [torch.zeros(3, dtype=kind) for kind in kinds], "dtype": torch.float32, "bytes": b"\xff\x00",
        "numbers": (1, -2, 2**70, 1.5, True, None, float("nan")), 3: {(1, "a"): []},
        "expanded": torch.zeros(1).expand(SLACK // 8), "shape": torch.Size([1, 2]), "device": torch.device("cpu"),
    }  # fmt: skip
    torch.save(content, tmp_path / "file.pt")
    found = load_data(tmp_path / "file.pt")
    assert repr(found["numbers"]) == repr(content["numbers"])
    assert found["bytes"] == b"\xff\x00"
    assert found.keys() == content.keys()
    torch.save(content, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(CheckpointError, match="in the format of torch before 1.6: load it with torch and save it again"):
        load_data(tmp_path / "old.pt")


def test_a_file_of_holes_is_not_read(tmp_path: Path) -> None:
    path = BOMBS["an opcode"].write(tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "holes.pt", "w") as archive:
        archive.writestr("archive/data.pkl", BOMBS["an opcode"].text)
    with open(tmp_path / "holes.pt", "r+b") as file:
        end = file.read()[-200:]
        file.truncate(100 << 30)
        file.seek(0, os.SEEK_END)
        file.write(end)
    with pytest.raises(CheckpointError):
        load_data(tmp_path / "holes.pt")
    os.truncate(path, 100 << 30)
    with pytest.raises(CheckpointError):
        load_data(path)


def damage_digest(run: Path) -> None:
    (run / "checkpoints/step_000000000004.sha256").write_bytes(b"\xff\xfe")


def folder_for_digest(run: Path) -> None:
    (run / "checkpoints/step_000000000004.sha256").unlink()
    (run / "checkpoints/step_000000000004.sha256").mkdir()
    (run / "checkpoints/step_000000000004.sha256/file").write_text("text")


def link_to_nothing(run: Path) -> None:
    (run / "checkpoints/step_000000000004.pt").unlink()
    (run / "checkpoints/step_000000000004.pt").symlink_to(run / "nothing")


def holes(run: Path) -> None:
    os.truncate(run / "checkpoints/step_000000000004.pt", 10**12)


def content(**changes: Any) -> Callable[[Path], None]:
    """The newest checkpoint has another content, and its digest is right."""

    def setup(run: Path) -> None:
        path = run / "checkpoints/step_000000000004.pt"
        whole = torch.load(path, weights_only=True)
        state = whole["state"] | {key: value for key, value in changes.items() if key in whole["state"]}
        torch.save(whole | {"state": state} | {key: value for key, value in changes.items() if key in whole}, path)
        path.with_suffix(".sha256").write_text(hashlib.sha256(path.read_bytes()).hexdigest())

    return setup


@pytest.mark.parametrize(
    ("setup", "said"),
    [
        (damage_digest, "its .sha256 cannot be read"),
        (folder_for_digest, "its .sha256 cannot be read"),
        (link_to_nothing, "it cannot be read|it is no file"),
        (holes, r"it has 1,000,000,000,000 bytes of which most are holes"),
        (content(state={}), "its state is not that of a run"),
        (content(state=[]), "its state is no mapping"),
        (content(run=[]), "its state is not that of a run"),
        (content(finished=None), "its state is not that of a run"),
        (content(rows=[1]), "its rows are no counts"),
        (content(rows={"metrics": -1}), "its rows are no counts"),
        (content(rows={"metrics": "4"}), "its rows are no counts"),
        (content(step="4"), "its step is no count"),
        (content(step=-4), "its step is no count"),
        (content(logged=1.5), "its last logged step is no count"),
        (content(latest=[1]), "its latest values are no numbers"),
        (content(glance={"a": "b"}), "its glance values are no numbers"),
    ],
)
def test_damaged_newest_checkpoint_is_passed_over_and_the_run_ends_as_it_would_have(
    tmp_path: Path, begun: Path, setup: Callable[[Path], None], said: str
) -> None:
    setup(begun)
    Run.check(begun, CONFIG)
    with pytest.warns(UserWarning, match=f"({said}).*falling back to step_000000000002.pt"):
        run = Run.open(begun, CONFIG)
    with run:
        assert run.step == 2
        drive(run, 10, save_at=4)
    with Run.open(tmp_path / "whole", CONFIG) as run:
        drive(run, 10)
    assert (begun / "metrics.csv").read_bytes() == (tmp_path / "whole/metrics.csv").read_bytes()


@pytest.mark.parametrize("text", ["", "[{", "{}", "[5]", '[{"machine": 5}]', "null", "[" * 100_000, '"' + "\xff"])
def test_lost_note_of_the_sessions_is_written_anew(begun: Path, text: str) -> None:
    (begun / "environment.json").write_text(text, encoding="latin1")
    with pytest.warns(UserWarning, match=r"environment.json (is damaged|is not the note .*): it begins again"):
        run = Run.open(begun, CONFIG)
    with run:
        drive(run, 10)
    (session,) = json.loads((begun / "environment.json").read_text())
    assert session["step"] == 4


def test_other_versions_are_said(begun: Path) -> None:
    path = begun / "environment.json"
    sessions = json.loads(path.read_text())
    sessions[-1]["packages"]["torch"] = "1.0"
    path.write_text(json.dumps(sessions))
    with pytest.warns(UserWarning, match=r"goes on with torch .* \(1.0 before\): numbers may differ in their last digits"):
        Run.open(begun, CONFIG).close()
    Run.open(begun, CONFIG).close()  # said once


def test_speeds_are_no_reason_to_stop(begun: Path) -> None:
    (begun / "timing.csv").write_text("step\n")
    Run.check(begun, CONFIG)
    with Run.open(begun, CONFIG) as run:
        with pytest.warns(UserWarning, match="timing.csv has 0 whole rows.*: it begins again"):
            run.log(5, {"return/mean": 0.0, "plasticity/dead_units": 0.0}, timing={"time/x": 1.0})
    assert (begun / "timing.csv").read_text() == "step,time/x\n5,1.0\n"


def test_state_of_another_shape_is_one_line(begun: Path) -> None:
    for wrong in ({}, {"groups": None}, {"groups": 5}):
        content(run=wrong)(begun)
        with Run.open(begun, CONFIG) as run, pytest.raises(RunError, match="does not fit this version"):  # noqa: PT012
            with run.continuing():
                run.state["groups"][0].load_state_dict()  # type: ignore[index]


def test_damaged_checkpoint_of_the_same_step_makes_way(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    (tmp_path / "step_000000000004.pt").mkdir()
    (tmp_path / "step_000000000004.sha256").mkdir()
    (tmp_path / "step_000000000004.sha256/file").write_text("text")
    checkpoints.save(4, {"x": 1})
    assert checkpoints.load()["state"]["x"] == 1  # type: ignore[index]


@pytest.mark.parametrize("what", INSTEAD)
@pytest.mark.parametrize("name", ["sgd", "sgd/events.out.tfevents.1.x"])
def test_nothing_outside_changes_where_a_stacks_method_has_its_curves(
    tmp_path: Path, outside: Path, name: str, what: str
) -> None:
    (tmp_path / "run/sgd").mkdir(parents=True)
    remove(tmp_path / "run" / name)
    INSTEAD[what](tmp_path / "run" / name, outside)
    with contextlib.suppress(LoggerError), Run.open(tmp_path / "run", CONFIG) as run:
        run.log_runs(1, {"accuracy": [0.1, 0.2]}, groups=["sgd", "sgd"])
    assert [path.name for path in outside.iterdir()] == ["file"]
    assert (outside / "file").read_text() == "precious\n"
