"""Imports PyBullet without its announcement: it writes its build time to standard error, where progress bars live."""

import contextlib
import os


def _import_pybullet() -> None:
    errors = os.dup(2)
    try:
        with open(os.devnull, "w", encoding="utf-8") as nowhere:
            os.dup2(nowhere.fileno(), 2)
            import pybullet  # noqa: F401
    finally:
        os.dup2(errors, 2)
        os.close(errors)


with contextlib.suppress(OSError):  # standard error is closed: nothing to keep quiet
    _import_pybullet()
