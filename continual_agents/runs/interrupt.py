"""Ctrl-C, SIGTERM and SIGHUP as a request to stop at the next safe point."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class StopSignal:
    """Context manager: the first SIGINT, SIGTERM or SIGHUP sets `requested`; a second SIGINT interrupts at once.

    SIGHUP comes when the terminal goes away; under nohup it stays ignored. Outside the main thread Python allows no
    handlers; there it only holds the flag.
    """

    def __init__(self) -> None:
        self.requested = False
        self.number = 0
        """Of the signal that came; 0 before."""
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopSignal:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                    continue
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested, self.number = True, number
