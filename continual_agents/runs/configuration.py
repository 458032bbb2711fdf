"""config.yaml of a run folder: plain values only, whoever wrote it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

LARGEST = 1 << 20
"""Bytes; the configurations of this project have some 10,000."""


class _Loader(yaml.SafeLoader):
    """Plain values only: no Python objects, and no aliases, with which a small file can stand for a huge one."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.composer.ComposerError(None, None, "an alias", self.peek_event().start_mark)
        return super().compose_node(parent, index)


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def configuration_text(config: Mapping[str, Any]) -> str:
    """The configuration as YAML that `read_configuration` reads."""
    return str(yaml.dump(config, Dumper=_Dumper, sort_keys=False, allow_unicode=True))


def read_configuration(path: Path) -> dict[str, Any]:
    """What a config.yaml holds; nothing that it names is built or called.

    Raises:
        ValueError: unreadable, no YAML, no mapping, with tags or aliases, or too large; in one line.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError(f"{path} is not a run's configuration: more than {LARGEST:,} bytes")
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}): check the path and its rights") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        problem = getattr(error, "problem", None) or "no text"
        mark = getattr(error, "problem_mark", None)
        place = f" in line {mark.line + 1}" if mark is not None else ""
        raise ValueError(f"{path} is not a run's configuration: {' '.join(problem.split())}{place}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is not a run's configuration: it holds no settings")
    return content


def flatten(config: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Nested config as `(dotted key, value)` pairs in order."""
    pairs: list[tuple[str, Any]] = []
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            pairs += flatten(value, f"{prefix}{key}.")
        else:
            pairs.append((f"{prefix}{key}", value))
    return pairs
