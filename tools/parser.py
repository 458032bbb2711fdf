"""Command lines whose errors are one line."""

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from tools.text import message as told


class Parser(argparse.ArgumentParser):
    """As argparse's, without the usage in front of an error: the message names the value, --help shows the rest."""

    def error(self, message: str) -> NoReturn:
        """One line on standard error and exit code 2."""
        print(f"error: {told(' '.join(message.split()))}", file=sys.stderr)
        raise SystemExit(2)

    @contextlib.contextmanager
    def refusing(self, *kinds: type[Exception], output: Path) -> Iterator[None]:
        """End with one line where one of these errors is raised inside, or where an output cannot be written."""
        try:
            yield
        except kinds as error:
            self.error(str(error))
        except OSError as error:
            # of a rename the second name is the output's
            place = error.filename2 or error.filename or output
            self.error(f"{place} cannot be written ({error.strerror}): give another --output")


def above(runs: Sequence[str]) -> Path:
    """The folder above all the runs: where figures go when nothing else is asked for."""
    common = Path(os.path.commonpath([Path(run).resolve() for run in runs]))
    return common if common.is_dir() else common.parent
