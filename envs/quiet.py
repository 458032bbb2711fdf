"""Imports PyBullet without its announcement: it writes its build time to standard output, where tables go."""

import contextlib
import ctypes
import os


def _import_pybullet() -> None:
    output = os.dup(1)
    try:
        with open(os.devnull, "w", encoding="utf-8") as nowhere:
            os.dup2(nowhere.fileno(), 1)
            import pybullet  # noqa: F401

            ctypes.CDLL(None).fflush(None)  # C keeps the line in a buffer until now
    finally:
        os.dup2(output, 1)
        os.close(output)


with contextlib.suppress(OSError):  # standard output is closed: nothing to keep quiet
    _import_pybullet()
