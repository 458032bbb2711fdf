"""Words from elsewhere (names of folders, methods, settings) as terminals, spreadsheets and figures may show them."""

import re
from typing import Any

from continual_agents.settings import shortened

_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""What moves a terminal's cursor, sets its title or turns its letters round, and halves of characters."""

MOST = 1_200
"""Letters of a message; of a longer one (a word given with thousands of blanks) both ends are shown."""

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""How a cell begins that a spreadsheet computes."""


def visible(text: str) -> str:
    """The text with control characters written out, `\\x1b` for an escape: a terminal does nothing but show it."""
    return _CONTROLS.sub(lambda found: found.group().encode("unicode_escape").decode("ascii"), text)


def message(text: str) -> str:
    """`visible`, line ends as well, with very long words cut in the middle: one line that somebody reads."""
    line = visible(text).replace("\n", "\\n")
    line = re.sub(r"\S{400,}", lambda found: shortened(found.group()), line)
    return line if len(line) <= MOST else f"{line[: MOST * 2 // 3]} ... {line[-MOST // 4 :]}"


def warning_line(message: Warning | str, *_: Any) -> str:
    """A warning as a command shows it, for `warnings.formatwarning`."""
    return f"warning: {visible(str(message))}\n"


def visible_everywhere(value: Any) -> Any:
    """`visible` for every key and string of nested mappings and lists; long strings are shortened."""
    if isinstance(value, str):
        return shortened(visible(value.replace("\n", " ").replace("\t", " ")))
    if isinstance(value, dict):
        return {visible_everywhere(key): visible_everywhere(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [visible_everywhere(item) for item in value]
    return value


def cell(value: Any) -> Any:
    """A value as a cell of a table that a spreadsheet may open: text that would be computed gets an apostrophe."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value
