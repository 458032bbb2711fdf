"""Command lines whose errors are one line."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from tools.text import message as told


class Parser(argparse.ArgumentParser):
    """As argparse's, without the usage in front of an error: the message names the value, --help shows the rest."""

    def error(self, message: str) -> NoReturn:
        """One line on standard error and exit code 2."""
        print(f"error: {told(' '.join(message.split()))}", file=sys.stderr)
        raise SystemExit(2)


def above(runs: Sequence[str]) -> Path:
    """The folder above all the runs: where figures go when nothing else is asked for."""
    common = Path(os.path.commonpath([Path(run).resolve() for run in runs]))
    return common if common.is_dir() else common.parent


def unwritable(error: OSError, output: Path) -> str:
    """One line about an output that cannot be written."""
    return f"{error.filename2 or error.filename or output} cannot be written ({error.strerror}): give another --output"
