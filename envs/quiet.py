"""Imports PyBullet without its announcement: it writes its build time to standard error, where progress bars live."""

import importlib
import os
from types import ModuleType

MISSING = (
    "the walkers need PyBullet, which has wheels for Python 3.10 and 3.11: use one of these "
    "(make PYTHON=python3.11), or compile it, which takes minutes and a C++ compiler: pip install pybullet==3.2.7"
)


def _import_pybullet() -> ModuleType:
    try:
        errors = os.dup(2)
    except OSError:  # standard error is closed: nothing to keep quiet
        return importlib.import_module("pybullet")
    try:
        with open(os.devnull, "w", encoding="utf-8") as nowhere:
            os.dup2(nowhere.fileno(), 2)
            return importlib.import_module("pybullet")
    finally:
        os.dup2(errors, 2)
        os.close(errors)


try:
    pybullet = _import_pybullet()
    pybullet_data = importlib.import_module("pybullet_data")
except ModuleNotFoundError as error:
    raise ImportError(MISSING, name="pybullet") from error
