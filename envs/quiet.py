"""Imports PyBullet without its announcement: it writes its build time to standard error, where progress bars live."""

import contextlib
import ctypes
import importlib
import os
from collections.abc import Iterator

MISSING = (
    "the walkers need PyBullet, which has wheels for Python 3.10 and 3.11: use one of these "
    "(make PYTHON=python3.11), or compile it, which takes minutes and a C++ compiler: pip install pybullet==3.2.7"
)


@contextlib.contextmanager
def silenced(descriptor: int) -> Iterator[None]:
    """What goes to a file descriptor meanwhile is dropped, C's output too, which Python's redirections do not see."""
    try:
        kept = os.dup(descriptor)
    except OSError:  # it is closed: nothing to keep quiet
        yield
        return
    c_library = ctypes.CDLL(None)
    try:
        with open(os.devnull, "w", encoding="utf-8") as nowhere:
            c_library.fflush(None)  # C's streams have buffers of their own: what was said before is kept
            os.dup2(nowhere.fileno(), descriptor)
            yield
    finally:
        c_library.fflush(None)
        os.dup2(kept, descriptor)
        os.close(kept)


try:
    with silenced(2):
        pybullet = importlib.import_module("pybullet")
    pybullet_data = importlib.import_module("pybullet_data")
except ModuleNotFoundError as error:
    raise ImportError(MISSING, name="pybullet") from error
