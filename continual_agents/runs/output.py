"""Standard output and error that a run outlives: a closed one or a broken pipe takes nothing down."""

import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from typing import Any, TextIO


def steady_output() -> None:
    """Make this process go on when nobody reads what it prints; call it before it opens files.

    A closed descriptor 0, 1 or 2 (`>&-`) is opened on the null device: otherwise the next file that the process opens
    would get its number, and whatever is printed from C would land in it. A broken pipe (`| head`) is noticed when
    something is printed, and from then on the output goes to the null device.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is None:
            stream = open(number, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        if not isinstance(stream, Steady):
            setattr(sys, name, Steady(stream))


@contextlib.contextmanager
def quiet_worker() -> Iterator[None]:
    """A writer's thread that cannot write prints no stack trace: its error is raised by the next call anyway."""
    previous = threading.excepthook

    def hook(arguments: threading.ExceptHookArgs) -> None:
        if not (issubclass(arguments.exc_type, OSError) and type(arguments.thread).__name__ == "_AsyncWriterThread"):
            previous(arguments)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = previous


class Steady:
    """A text stream whose writing never raises: what cannot be written is lost, and so is all that follows.

    Args:
        stream: the one that is written to.
    """

    def __init__(self, stream: TextIO):
        self._stream = stream
        self._lost = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write; the number of characters given."""
        if not self._lost:
            try:
                self._stream.write(text)
            except (OSError, ValueError):  # ValueError: the stream was closed
                self._give_up()
        return len(text)

    def flush(self) -> None:
        """Flush."""
        if not self._lost:
            try:
                self._stream.flush()
            except (OSError, ValueError):
                self._give_up()

    def _give_up(self) -> None:
        self._lost = True
        with contextlib.suppress(OSError, ValueError), open(os.devnull, "wb") as nowhere:
            # the descriptor too: the interpreter flushes the stream once more when it ends
            os.dup2(nowhere.fileno(), self._stream.fileno())
