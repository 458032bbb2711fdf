"""config.yaml of a run folder: plain values only, whoever wrote it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from yaml.composer import Composer
from yaml.constructor import SafeConstructor
from yaml.resolver import Resolver

from .files import StrangeFileError, read_file

LARGEST = 1 << 16
"""Bytes; the configurations of this project have some 10,000, and 65,536 bytes of YAML can take three seconds."""

LONGEST_NUMBER = 400
"""Letters of a number: one more is text. The largest double has 309 digits."""


if yaml.__with_libyaml__:

    class _Reader(Composer, yaml.cyaml.CParser, SafeConstructor, Resolver):
        """libyaml parses, in a sixth of the time; nodes are composed by PyYAML, where `_Loader` refuses aliases."""

        def __init__(self, stream: Any):
            yaml.cyaml.CParser.__init__(self, stream)
            Composer.__init__(self)
            SafeConstructor.__init__(self)
            Resolver.__init__(self)
else:  # a PyYAML that was built without it
    _Reader = yaml.SafeLoader  # type: ignore[misc]


class _Loader(_Reader):
    """Plain values only: no Python objects, no aliases, with which a small file can stand for a huge one, no dates."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.composer.ComposerError(None, None, "an alias", self.peek_event().start_mark)
        return super().compose_node(parent, index)

    def plain_number(self, node: Any) -> Any:
        """A number in base 10, 8 or 16; what YAML 1.1 reads in base 60 (1:30) or is endless stays text."""
        if ":" in node.value or len(node.value) > LONGEST_NUMBER:
            return node.value
        kind = node.tag.rpartition(":")[2]
        return self.construct_yaml_int(node) if kind == "int" else self.construct_yaml_float(node)


for _kind in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", _Loader.plain_number)
_Loader.add_constructor("tag:yaml.org,2002:timestamp", yaml.SafeLoader.construct_yaml_str)


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def configuration_text(config: Mapping[str, Any]) -> str:
    """The configuration as YAML that `read_configuration` reads.

    Raises:
        ValueError: it is longer than that would read.
    """
    text = str(yaml.dump(config, Dumper=_Dumper, sort_keys=False, allow_unicode=True))
    if len(text.encode()) > LARGEST:
        raise ValueError(f"the configuration has more than {LARGEST:,} bytes: give fewer values, or several runs")
    return text


def read_configuration(path: Path) -> dict[str, Any]:
    """What a config.yaml holds; nothing that it names is built or called.

    Raises:
        ValueError: unreadable, no ordinary file, no YAML, no mapping, with tags or aliases, or too large; in one line.
    """
    try:
        content = yaml.load(read_file(path, most=LARGEST).decode("utf-8"), Loader=_Loader)
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}): check the path and its rights") from error
    except StrangeFileError:
        raise
    except (yaml.YAMLError, ValueError, LookupError, TypeError, RecursionError) as error:  # PyYAML raises all of them
        problem = getattr(error, "problem", None) or "no text"
        if isinstance(error, yaml.parser.ParserError | yaml.scanner.ScannerError):
            problem = "no YAML"  # libyaml and PyYAML have other words for it
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
