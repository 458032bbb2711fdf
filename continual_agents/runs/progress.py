"""The progress bar of a run."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

from tqdm import tqdm


@contextlib.contextmanager
def progress_bar(position: int | None, *, total: int, initial: int, unit: str, description: str) -> Iterator[Any]:
    """A tqdm bar on standard error, at a line of the terminal; None draws none.

    A log file gets a line now and then, a terminal a living bar.
    """
    with tqdm(
        total=total,
        initial=initial,
        unit=unit,
        unit_scale=True,
        desc=description,
        dynamic_ncols=True,
        mininterval=0.2 if sys.stderr is not None and sys.stderr.isatty() else 30.0,
        position=position,
        disable=position is None or sys.stderr is None,
    ) as bar:
        yield bar
