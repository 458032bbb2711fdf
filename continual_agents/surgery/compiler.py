"""C that is compiled with the machine's compiler when it is wanted, and loaded for the life of the process."""

from __future__ import annotations

import ctypes
import functools
import shutil
import subprocess
import tempfile
from pathlib import Path


class CompilerError(RuntimeError):
    """There is no C compiler, or it refuses."""


def compiler() -> str | None:
    """The machine's C compiler, if there is one."""
    return shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")


def cc(*arguments: str, source: str, name: str = "C code") -> str:
    """What the machine's C compiler prints, given `source` on standard input.

    Args:
        arguments: of the command line.
        source: the program.
        name: of it, for the error.

    Raises:
        CompilerError: there is none, or it refuses.
    """
    found = compiler()
    if found is None:
        raise CompilerError("no C compiler (apt-get install gcc)")
    done = subprocess.run([found, *arguments], input=source, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        line = next((line for line in lines if "error" in line), f"exit {done.returncode}")
        raise CompilerError(f"{found} does not compile {name} ({line})")
    return done.stdout


@functools.lru_cache(maxsize=64)
def compiled(source: str, flags: tuple[str, ...], name: str = "C code") -> ctypes.CDLL:
    """The program as a library; nothing of it stays on the disk, so that nothing stale is ever loaded.

    Args:
        source: the program.
        flags: of the compiler.
        name: of the program, for errors.

    Raises:
        CompilerError: no C compiler, one that refuses, or no place from which a library may be loaded.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="continual-agents-") as folder:
            library = Path(folder) / "library.so"
            cc(*flags, "-fPIC", "-shared", "-x", "c", "-", "-o", str(library), "-lm", source=source, name=name)
            return ctypes.CDLL(str(library))  # stays loaded after the file is gone
    except OSError as error:  # a full disk, or one from which nothing may be run
        raise CompilerError(f"native code cannot be loaded ({error}; give another TMPDIR=...)") from error
