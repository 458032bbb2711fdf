"""`pytest -m slow tests/campaigns`: run folders that a stranger made are read, or refused in one line; nothing else."""

import gzip
import hashlib
import importlib
import os
import random
import re
import shutil
import struct
import time
import traceback
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from continual_agents.runs.checkpoint import load_data
from continual_agents.runs.files import read_file
from tests.campaigns.bounds import Late, bounded
from tests.campaigns.test_overrides import VALUES
from tests.errors.case import BASES
from tests.runs.test_strangers import BOMBS, INSTEAD, remove
from tools import train
from tools.command_line import _dotted

SEED, COUNT = int(os.environ.get("SEED", 0)), int(os.environ.get("COUNT", 120))
SECONDS, MEMORY, REFUSED_WITHIN = 60, 2 * 10**9, 5
TITLE = "\x1b]0;t\x07\x9b2J\u202e$\\frac{1}$"
LENGTHS = {
    "agent": ["experiment.steps=1024", "experiment.agent.epochs=1", "method=continual_backprop"],
    "gymnasium": ["experiment.steps=1024", "method=ppo"],
    "digits": ["experiment.tasks=2", "experiment.methods=[backprop,continual_backprop]", "experiment.seeds=2"],
}
TOOLS: dict[str, Callable[[Path], list[str]]] = {
    "plot": lambda run: [str(run)],
    "report": lambda run: [str(run)],
    "record": lambda run: [str(run), "--seconds", "0.05"],
    "diagnose": lambda run: [str(run)],
    "evaluate": lambda run: [str(run), "--episodes", "1"],
}
NAMES = (
    *("config.yaml", "environment.json", ".lock", ".lock.1", ".lock.2", ".lock.9", "log.txt", "metrics.csv"),
    *("episodes.csv", "runs.csv", "timing.csv", "checkpoints", "events.out.tfevents.9999999999.x", "comparison"),
    *("figure.png", "figure.svg", "table.csv", "table.md", "report.html", "video.mp4", "evaluation.png"),
    *("evaluation.csv", "evaluation.svg", "backprop", "backprop/events.out.tfevents.1.x", "wandb", "videos"),
    *("comparison/events.out.tfevents.9999999999.x", f".config.yaml.{os.getpid()}.tmp", f".video.{os.getpid()}.mp4"),
    *("figure_sweep.png", f".figure.png.{os.getpid()}.tmp", f"checkpoints/.step_000000000512.pt.{os.getpid()}.tmp"),
)
YAML = (
    *("z: " + "1:" * 20_000 + "1", "z: " + "9" * 60_000, "[" * 60_000, "{" + "a," * 30_000 + "}", "x" * 70_000),
    *("a: &a [1]\nb: *a", "!!python/object/apply:os.system ['true']", "a: !!binary x", "? [1]\n: 2", "", "5", "\0"),
    *("<<: {a: 1}", "experiment: 5\nmethod: 6", "experiment: {kind: agent}\nmethod: {name: x}", "a: 1\na: 2"),
)
CELLS = (
    *("nan", "inf", "-inf", "1e300", "-1", "1e-320", "", "text", "=1+1", TITLE, '"', "9" * 400, "x" * 100_000, "1,2,3"),
    *("1.5", "0x10", "True", "1_0", "\0", "\r", "é", "\ud7ff", " 7 ", "1e308", "9007199254740993"),
)


def png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(10_000_000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def zip_bomb() -> bytes:
    packed = zlib.compressobj(9, zlib.DEFLATED, -15)
    return b"PK\x03\x04" + packed.compress(bytes(50_000_000)) + packed.flush()


JUNK: dict[str, Callable[[random.Random], bytes]] = {
    "noise": lambda draws: draws.randbytes(1000),
    "nothing": lambda draws: b"",
    "gz": lambda draws: gzip.compress(bytes(200_000_000), 1),
    "png": lambda draws: png(100_000, 100_000),
    "zip": lambda draws: zip_bomb(),
    "lines": lambda draws: b"\n" * 1_000_000,
    "a line": lambda draws: b"1," * 5_000_000,
}


def instead(run: Path, outside: Path, draws: random.Random) -> str:
    """Another kind of thing where a file or folder belongs."""
    there = [str(path.relative_to(run)) for path in sorted(run.rglob("*"))]
    name, what = draws.choice([*NAMES, *there]), draws.choice(list(INSTEAD))
    (run / name).parent.mkdir(parents=True, exist_ok=True)
    remove(run / name)
    INSTEAD[what](run / name, outside)
    return f"{what} for {name}"


def a_file(run: Path, draws: random.Random) -> Path:
    return draws.choice([path for path in sorted(run.rglob("*")) if path.is_file() and not path.is_symlink()])


def junk(run: Path, outside: Path, draws: random.Random) -> str:
    """A file that is something else, or unpacks to very much."""
    path, kind = a_file(run, draws), draws.choice(list(JUNK))
    path.write_bytes(JUNK[kind](draws))
    return f"{kind} in {path.name}"


def hole(run: Path, outside: Path, draws: random.Random) -> str:
    path = a_file(run, draws)
    os.truncate(path, draws.choice((10**8, 10**9, 10**12)))
    return f"a hole in {path.name}"


def text_of(path: Path) -> str:
    """What a file holds, unless an earlier change has made it a pipe, a device or a hole."""
    return read_file(path, most=10**6).decode()


def put(path: Path, text: str) -> None:
    """A file in place of whatever is there, which may be a pipe by now."""
    remove(path)
    path.write_text(text)


def text_of_config(run: Path, outside: Path, draws: random.Random) -> str:
    number = draws.randrange(len(YAML))
    put(run / "config.yaml", YAML[number])
    return f"yaml {number}"


def setting(run: Path, outside: Path, draws: random.Random) -> str:
    """Another value, of any kind, in config.yaml; the folder's tables and checkpoints are of the old one."""
    config = yaml.safe_load(text_of(run / "config.yaml"))
    key = draws.choice(_dotted(config))
    *groups, name = key.split(".")
    part: Any = config
    for group in groups:
        part = part[group]
    now, kind = part[name], draws.random()
    if isinstance(now, int | float) and kind < 0.4:
        part[name] = now * draws.choice((-1, 0, 0.5, 1000, 10**6, 10**12))
    elif kind < 0.5:
        del part[name]
    else:
        value = draws.choice(VALUES)
        try:
            part[name] = yaml.safe_load(value)
        except (yaml.YAMLError, ValueError):
            part[name] = value.encode("utf-8", "replace").decode()
    written = part.get(name, "gone")
    try:
        put(run / "config.yaml", yaml.safe_dump(config))
    except (ValueError, yaml.YAMLError):
        return "nothing"
    return f"{key}: {str(written)[:100]}"


def words(run: Path, outside: Path, draws: random.Random) -> str:
    """Escape codes and formulas in the names that are shown."""
    config = yaml.safe_load(text_of(run / "config.yaml"))
    for part in ("experiment", "method"):
        config[part]["name"] = draws.choice((TITLE, "=1+1" + TITLE, "x" * 5000, "../../x", "<script>", "a\nb", ""))
    put(run / "config.yaml", yaml.safe_dump(config))
    return "names"


def table(run: Path, outside: Path, draws: random.Random) -> str:
    """A cell of a table, its header or a row of it."""
    path = draws.choice(sorted(run.glob("*.csv")))
    rows = [line.split(",") for line in text_of(path).splitlines()]
    row, value = draws.choice(rows), draws.choice(CELLS)
    place = draws.randrange(len(row))
    kind = draws.random()
    if kind < 0.7:
        row[place] = value
    elif kind < 0.85:
        for one in rows[1:]:
            one[min(place, len(one) - 1)] = value
    else:
        rows.insert(draws.randrange(len(rows) + 1), list(row) * draws.choice((1, 2, 3000)))
    path.write_bytes("\n".join(",".join(one) for one in [*rows, []]).encode("utf-8", "replace"))
    return f"{value[:20]!r} in {path.name}"


def checkpoints(run: Path) -> list[Path]:
    return sorted((run / "checkpoints").glob("step_*.pt"))


def sign(path: Path) -> None:
    put(path.with_suffix(".sha256"), hashlib.sha256(path.read_bytes()).hexdigest())


def bomb(run: Path, outside: Path, draws: random.Random) -> str:
    """A checkpoint that is a program, with the right digest."""
    name = draws.choice(list(BOMBS))
    for path in checkpoints(run):
        remove(path)
        sign(BOMBS[name].write(path))
    return name


def state(run: Path, outside: Path, draws: random.Random) -> str:
    """Something else at one place of the newest checkpoint's tree, with the right digest."""
    path = checkpoints(run)[-1]
    content = load_data(path)
    where, part = [], content
    while True:
        items = list(part.items() if isinstance(part, dict) else enumerate(part))
        key, value = draws.choice(items)
        where.append(str(key))
        if not (isinstance(value, dict | list) and value) or draws.random() < 0.1:
            break
        part = value
    other: Any = draws.choice(
        (None, -1, 10**15, float("nan"), "x" * 10_000, TITLE, [], {}, torch.zeros(0), torch.zeros(10**6), "gone", True)
    )
    if isinstance(part, dict) and other == "gone":
        del part[key]
    elif not isinstance(part, tuple):
        part[key] = other
    remove(path)
    torch.save(content, path)
    sign(path)
    return f"{'/'.join(where)}: {str(other)[:20]!r}"


KINDS = (instead, instead, junk, hole, text_of_config, setting, setting, words, table, table, bomb, state, state)


def snapshot(folder: Path) -> dict[str, Any]:
    """Everything outside the run: what there is, what is in it, when it was changed."""
    found = {}
    for path in [folder, *sorted(folder.rglob("*"))]:
        status = path.lstat()
        content = path.read_bytes() if path.is_file() else b""
        found[str(path)] = (status.st_mode, status.st_mtime_ns, content)
    return found


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Short runs of three kinds, stopped in the middle: each has a checkpoint and tables."""
    made = {}
    for name, words_ in LENGTHS.items():
        made[name] = tmp_path_factory.mktemp(name) / "run"
        train.train_one(train.jobs([*BASES[name].split(), *words_, "save_seconds=0", f"folder={made[name]}"])[0])
    return made


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.filterwarnings("ignore")
def test_strange_folders_are_read_or_refused_in_one_line(
    tmp_path: Path, bases: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (outside := tmp_path / "outside").mkdir()
    (outside / "file").write_text("precious\n")
    (elsewhere := tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(elsewhere)
    draws = random.Random(SEED)
    outcomes: dict[str, list[int]] = {tool: [0, 0] for tool in ("train", *TOOLS)}
    failed, slowest = [], 0.0
    for number in range(COUNT):
        base, tool = draws.choice(list(bases)), draws.choice(list(outcomes))
        run = tmp_path / "runs" / draws.choice(("run", "run\x1b[2J", "=1+1", "a b$\\frac{1}$", "r" * 200))
        shutil.copytree(bases[base], run)
        done = []
        for kind in draws.choices(KINDS, k=draws.choice((1, 1, 2, 3))):
            try:
                done.append(kind(run, outside, draws))
            except (OSError, ValueError, LookupError, AttributeError, TypeError, RuntimeError, yaml.YAMLError):
                done.append("nothing")  # what it changes is a pipe by now
        longer = {
            "agent": "experiment.steps=1536",
            "gymnasium": "experiment.steps=2048",
            "digits": "experiment.tasks=3",
        }
        words_ = [*BASES[base].split(), *LENGTHS[base], longer[base], "save_seconds=0", f"folder='{run}'"]
        given = TOOLS[tool](run) if tool != "train" else words_
        before, wrong, refused = snapshot(outside) | snapshot(elsewhere), "", False
        capsys.readouterr()
        started = time.process_time()
        try:
            with bounded(SECONDS, MEMORY):
                importlib.import_module(f"tools.{tool}").main(given)
        except SystemExit as ended:
            refused, taken = True, time.process_time() - started
            said = capsys.readouterr().err
            slowest = max(slowest, taken)
            if ended.code not in (1, 2) or not re.fullmatch(r"((?!error).*\n)*error: .{1,1500}\n", said):
                wrong = f"{ended.code}: {said[-3000:]!r}"
            elif taken > REFUSED_WITHIN:
                wrong = f"refused after {taken:.1f} s: {said[-1000:]!r}"
            elif controls := re.findall("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202e]", said):
                wrong = f"{controls}: {said!r}"
        except (Exception, Late):
            wrong = traceback.format_exc()[-2500:]
        else:
            shown = "".join(capsys.readouterr())
            if controls := re.findall("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202e]", shown):
                wrong = f"{controls}: {shown[-1000:]!r}"
        outcomes[tool][refused] += 1
        if before != snapshot(outside) | snapshot(elsewhere):
            wrong += f" changed outside: {sorted(path.name for path in tmp_path.rglob('*'))[:20]}"
            shutil.rmtree(outside)
            outside.mkdir()
            (outside / "file").write_text("precious\n")
        if wrong:
            failed.append(f"case {number} of seed {SEED}: {tool} {base} {done}: {wrong}")
            with capsys.disabled():
                print(failed[-1], flush=True)
        shutil.rmtree(tmp_path / "runs")
    print(f"(read, refused): {outcomes}; the slowest refusal took {slowest:.1f} s")
    assert not failed, f"{len(failed)}\n" + "\n\n".join(failed)
