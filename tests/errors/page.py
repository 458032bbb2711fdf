"""docs/errors.md, made from the cases: `python -m tests.errors.page` writes it again."""

from pathlib import Path

from tests.errors.case import BASES, Case
from tests.errors.files import FILES
from tests.errors.tools import TOOLS
from tests.errors.words import WORDS

PAGE = Path(__file__).resolve().parents[2] / "docs/errors.md"
SECTIONS: dict[str, list[Case]] = {**WORDS, **FILES, **TOOLS}

HEAD = """\
# What goes wrong, and what is said about it

Every row is a test: the command ends within seconds with exit code 2 and this one line after `error: `, before any work
is done and before a file is written or changed. Written by `python -m tests.errors.page` from the cases in
tests/errors; do not edit it.

Library calls raise the same messages as `ValueError`, `RunError` or `CheckpointError`. What happens while a run is
under way (a loss that is not finite, a full disk, a kill) has tests of its own in tests/runs.

In the commands below `agent`, `digits` and so on stand for:

"""


def text() -> str:
    """The page."""
    lines = [HEAD + "| | |\n|---|---|"]
    lines += [f"| {name} | `python -m tools.train {words}` |" for name, words in BASES.items()]
    for section, cases in SECTIONS.items():
        lines += [f"\n## {section}\n", "| given | said |", "|---|---|"]
        lines += [f"| {_given(case)} | {_code(case.message)} |" for case in cases]
    return "\n".join(lines) + "\n"


def _given(case: Case) -> str:
    words = case.words if case.tool == "tools.train" else f"{case.tool} {case.words}"
    parts = [case.base, _code(words) if case.words else "", case.given]
    return ", ".join(filter(None, [" ".join(filter(None, parts[:2])), parts[2]]))


def _code(words: str) -> str:
    shown = words.replace("{tmp}/run", "runs/mine").replace("{tmp}/", "").replace("{tmp}", ".")
    shown = shown.replace("{holder}", "process 4711 on node7 since 2026-11-26T05:10:00+0000")
    shown = shown.replace("|", "\\|")
    return f"`` {shown} ``" if "`" in shown else f"`{shown}`"


if __name__ == "__main__":
    PAGE.write_text(text(), encoding="utf-8")
    print(PAGE)
