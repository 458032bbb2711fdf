"""`pytest -m slow tests/campaigns`: random overrides of tools.train are accepted, or refused in one line."""

import os
import random
import re
import traceback
from pathlib import Path
from typing import Any

import pytest

from tests.campaigns.bounds import Late, bounded
from tests.errors.case import BASES
from tools import train
from tools.command_line import _dotted, compose_config

SEED, COUNT = int(os.environ.get("SEED", 0)), int(os.environ.get("COUNT", 400))
SECONDS, MEMORY = 10, 2 * 10**9
BASE = ("agent", "changing", "gymnasium", "dqn", "digits", "regression", "textures", "warm_start")
VALUES = (
    *("abc", "null", "true", "''", "[]", "{}", "[1,2]", "[[1],[2]]", "{a:1}", "[null]", "[true,1.5,x]", "{1:{2:3}}"),
    *("0", "1", "-1", "1.5", "7", "1e3", "1e309", "nan", "inf", "-inf", "1e-320", "4294967296", "1000000", "0x10"),
    *("9" * 20, "-" + "9" * 20, "9" * 5000, "1_000", "[99999999999]", "[1000000,1000000]", "[" + "8," * 500 + "8]"),
    *("${seed}", "${nowhere}", "${oc.env:HOME}", "${oc.env:NOTHING}", "'${'", "${.x}", "${experiment}", "???", "'???'"),
    *("名前", "'\x1b]0;t\x07'", "'a\nb'", "x" * 5000, "é" * 300, "'\u202e$\\frac{1}$'", "'\x00'", "\udcff"),
    *("../../x", "/dev/null", "/etc/passwd", "{_target_:os.system}", "[{_target_:os.system}]", "str(1)", "json_str(1)"),
)
SWEEPS = (
    *("1,2,3", "a,b", "null,1", "range(0,4)", "range(4,0)", "range(0,1e9)", "range(0,5,0)", "range(0,1,0.3)"),
    *("interval(0,1)", "glob(*)", "glob(x*)", "glob([a*,b*])", "choice(1,2)", "tag(t,choice(1,2))", "sort(3,1)"),
    *("shuffle(1,2)", "choice([1],{a:2})", "sort([3,1])", "extend_list(1)", "[1],[2]", "int(1.5),float(x)", "1,1"),
)

GROUPS = ("experiment", "method", "scale", "logger", "hydra.run.dir")
SIGNS = ("+", "++", "~", ".")
HYDRAS = ("hydra.launcher.n_jobs", "hydra/launcher", "hydra.mode", "experiment@x")


def keys_of(base: str) -> dict[str, Any]:
    """Every key that can be set, and its value."""
    from omegaconf import OmegaConf

    config = OmegaConf.to_container(compose_config(base.split()), resolve=False)
    assert isinstance(config, dict)
    found = {}
    for key in _dotted(config):
        value: Any = config
        for part in key.split("."):
            value = value[part]
        found[key] = value
    return found


def a_key(keys: list[str], draws: random.Random) -> str:
    key = draws.choice(keys)
    kind = draws.random()
    if kind < 0.8:
        return key
    place = draws.randrange(len(key))
    mistyped = (key[:place] + key[place + 1 :], f"{key[:place]}é{key[place:]}", *(f"{sign}{key}" for sign in SIGNS))
    strange = (f"{key}.x", f"{key}.", "", "x" * 5000, *GROUPS, key.upper(), *HYDRAS, "a b", f"{key}@:")
    return draws.choice([*mistyped, *strange])


def a_value(now: Any, draws: random.Random) -> str:
    kind = draws.random()
    if kind < 0.15:
        return draws.choice(SWEEPS)
    if kind < 0.5 and isinstance(now, int | float):
        return str(now * draws.choice((-1, 0, 0.5, 3, 1000, 10**6, 10**12)))
    if kind < 0.6 and isinstance(now, list):
        return "[" + ",".join(str(item) for item in now * draws.choice((0, 2, 30))) + "]"
    if kind < 0.65:
        return f"[{now}]"
    return draws.choice(VALUES)


class Nobody:
    """In a launcher's place: no run begins."""

    def __enter__(self) -> "Nobody":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def run(self, configs: Any) -> None:
        pass

    def tell(self, outcomes: Any, count: int) -> int:
        return 0


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.filterwarnings("ignore")
def test_overrides_are_accepted_or_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tools.memory.available", lambda: 5 * 10**8)
    make_launcher = train.make_launcher
    monkeypatch.setattr(train, "make_launcher", lambda words: make_launcher(words) and Nobody())
    monkeypatch.setattr(train, "train_one", lambda config: 0)
    monkeypatch.setattr(train, "draw", lambda *_: None)
    keys: dict[str, dict[str, Any]] = {}
    draws = random.Random(SEED)
    outcomes, failed = {"accepted": 0, "refused": 0}, []
    for number in range(COUNT):
        base = draws.choice(BASE)
        if base not in keys:
            keys[base] = keys_of(BASES[base])
        words = BASES[base].split()
        for _ in range(draws.choice((1, 1, 2))):
            key = a_key(list(keys[base]), draws)
            words.append(f"{key}={a_value(keys[base].get(key), draws)}")
        words += ["-m"] * (draws.random() < (0.8 if any(word.endswith(SWEEPS) for word in words) else 0.05))
        wrong, outcome = "", "accepted"
        capsys.readouterr()
        try:
            with bounded(SECONDS, MEMORY):
                train.main(words)
        except SystemExit as ended:
            outcome, said = "refused", capsys.readouterr().err
            if ended.code != 2 or not re.fullmatch(r"(warning: .*\n)*error: .{1,1500}\n", said):
                wrong = f"{ended.code}: {said[-3000:]!r}"
        except (Exception, Late):
            wrong = traceback.format_exc()[-1500:]
        outcomes[outcome] += 1
        if wrong:
            failed.append(f"case {number} of seed {SEED}: {[word[:200] for word in words]}: {wrong}")
        if made := list(tmp_path.iterdir()):
            failed.append(f"case {number} of seed {SEED}: {words}: made {made}")
    print(outcomes)
    assert not failed, f"{len(failed)}\n" + "\n\n".join(failed)
    assert min(outcomes.values()) > COUNT / 40
