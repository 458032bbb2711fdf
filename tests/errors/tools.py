"""The other commands."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
import yaml
from torch import nn

from continual_agents.runs import Checkpoints
from continual_agents.runs.checkpoint import FORMAT
from tests.errors.case import BASES, Case, cases
from tests.errors.files import Touch, a_file, checkpoint, packed
from tests.tools.made_up import agent_run, stream_run
from tools.train import jobs

FACTORY = """\
import torch
def make(): return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 1))
def five(): return 5
"""


def run(name: str = "", content: str | bytes = "", make: Callable[..., Path] = agent_run) -> Callable[[Path], None]:
    """A run folder in which one file is another."""

    def setup(folder: Path) -> None:
        made = make(folder / "run")
        if name:
            text = content.replace("{tmp}", str(folder)) if isinstance(content, str) else content
            (made / name).write_bytes(text.encode() if isinstance(text, str) else text)

    return setup


def without(name: str, instead: Callable[[Path], object] = lambda path: None) -> Callable[[Path], None]:
    """A run folder in which one file is gone, or something else in its place."""

    def setup(folder: Path) -> None:
        path = agent_run(folder / "run") / name
        path.unlink()
        instead(path)

    return setup


def link(path: Path) -> None:
    path.symlink_to("/dev/zero")


def recordable(*gone: str, **changed: Any) -> Callable[[Path], None]:
    """A run with a checkpoint, in whose config.yaml some keys are gone or another thing."""

    def setup(folder: Path) -> None:
        config = jobs([*BASES["agent"].split(), f"folder={folder / 'run'}"])[0]
        for key in (*gone, *changed):
            *groups, name = key.split("__")
            part = config
            for group in groups:
                part = part[group]
            part.pop(name)
            if key in changed:
                part[name] = changed[key]
        (folder / "run").mkdir()
        (folder / "run/config.yaml").write_text(yaml.safe_dump(config))
        Checkpoints(folder / "run/checkpoints").save(512, {"run": {"learner": {}}})

    return setup


def broken(folder: Path) -> None:
    """An environment whose package is there and cannot be imported."""
    if "Broken-v0" not in gymnasium.registry:
        gymnasium.register("Broken-v0", entry_point="no_such_package:Broken")
    recordable(experiment__environment__id="Broken-v0", experiment__environment__friction=None)(folder)


def run_and_file(folder: Path) -> None:
    agent_run(folder / "run")
    a_file(folder)


def model(folder: Path) -> None:
    """What tools.diagnose needs, and what it must refuse."""
    (folder / "net.py").write_text(FACTORY)
    weights = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1)).state_dict()
    torch.save(weights, folder / "weights.pt")
    torch.save({"agent": {"steps": 1}}, folder / "nested.pt")
    torch.save(Touch(folder), folder / "evil.pt")
    (folder / "bomb.pt").write_bytes(packed(weights))
    (folder / "text.pt").write_text("text")
    (folder / "text.npy").write_text("text")
    np.save(folder / "objects.npy", np.array([Touch(folder)], dtype=object))


def pictures(folder: Path) -> None:
    (folder / "src/n01").mkdir(parents=True)
    (folder / "src/n01/0.jpg").write_text("text")


def elsewhere(folder: Path) -> None:
    pictures(folder)
    shutil.move(folder / "src/n01", folder / "n01")
    (folder / "src/n01").symlink_to(folder / "n01")


# fmt: off
FIGURES = [
    *cases(
        ("", "the following arguments are required: RUN_FOLDER"),
        ("{tmp}/none", "{tmp}/none is not a folder: give run folders, or a folder that holds some"),
        ("{tmp}", "no run in {tmp}: a run folder holds config.yaml and metrics.csv", "an empty folder"),
        ("{tmp}/file", "{tmp}/file is not a folder: give run folders, or a folder that holds some", "", a_file),
        ("{tmp}/run", "no run in {tmp}/run: a run folder holds config.yaml and metrics.csv", "without metrics.csv", without("metrics.csv")),
        ("{tmp}/run", "{tmp}/run/metrics.csv holds no whole row: nothing was logged yet", "whose metrics.csv is cut short", run("metrics.csv", "step,x\n1,")),
        ("{tmp}/run", "{tmp}/run/metrics.csv is no table: it was changed or damaged", "whose metrics.csv is no text", run("metrics.csv", b"\x00\xff\x80\n\n\n")),
        ("{tmp}/run", "{tmp}/run/metrics.csv has no column 'step': it is not the table of a run", "whose metrics.csv is another table", run("metrics.csv", "a,b\n1,2\n")),
        ("{tmp}/run", "{tmp}/run/metrics.csv has text in its column 'step', 'abc' in line 2: it was changed or damaged", "whose steps are words", run("metrics.csv", "step,x\nabc,2\n")),
        ("{tmp}/run", "{tmp}/run/metrics.csv is no table: it was changed or damaged", "whose rows differ in length", run("metrics.csv", "step,x\n1,2\n1,2,3\n")),
        ("{tmp}/run", "{tmp}/run/metrics.csv has rows longer than its header: it was changed or damaged", "whose rows are longer than its header", run("metrics.csv", "step,x\n1,2,3\n1,2,3\n")),
        *(
            ("{tmp}/run", f"{{tmp}}/run/metrics.csv has step {said} in line 3: a whole number from 0 to 9007199254740992 is needed, so it was changed or damaged", f"with the step {step or 'left out'}", run("metrics.csv", f"step,x\n1,2\n{step},2\n"))
            for step, said in (("nan", "nan"), ("inf", "inf"), ("1e300", "1e+300"), ("-5", "-5"), ("1.5", "1.5"), ("", "nan"))
        ),
        ("{tmp}/run", "{tmp}/run/episodes.csv has text in its column 'return', 'x' in line 2: it was changed or damaged", "with a word in episodes.csv", run("episodes.csv", "step,return,friction,task\n1,x,1,0\n")),
        ("{tmp}/run", "{tmp}/run/metrics.csv is a link where a file belongs: do not use this folder", "whose metrics.csv is a link", without("metrics.csv", link)),
        ("{tmp}/run", "{tmp}/run/config.yaml is a pipe or socket where a file belongs: do not use this folder", "whose config.yaml is a pipe", without("config.yaml", os.mkfifo)),
        ("{tmp}/run", "{tmp}/run/metrics.csv has text in its column '\\\\x1b]0;title\\\\x07', 'two' in line 2: it was changed or damaged", "with a column whose name would set the terminal's title", run("metrics.csv", "step,\x1b]0;title\x07\n1,two\n")),
        ("{tmp}/run", "{tmp}/run/episodes.csv has no column 'step': it is not the table of a run", "whose episodes.csv is another table", run("episodes.csv", "a,b\n1,2\n")),
        ("{tmp}/run", "{tmp}/run/runs.csv has no column 'run': it is not the table of a run", "whose runs.csv is another table", run("runs.csv", "a,b\n1,2\n", stream_run)),
        ("{tmp}/run", "{tmp}/run/runs.csv has run 1 again in line 3: it was changed or damaged", "whose runs.csv has a run twice", run("runs.csv", "run,seed\n1,2\n1,3\n", stream_run)),
        ("{tmp}/run", "{tmp}/run/config.yaml is not a run's configuration: no text", "whose config.yaml is no text", run("config.yaml", b"\xff\xfe")),
        ("{tmp}/run --output {tmp}/file/x", "{tmp}/file/x cannot be written (Not a directory): give another --output", "where a file is in the way", run_and_file),
        tool="tools.plot",
    ),
    *cases(
        ("{tmp}/run", "{tmp}/run/metrics.csv has step 1 again in line 3: it was changed or damaged", "whose steps are all the same", run("metrics.csv", "step,x\n1,2\n1,2\n")),
        ("{tmp}/run", "{tmp}/run/metrics.csv has text in its column 'x', 'two' in line 4: it was changed or damaged", "with a word in a metric", run("metrics.csv", "step,x\n1,2\n2,nan\n3,two\n")),
        ("{tmp}/run", "{tmp}/run/config.yaml is a link where a file belongs: do not use this folder", "whose config.yaml is a link to /dev/zero", without("config.yaml", link)),
        ("{tmp}/run", "{tmp}/run/config.yaml is not a run's configuration: could not determine a constructor for the tag 'tag:yaml.org,2002:python/object/apply:os.system' in line 1", "whose config.yaml has a Python tag", run("config.yaml", "a: !!python/object/apply:os.system ['touch {tmp}/it_ran']\n")),
        ("{tmp}/none", "{tmp}/none is not a folder: give run folders, or a folder that holds some"),
        ("{tmp}/run --output {tmp}/run", "{tmp}/run cannot be written (Is a directory): give another --output", "where a folder is in the way", run()),
        tool="tools.report",
    ),
]
TWO_RUNS = "the checkpoint in {tmp}/run does not fit its config.yaml: they are of two runs"
RECORD = cases(
    *(
        ("{tmp}/run", f"{{tmp}}/run/config.yaml has no '{said}': it is not the configuration of a run", given, recordable(key))
        for given, key, said in (
            ("without a method", "method", "method"),
            ("whose method has no name", "method__name", "method.name"),
            ("without an environment", "experiment__environment", "environment"),
            ("without a seed", "seed", "seed"),
            ("without the agent's settings", "experiment__agent", "agent"),
        )
    ),
    ("{tmp}/run", "experiment.agent=5: settings by name are needed, as experiment.agent.NAME=VALUE", "whose agent is a number", recordable(experiment__agent=5)),
    ("{tmp}/run", "experiment and method are chosen by name, and their keys set as experiment.KEY=VALUE", "whose method is a number", recordable(method=5)),
    # one environment is watched, whatever this says
    ("{tmp}/run", TWO_RUNS, "without a count of environments", recordable("experiment__environment__count")),
    ("{tmp}/run", TWO_RUNS, "whose count of environments is a word", recordable(experiment__environment__count="abc")),
    ("{tmp}/run", "environment.id='Broken-v0' cannot be made: ModuleNotFoundError: No module named 'no_such_package'", "whose environment cannot be imported", broken),
    ("{tmp}/run", "experiment.environment=5: settings by name are needed, as experiment.environment.NAME=VALUE", "whose environment is a number", recordable(experiment__environment=5)),
    ("{tmp}/run", "seed=abc: a whole number is needed", "whose seed is a word", recordable(seed="abc")),
    ("{tmp}/run", TWO_RUNS, "whose checkpoint is of another network", recordable()),
    ("{tmp}/run", "none of the 1 checkpoints in {tmp}/run/checkpoints is whole (step_000000000512.pt: it holds no policy): start in a new folder", "whose checkpoint is empty", checkpoint({"format": FORMAT, "step": 512, "state": {}})),
    ("{tmp}/none", "{tmp}/none is not a run folder: it has no config.yaml"),
    ("{tmp}/run", "{tmp}/run has no checkpoint yet: the run saves its first one after a while", "without a checkpoint", run()),
    ("{tmp}/run", "{tmp}/run is not a reinforcement learning run: there is nothing to watch", "of a stream", run(make=stream_run)),
    ("{tmp}/run --friction low", "argument --friction: invalid float value: 'low'", "", run()),
    ("{tmp}/run --seconds 0.01", "--seconds=0.01: too short for a picture, there are 30 in a second", "", run()),
    ("{tmp}/run --output x.avi", "x.avi: the name must end in .mp4 or .gif", "", run()),
    ("{tmp}/run --checkpoint {tmp}/file", "{tmp}/file is not a file of torch.save, or is damaged", "some other file", run_and_file),
    ("{tmp}/run", "{tmp}/run/config.yaml: experiment._target_=os.system: a configuration here cannot name code to run; remove it", "whose config.yaml names code", run("config.yaml", "experiment:\n  kind: agent\n  _target_: os.system\n")),
    ("{tmp}/run", "{tmp}/run/config.yaml: experiment.environment.id=evil:Walker-v0 names a module to import: register it and give its id", "whose config.yaml names a module", run("config.yaml", "experiment:\n  kind: agent\n  environment: {id: 'evil:Walker-v0'}\n")),
    tool="tools.record",
)
DIAGNOSE = cases(
    ("net {tmp}/weights.pt --data normal:5,3", "net: expected module:name or file.py:name of a callable that makes the network"),
    ("nowhere:make {tmp}/weights.pt --data normal:5,3", "nowhere cannot be imported: No module named 'nowhere'"),
    ("{tmp}/none.py:make {tmp}/weights.pt --data normal:5,3", "{tmp}/none.py cannot be imported: no file {tmp}/none.py"),
    ("{tmp}/net.py:build {tmp}/weights.pt --data normal:5,3", "{tmp}/net.py has no 'build'"),
    ("{tmp}/net.py:five {tmp}/weights.pt --data normal:5,3", "{tmp}/net.py:five made a int, not a torch.nn.Module"),
    ("{tmp}/net.py:make {tmp}/weights.pt --data normal:5,3 --arguments 5", "--arguments 5: expected a JSON object, as '{\"hidden\": 256}'"),
    ("{tmp}/net.py:make {tmp}/weights.pt --data normal:5,3 --arguments '{\"width\": 1}'", "{tmp}/net.py:make does not take these --arguments: make() got an unexpected keyword argument 'width'"),
    ("{tmp}/net.py:make {tmp}/none.pt --data normal:5,3", "{tmp}/none.pt cannot be read (No such file or directory): save the network's state_dict() alone"),
    ("{tmp}/net.py:make {tmp}/text.pt --data normal:5,3", "{tmp}/text.pt is not a file of torch.save, or is damaged: save the network's state_dict() alone"),
    ("{tmp}/net.py:make {tmp}/evil.pt --data normal:5,3", "{tmp}/evil.pt asks for code to be run: do not use this file"),
    ("{tmp}/net.py:make {tmp}/bomb.pt --data normal:5,3", "{tmp}/bomb.pt is compressed, which torch.save never does: do not use this file"),
    ("{tmp}/net.py:make {tmp}/nested.pt --data normal:5,3", "{tmp}/nested.pt holds no state dict: choose with --key from agent"),
    ("{tmp}/net.py:make {tmp}/nested.pt --data normal:5,3 --key agent.actor", "--key agent.actor: no 'actor' there, only steps"),
    ("{tmp}/net.py:make {tmp}/weights.pt --data normal:5,x", "normal:5,x: expected normal:ROWS,DIM,... with whole numbers from 1"),
    ("{tmp}/net.py:make {tmp}/weights.pt --data normal:5,7", "a batch of shape [5, 7] does not go: mat1 and mat2 shapes cannot be multiplied (5x7 and 3x4)"),
    ("{tmp}/net.py:make {tmp}/weights.pt --data {tmp}/none.npy", "{tmp}/none.npy cannot be read (No such file or directory): check the path and its rights"),
    ("{tmp}/net.py:make {tmp}/weights.pt --data {tmp}/text.npy", "{tmp}/text.npy is no .npy array of numbers: save one batch of inputs with numpy.save"),
    ("{tmp}/net.py:make {tmp}/weights.pt --data {tmp}/objects.npy", "{tmp}/objects.npy is no .npy array of numbers: save one batch of inputs with numpy.save"),
    ("{tmp}/net.py:make {tmp}/weights.pt --data {tmp}/evil.pt", "{tmp}/evil.pt asks for code to be run: do not use this file"),
    ("{tmp}/net.py:make {tmp}/weights.pt --data {tmp}/nested.pt", "{tmp}/nested.pt holds a dict, not a tensor: save one batch of inputs"),
    ("{tmp}/net.py:make {tmp}/weights.pt --data data.csv", "data.csv: expected a .npy or .pt file with one batch, or normal:ROWS,DIM,..."),
    tool="tools.diagnose",
    setup=model,
)
PREPARE = cases(
    ("imagenet {tmp}/none {tmp}/x.npy", "{tmp}/none: no such folder; give the folder of the archives, arrays or pictures"),
    ("imagenet {tmp} {tmp}/x.npy", "{tmp}: no train_data_batch_*.npz, .npy files or folders in it; see docs/data.md for the formats", "an empty folder"),
    ("imagenet {tmp} {tmp}/x.npy --classes 0", "classes=0: at least 1"),
    ("imagenet {tmp} {tmp}/x.npy --classes some", "argument --classes: invalid int value: 'some'"),
    ("imagenet {tmp}/src {tmp}/x.npy", "{tmp}/src: 1 folders of pictures, 1000 needed; add the missing classes", "too few folders", pictures),
    ("imagenet {tmp}/src {tmp}/x.npy --classes 1 --images 1", "{tmp}/src/n01: a link to {tmp}/n01, out of {tmp}/src; give the folder that holds the data, or --follow-links if you made this link", "a link that leads out of the folder", elsewhere),
    tool="tools.prepare_data",
)
OTHERS = cases(
    ("env --rounds 0", "--rounds=0 --steps=500: both must be at least 1"),
    tool="campaigns.benchmark",
)
# fmt: on

TOOLS: dict[str, list[Case]] = {
    "Figures and reports": FIGURES,
    "Videos": RECORD,
    "Diagnoses": DIAGNOSE,
    "Preparing data": PREPARE,
    "Comparisons": OTHERS,
}
