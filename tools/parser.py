"""Command lines whose errors are one line."""

from __future__ import annotations

import argparse
import sys
from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """As argparse's, without the usage in front of an error: the message names the value, --help shows the rest."""

    def error(self, message: str) -> NoReturn:
        """One line on standard error and exit code 2."""
        print(f"error: {' '.join(message.split())}", file=sys.stderr)
        raise SystemExit(2)
