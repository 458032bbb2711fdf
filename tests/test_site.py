"""The documentation's site builds without a warning and names everything public; its guides' snippets run."""

import contextlib
import io
import os
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch

from campaigns.site import on_page_markdown, public_names
from tests.helpers import ROOT, command, elsewhere
from tools.train import jobs, main

DOCS = ROOT / "docs"
ROOMS = ("surgery", "plasticity", "methods", "networks", "agents", "runs")
PACKAGES = [*(f"continual_agents.{room}" for room in ROOMS), "envs", "supervised"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = command("mkdocs", "build", "--quiet", "--strict", "--site-dir", str(folder), env=environment)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return folder


def test_a_page_for_every_text(site: Path) -> None:
    texts = {path.relative_to(DOCS).with_suffix(".html") for path in DOCS.rglob("*.md")}
    assert texts <= {path.relative_to(site) for path in site.rglob("*.html")}


@pytest.mark.parametrize("package", PACKAGES)
def test_the_reference_has_every_public_name(site: Path, package: str) -> None:
    page = (site / f"reference/{package.rpartition('.')[2]}.html").read_text()
    names = public_names(package)
    assert len(names) >= 5
    assert not [name for name in names if f'id="{package}.{name}"' not in page]


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    page = (site / "index.html").read_text()
    assert not re.findall(r"<(?:script|img)[^>]* src=\"?http|<link[^>]*rel=\"?stylesheet[^>]*href=\"?http", page)


def test_public_names_are_those_imported_as_themselves() -> None:
    assert {"find", "ContinualBackprop", "UTILITIES"} <= set(public_names("continual_agents.surgery"))
    assert "SlipperyAnt" in public_names("envs")
    assert on_page_markdown("a\n{{ names of envs }}\nb").startswith("a\n::: envs.ChangingObservation\n\n::: envs.Fri")


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)


@pytest.mark.parametrize("page", ["start.md", "plasticity.md"])
def test_the_guides_print_what_they_say(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "guide"}
    found = re.findall(r"```python\n(.*?)```(?:\n```text\n(.*?)```)?", (DOCS / page).read_text(), re.DOTALL)
    assert len(found) >= 3
    with torch.random.fork_rng():
        for code, printed in found:
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                exec(compile(code, page, "exec"), names)
            assert out.getvalue() == printed, code


def test_an_agent_on_an_environment_of_ones_own(tmp_path: Path) -> None:
    environment, use = blocks("environment.md", "python")
    train, evaluate = (shlex.split(block)[1:] for block in blocks("environment.md", "bash"))
    (tmp_path / "seeking.py").write_text(environment)
    told = elsewhere(tmp_path, *train).stdout
    assert all(f"\n| {method} " in told for method in ("PPO", "fresh"))
    assert "ends tasks with a return" in told
    assert "continual backprop" in told
    assert "return" in elsewhere(tmp_path, *evaluate).stdout
    assert elsewhere(tmp_path, "-c", use).stdout == "(1,)\n"


def test_the_streams_of_the_guide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for block in blocks("streams.md", "bash"):
        for line in block.splitlines():
            assert line.startswith("python -m tools.train ")
            main([*shlex.split(line)[3:], "progress=false"])  # here: starting Python takes longer than the streams
    (code,) = blocks("streams.md", "python")
    for _ in range(2):  # the second time the folder is continued
        exec(compile(code, "streams.md", "exec"), {"__name__": "guide"})
    names = {path.parent.name for path in tmp_path.glob("runs/**/metrics.csv")}
    assert names == {"mine", "regression", "activations", "seed_0"}


def test_the_first_pages_snippet(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    net = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
    names: dict[str, Any] = {"net": net}
    exec(code, names)
    assert "0: Linear[8] -> ReLU -> 2: Linear" in repr(names["surgery"].find(net))


def test_the_commands_run_one_after_the_other() -> None:
    """Each finds its run folder free, or holding what it would have made itself."""
    (first, *_) = blocks("commands.md", "bash")
    lines = [shlex.split(line, comments=True)[3:] for line in first.splitlines()]
    made: dict[str, dict[str, Any]] = {}
    for words in lines:
        if "--help" in words or "--config-dir" in words:
            continue
        for config in jobs(words):
            # what a continued run may have otherwise
            kept = {key: value for key, value in config.items() if key != "logger"}
            assert made.setdefault(config["folder"], kept) == kept, words
    assert len(made) > 20
