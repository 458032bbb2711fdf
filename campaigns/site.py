"""What mkdocs does beside its plugins: a page of the reference lists every public name of its package by itself."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

from griffe import Extension, Object

ROOT = Path(__file__).resolve().parent.parent
LISTED = re.compile(r"^\{\{ names of ([\w.]+) \}\}$", re.MULTILINE)


def public_names(package: str) -> list[str]:
    """The names that a package's `__init__` gives away, those imported as themselves: `from .a import find as find`."""
    return sorted((name for name, module in _imports(package).items() if module), key=str.lower)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """`{{ names of continual_agents.surgery }}` becomes the reference of these names."""
    return LISTED.sub(lambda found: "\n\n".join(_entry(found[1], name) for name in public_names(found[1])), markdown)


class Examples(Extension):
    """Reads `Example:` in docstrings as what it is, code."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Rename the section as mkdocstrings knows it."""
        if obj.docstring is not None:
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)


def _entry(package: str, name: str) -> str:
    module = _imports(package)[name]
    while (ROOT / module.replace(".", "/") / "__init__.py").exists():
        module = _imports(module)[name]
    if module.rpartition(".")[2] != name:
        return f"::: {package}.{name}"
    # a file of the same name: by the short path the file would be shown; readers and links keep that path
    return f'<a id="{package}.{name}"></a>\n\n::: {module}.{name}'


def _imports(package: str) -> dict[str, str]:
    """The modules that a package's public names are imported from."""
    source = (ROOT / package.replace(".", "/") / "__init__.py").read_text(encoding="utf-8")
    found: dict[str, str] = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            module = f"{package}.{node.module}" if node.level else str(node.module)
            found |= {one.name: module for one in node.names if one.asname == one.name}
    return found
