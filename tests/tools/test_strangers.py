"""plot, report and record on a folder from a stranger: what they print, draw and write."""

import re
import time
from pathlib import Path

import pandas as pd
import pytest
import yaml
from matplotlib.figure import Figure

from continual_agents.settings import LONGEST, written
from tests.helpers import ended
from tests.tools.made_up import agent_run, stream_run
from tools import plot, report
from tools.figures import style
from tools.text import cell, message, visible

TITLE = "\x1b]0;title\x07\x9b2J\u202e$\\frac{1}$"


def named(folder: Path, method: str, experiment: str = "walk") -> Path:
    path = agent_run(folder, steps=20_480) / "config.yaml"
    config = yaml.safe_load(path.read_text())
    config["method"]["name"], config["experiment"]["name"] = method, experiment
    path.write_text(yaml.safe_dump(config))
    return folder


def controls(text: str) -> list[str]:
    return re.findall("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", text)


def test_escape_codes_reach_no_terminal_and_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = named(tmp_path / "run\x1b[2J", TITLE, "walk" + TITLE)
    output = tmp_path / "output"
    plot.main([str(run), "--output", str(output), "--records", str(output / "all.csv")])
    report.main([str(run), "--output", str(output / "report.html")])
    captured = capsys.readouterr()
    assert "\\x1b]0;title\\x07\\x9b2J\\u202e" in captured.out
    assert not controls(captured.out + captured.err)
    for name in ("table.csv", "table.md", "report.html", "figure.svg"):
        assert not controls((output / name).read_text()), name
    assert "\\x1b[2J" in ended(capsys, plot.main, tmp_path / "no\x1b[2Jwhere")


def test_a_message_is_one_line() -> None:
    assert message("seed=a\nb: a whole number is needed") == "seed=a\\nb: a whole number is needed"
    assert len(message("[" + "a b, " * 5000 + "]: refused")) < 1_200
    assert message("[" + "a b, " * 5000 + "]: refused").endswith("]: refused")


def test_dollars_are_no_mathematics(tmp_path: Path) -> None:
    for name in ("$\\frac{1}$", "$\\nonsense{$", "a $x^2$ b", "a_^{}\\"):
        figure = Figure()
        axes = figure.add_subplot()
        axes.set_yscale("log")
        axes.plot([1, 10], [1, 1000], label=name)
        axes.set_title(name)
        axes.legend()
        style.save(figure, tmp_path / "figure.png")
        assert name in (tmp_path / "figure.svg").read_text().replace("&#36;", "$")


def test_formulas_are_text_in_tables(tmp_path: Path) -> None:
    assert [cell(value) for value in ("=1+1", "+1", "-a", "@x", "a=1", -1.5)] == [
        "'=1+1",
        "'+1",
        "'-a",
        "'@x",
        "a=1",
        -1.5,
    ]
    run = named(tmp_path / "run", '=HYPERLINK("http://example.com")')
    plot.main([str(run), "--output", str(tmp_path), "--records", str(tmp_path / "all.csv")])
    assert pd.read_csv(tmp_path / "table.csv")["setting"][0].startswith("'=HYPERLINK")
    assert pd.read_csv(tmp_path / "all.csv")["method"][0].startswith("'=HYPERLINK")


def test_outputs_take_the_place_of_links(tmp_path: Path) -> None:
    run = named(tmp_path / "run", "ppo")
    outside = tmp_path / "outside"
    outside.write_text("precious")
    for name in ("figure.png", "figure.svg", "table.csv", "table.md", "report.html", "all.csv"):
        (run / name).symlink_to(outside)
    plot.main([str(run), "--records", str(run / "all.csv")])
    report.main([str(run)])
    assert outside.read_text() == "precious"
    assert not (run / "figure.png").is_symlink()


def test_comparison_is_not_logged_elsewhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = named(tmp_path / "run", "ppo")
    (tmp_path / "outside").mkdir()
    (run / "comparison").symlink_to(tmp_path / "outside")
    said = f"error: {run}/comparison is a link where a folder belongs: do not use this folder\n"
    assert ended(capsys, plot.main, run) == said
    assert not list((tmp_path / "outside").iterdir())


def test_names_of_any_length_are_drawn_and_said_shortly(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = named(tmp_path / "run", "x" * 5000, "y" * 5000)
    plot.main([str(run), "--output", str(tmp_path)])
    assert max(map(len, capsys.readouterr().out.splitlines())) < 2000
    assert (tmp_path / "figure.png").stat().st_size < 1_000_000
    assert len(written("x" * 5000)) < LONGEST
    assert written([1] * 5000).endswith(" 1, 1, 1, 1]")


@pytest.mark.parametrize(
    ("size", "row"),
    [(200_000_000, b"1,1\n"), (100_000_000, b"1,a%d\n"), (100_000_000, b","), (100_000_000, b",,")],
    ids=["size", "text", "columns", "a first row beyond the header"],
)
def test_tables_are_bounded(tmp_path: Path, size: int, row: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    run = named(tmp_path / "run", "ppo")
    with open(run / "metrics.csv", "wb") as file:
        file.write(b"step,x\n" * (row != b",") + row * 1_000_000 + b"\n")
        file.truncate(size)  # the rest is a hole
    started = time.process_time()
    assert len(ended(capsys, plot.main, run, "--output", tmp_path).splitlines()) == 1
    assert time.process_time() - started < 30


def test_visible_text_can_be_printed_whatever_it_is() -> None:
    assert visible("\ud800 \x9b \n\t ä \u2067") == "\\ud800 \\x9b \n\t ä \\u2067"
    assert visible("plain").encode() == b"plain"


def test_a_stack_with_names_from_elsewhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = stream_run(tmp_path / "run", tasks=5)
    runs = pd.read_csv(run / "runs.csv")
    runs.assign(method="=\x1b[2J$x$").to_csv(run / "runs.csv", index=False)
    plot.main([str(run), "--output", str(tmp_path)])
    assert not controls(capsys.readouterr().out)
    assert pd.read_csv(tmp_path / "table.csv")["setting"][0] == "'=\\x1b[2J$x$"
