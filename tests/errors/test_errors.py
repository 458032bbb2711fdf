"""Everything a person can get wrong: one line to the letter, exit code 2, and no file touched."""

import importlib
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from continual_agents.runs.lock import holder
from supervised.streams.permuted import load_images
from tests.errors import files
from tests.errors.case import Case
from tests.errors.page import PAGE, SECTIONS, text

ROOT = Path(__file__).resolve().parents[2]
CASES = [case for cases in SECTIONS.values() for case in cases]


def words_of(case: Case, folder: Path) -> list[str]:
    words = shlex.split(case.command.replace("{tmp}", str(folder)))
    if case.tool == "tools.train" and not any(word.startswith("folder=") for word in words):
        words.append(f"folder={folder / 'run'}")
    return words


def tree(folder: Path) -> dict[str, bytes | None]:
    """Every file below a folder and what is in it; the lock is not counted."""
    paths = [path for path in folder.rglob("*") if not path.name.startswith(".lock")]
    return {str(path): path.read_bytes() if path.is_file() and not path.is_symlink() else None for path in paths}


def name_of(case: Case) -> str:
    return " ".join(filter(None, [case.tool, case.base, case.words, case.given]))


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_one_line_exit_code_2_and_nothing_touched(
    case: Case,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    monkeypatch.chdir(tmp_path)
    if case.setup is not None:
        case.setup(tmp_path)
    if case.hidden:
        load_images.cache_clear()
        monkeypatch.setitem(sys.modules, case.hidden, None)
    monkeypatch.setattr("tools.memory.available", lambda: 16 * 10**9)
    before = tree(tmp_path)
    request.addfinalizer(lambda: [files.HELD.pop().close() for _ in list(files.HELD)])
    capsys.readouterr()
    main = importlib.import_module(case.tool).main
    monkeypatch.setattr(sys, "argv", ["", *words_of(case, tmp_path)])
    with pytest.raises(SystemExit) as caught:
        raise SystemExit(main(words_of(case, tmp_path)))  # some return their exit code
    said = capsys.readouterr().err
    message = case.message.replace("{tmp}", str(tmp_path))
    if "{holder}" in message:
        message = message.replace("{holder}", str(holder(tmp_path / "run")))
    assert said == f"error: {message}\n"
    assert caught.value.code == 2
    assert tree(tmp_path) == before


def test_the_page_is_made_of_these_cases() -> None:
    assert PAGE.read_text(encoding="utf-8") == text(), "docs/errors.md is stale: python -m tests.errors.page"


@pytest.mark.parametrize("case", [SECTIONS["Names"][1], SECTIONS["Run folders"][0]], ids=name_of)
def test_the_shell_gets_the_line_and_the_exit_code(case: Case, tmp_path: Path) -> None:
    if case.setup is not None:
        case.setup(tmp_path)
    command = [sys.executable, "-m", case.tool, *words_of(case, tmp_path)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    message = case.message.replace("{tmp}", str(tmp_path))
    assert (result.returncode, result.stdout, result.stderr) == (2, "", f"error: {message}\n")
