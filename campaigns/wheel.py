"""How the wheel is built: the rooms beside the library go into it, so that no other package's name is taken.

In a checkout `envs`, `supervised`, `tools` and `configs` lie beside `continual_agents`. As top-level names of an
installation they would meet other packages of these names (PyPI has both an `envs` and a `supervised`), so the wheel
has them as `continual_agents.envs` and so on. What names them is rewritten on the way: import statements, and the
commands in messages, `python -m tools.train` becomes `continual-agents train`. An editable installation is the checkout
itself.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent.parent
LIBRARY = "continual_agents"
ROOMS = ("envs", "supervised", "tools", "configs")
SUFFIXES = (".py", ".c", ".yaml")
FORWARD = re.compile(r"^from campaigns\b", re.MULTILINE)
"""What is in a module of `tools` that is only an older name of a campaign; these stay in the checkout."""

_NAMES = "|".join(room for room in ROOMS if room != "configs")
REWRITTEN = (
    (re.compile(rf"^(\s*(?:>>> )?)from ({_NAMES})\b", re.MULTILINE), rf"\1from {LIBRARY}.\2"),
    (re.compile(rf"^(\s*(?:>>> )?)import ({_NAMES})\b(?!\.)", re.MULTILINE), rf"\1from {LIBRARY} import \2"),
    (re.compile(r"python -m tools\.(\w+)"), r"continual-agents \1"),
    (re.compile(r"pip install --constraint constraints\.txt -e '\.\[(\w+)\]'"), r"pip install 'continual-agents[\1]'"),
)


def rewritten(text: str) -> str:
    """A source of the checkout as the wheel has it."""
    for pattern, replacement in REWRITTEN:
        text = pattern.sub(replacement, text)
    return text


def sources(root: Path = ROOT) -> Iterator[Path]:
    """The files of the rooms that go into the wheel, relative to the checkout."""
    for room in ROOMS:
        for path in sorted((root / room).rglob("*")):
            if path.suffix in SUFFIXES and not FORWARD.search(path.read_text(encoding="utf-8")):
                yield path.relative_to(root)


class BuildPy(build_py):
    """setuptools' copy of the library, and the rooms inside of it."""

    def run(self) -> None:
        """Copy, rewrite."""
        super().run()
        if self.editable_mode:
            return
        inside = Path(self.build_lib, LIBRARY)
        for source in sources():
            (inside / source).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / source, inside / source)
        for path in inside.rglob("*"):
            if path.suffix in SUFFIXES:
                path.write_text(rewritten(path.read_text(encoding="utf-8")), encoding="utf-8")

    def get_source_files(self) -> list[str]:
        """What the source distribution needs to build the wheel from."""
        return [*super().get_source_files(), *map(str, sources()), "campaigns/__init__.py", "campaigns/wheel.py"]
