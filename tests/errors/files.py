"""Run folders, data and packages that are not what they should be."""

import gzip
import hashlib
import io
import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from continual_agents.runs import Run
from continual_agents.runs.checkpoint import FORMAT
from tests.errors.case import BASES, Case, cases
from tools.train import jobs

HELD: list[Run] = []
"""Runs that are still open; the test closes them."""
PIXELS = np.ones((3, 28, 28), np.uint8)


class Touch:
    """A pickle that would make the file `it_ran`."""

    def __init__(self, folder: Path):
        self.command = f"touch {folder / 'it_ran'}"

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (self.command,)


def config(folder: Path) -> dict[str, Any]:
    return jobs([*BASES["agent"].split(), f"folder={folder / 'run'}"])[0]


def begun(folder: Path) -> None:
    Run.open(folder / "run", config(folder)).close()


def begun_elsewhere(folder: Path) -> None:
    settings = config(folder)
    settings["experiment"]["name"] = "walk"
    Run.open(folder / "run", settings).close()


def in_use(folder: Path) -> None:
    HELD.append(Run.open(folder / "run", config(folder)))


def with_config(text: str) -> Callable[[Path], None]:
    def setup(folder: Path) -> None:
        (folder / "run").mkdir()
        (folder / "run/config.yaml").write_text(text.replace("{tmp}", str(folder)))

    return setup


def a_file(folder: Path) -> None:
    (folder / "file").write_text("text")


def checkpoint(content: Any, *, whole: bool = True) -> Callable[[Path], None]:
    """A run with one checkpoint file, its digest beside it: what `content` gives, written by torch.save or as it is."""

    def setup(folder: Path) -> None:
        begun(folder)
        path = folder / "run/checkpoints/step_000000000512.pt"
        made = content(folder) if callable(content) else content
        if isinstance(made, bytes):
            path.write_bytes(made)
        else:
            torch.save(made, path)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        path.with_suffix(".sha256").write_text(digest if whole else "0" * 64)

    return setup


def packed(content: Any) -> bytes:
    """A checkpoint whose members are compressed, as a bomb's are."""
    plain, made = io.BytesIO(), io.BytesIO()
    torch.save(content, plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    return made.getvalue()


def idx(array: np.ndarray, *, items: int | None = None) -> bytes:
    shape = (len(array) if items is None else items, *array.shape[1:])
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *shape) + array.tobytes()


def mnist(*, images: bytes = idx(PIXELS), labels: bytes = idx(np.zeros(3, np.uint8)), ending: str = "") -> Any:
    def setup(folder: Path) -> None:
        (folder / f"train-images-idx3-ubyte{ending}").write_bytes(images)
        (folder / "train-labels-idx1-ubyte").write_bytes(labels)

    return setup


def imagenet(content: bytes, name: str = "imagenet32.npy") -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(content) and None


def npy(array: Any, *, first: str = "2") -> bytes:
    """A .npy of 2 classes, whose header says something else of their number."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    more = len(first) - 1
    return buffer.getvalue().replace(b"(2, 30, 3, 32, 32), }" + b" " * more, b"(%s, 30, 3, 32, 32), }" % first.encode())


IMAGES = np.zeros((2, 30, 3, 32, 32), np.uint8)
STATE = {"format": FORMAT, "step": 512, "state": {"run": {}, "rows": {}, "finished": False}}

# fmt: off
FILES: dict[str, list[Case]] = {
    "Run folders": cases(
        ("experiment.agent.epochs=5 seed=3", "{tmp}/run holds a run of another configuration (experiment.agent.epochs: 2 there, 5 asked for; seed: 0 there, 3 asked for): continue it with its own settings, or give another folder=...", "in the folder of another setting", begun),
        ("", "{tmp}/run holds a run of another configuration (experiment.name: 'walk' there, 'slippery_ant' asked for): continue it with its own settings, or give another folder=...", "in the folder of another experiment", begun_elsewhere),
        ("", "{tmp}/run is in use by {holder}: wait for it, or give another folder=...", "in a folder that another process uses", in_use),
        ("", "{tmp}/run/config.yaml is not a run's configuration: it holds no settings; give another folder=...", "in a folder whose config.yaml is empty", with_config("")),
        ("", "{tmp}/run/config.yaml is not a run's configuration: no YAML in line 2; give another folder=...", "in a folder whose config.yaml is no YAML", with_config("a: [1\n")),
        ("", "{tmp}/run/config.yaml is not a run's configuration: could not determine a constructor for the tag 'tag:yaml.org,2002:python/object/apply:os.system' in line 1; give another folder=...", "in a folder whose config.yaml has a Python tag", with_config("a: !!python/object/apply:os.system ['touch {tmp}/it_ran']\n")),
        ("", "{tmp}/run/config.yaml is not a run's configuration: an alias in line 2; give another folder=...", "in a folder whose config.yaml has an alias", with_config("a: &x [1]\nb: *x\n")),
        ("folder={tmp}/file", "{tmp}/file cannot be made, {tmp}/file is a file: give another folder=...", "where a file of that name is", a_file),
        ("folder={tmp}/file/run", "{tmp}/file/run cannot be made, {tmp}/file is a file: give another folder=...", "below a file", a_file),
        base="agent",
    ),
    "Checkpoints": cases(
        ("", "none of the 1 checkpoints in {tmp}/run/checkpoints is whole (step_000000000512.pt: its content does not match its .sha256): start in a new folder", "every checkpoint is damaged", checkpoint(STATE, whole=False)),
        ("", "{tmp}/run/checkpoints/step_000000000512.pt has checkpoint format 99, this version reads 2: continue it with the version that wrote it (environment.json names it)", "the checkpoint is of another version", checkpoint(STATE | {"format": 99})),
        ("", "{tmp}/run/checkpoints/step_000000000512.pt is not a checkpoint of this project: give a file of RUN_FOLDER/checkpoints", "the checkpoint is some other file of torch.save", checkpoint([1, 2])),
        ("", "{tmp}/run/checkpoints/step_000000000512.pt is not a file of torch.save, or is damaged", "the checkpoint is some other file", checkpoint(b"no checkpoint")),
        ("", "{tmp}/run/checkpoints/step_000000000512.pt asks for code to be run: do not use this file", "the checkpoint is a pickle that runs a command", checkpoint(lambda folder: STATE | {"state": Touch(folder)})),
        ("", "{tmp}/run/checkpoints/step_000000000512.pt is compressed, which torch.save never does: do not use this file", "the checkpoint is a zip bomb", checkpoint(packed(STATE | {"state": torch.zeros(10_000)}))),
        base="agent",
    ),
    "Data": [
        *cases(
            ("", "MNIST needs experiment.stream.root=FOLDER with its four IDX files (plain or .gz), or also experiment.stream.source=openml to download it there once"),
            ("experiment.stream.root={tmp}/none", "{tmp}/none: no such folder; put the four MNIST files there (plain or .gz), or ask for source='openml'"),
            ("experiment.stream.root={tmp}", "{tmp}: no train-images-idx3-ubyte in it (nor train-images.idx3-ubyte, train-images-idx3-ubyte.gz, train-images.idx3-ubyte.gz); put the four MNIST files there (plain or .gz), or ask for source='openml'", "an empty folder"),
            ("experiment.stream.root={tmp} experiment.stream.source=web", "stream.source=web: one of files, openml is needed"),
            ("experiment.stream.root={tmp}", "{tmp}/train-images-idx3-ubyte: truncated: 2,351 of 2,352 bytes after the header; download it again", "a truncated file", mnist(images=idx(PIXELS)[:-1])),
            ("experiment.stream.root={tmp}", "{tmp}/train-images-idx3-ubyte: bad magic number 0x3c68746d, expected 0x00000803; download it again", "a page in place of a file", mnist(images=b"<html>")),
            ("experiment.stream.root={tmp}", "{tmp}/train-images-idx3-ubyte: promises 4,294,967,295 items, expected 1 to 1,000,000; download it again", "a header that promises 4 billion images", mnist(images=idx(PIXELS, items=2**32 - 1))),
            ("experiment.stream.root={tmp}", "{tmp}/train-images-idx3-ubyte.gz: truncated: 2,351 of 2,352 bytes after the header; download it again", "a truncated .gz", mnist(images=gzip.compress(idx(PIXELS)[:-1]), ending=".gz")),
            ("experiment.stream.root={tmp}", "{tmp}/train-images-idx3-ubyte.gz: longer than the 2,352 bytes that its header promises; download it again", "a .gz bomb", mnist(images=gzip.compress(idx(PIXELS) + bytes(50_000_000)), ending=".gz")),
            ("experiment.stream.root={tmp}", "{tmp}/train-labels-idx1-ubyte: 2 labels for 3 images; take train-labels-idx1-ubyte and train-images-idx3-ubyte from one mirror", "fewer labels than images", mnist(labels=idx(np.zeros(2, np.uint8)))),
            base="mnist",
        ),
        *cases(
            ("", "CIFAR-100 needs experiment.stream.root=FOLDER, with cifar-100-python.tar.gz or cifar-100-binary.tar.gz"),
            ("experiment.stream.root={tmp}", "{tmp}: neither train.bin nor train of CIFAR-100 in it, nor an archive; put cifar-100-binary.tar.gz or cifar-100-python.tar.gz there, or what they hold", "an empty folder"),
            ("experiment.stream.root={tmp}", "{tmp}/train.bin: 3,073 bytes, no multiple of the 3,074 of a record; download it again: it is truncated, or not CIFAR-100's binary form", "a truncated file", lambda folder: folder.joinpath("train.bin").write_bytes(bytes(3073)) and None),
            base="cifar",
        ),
        *cases(
            ("", "ImageNet needs experiment.stream.root=FOLDER, made by python -m tools.prepare_data imagenet SRC FOLDER"),
            ("experiment.stream.root={tmp}/none", "{tmp}/none: no such file; make it with python -m tools.prepare_data imagenet SRC {tmp}/none"),
            ("experiment.stream.root={tmp}", "{tmp}/imagenet32.npy: not finished (run the same command again and it goes on); make it with python -m tools.prepare_data imagenet SRC {tmp}/imagenet32.npy", "a preparation that was cut short", imagenet(b"x", "imagenet32.npy.partial")),
            ("experiment.stream.root={tmp}", "{tmp}/imagenet32.npy: no .npy header, or a damaged one; download it again", "some other file", imagenet(b"text")),
            ("experiment.stream.root={tmp} experiment.stream.classes=2", "{tmp}/imagenet32.npy: truncated: 184,447 of 184,448 bytes; make it again with python -m tools.prepare_data imagenet SRC DST", "a truncated file", imagenet(npy(IMAGES)[:-1])),
            ("experiment.stream.root={tmp}", "{tmp}/imagenet32.npy: shape (30, 3, 32, 32), type uint8; expected [classes, images, 3, 32, 32], uint8; make it with python -m tools.prepare_data imagenet SRC DST", "an array of another shape", imagenet(npy(IMAGES[0]))),
            ("experiment.stream.root={tmp}", "{tmp}/imagenet32.npy: no .npy header, or a damaged one; download it again", "a header with a sum in place of a number", imagenet(npy(IMAGES, first="9**9"))),
            ("experiment.stream.root={tmp}", "{tmp}/imagenet32.npy: truncated: 184,448 of 9,215,999,907,968 bytes; make it again with python -m tools.prepare_data imagenet SRC DST", "a header that promises 9 TB", imagenet(npy(IMAGES, first="99999999"))),
            ("experiment.stream.root={tmp}", "{tmp}/imagenet32.npy: holds Python objects (a pickle); do not use this file, or save it as uint8", "a pickle that runs a command", lambda folder: imagenet(npy(np.array([Touch(folder)], dtype=object)))(folder)),
            base="imagenet",
        ),
    ],
    "Packages": [
        Case("", "the package gymnasium is missing: pip install --constraint constraints.txt -e '.[rl]'", "agent", given="without gymnasium", hidden="gymnasium"),
        Case("", "the digits ship with scikit-learn: pip install scikit-learn", "digits", given="without scikit-learn", hidden="sklearn"),
        Case("logger=wandb", "logger=wandb needs the package wandb: pip install --constraint constraints.txt wandb", "agent", given="without wandb", hidden="wandb"),
    ],
}
# fmt: on
