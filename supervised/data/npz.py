"""Arrays of an .npz, each checked against a limit before its bytes are read."""

import math
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from .errors import DataError

LONGEST_HEADER = 10_000
"""More bytes than the header of any .npy here, and less than a bomb."""
AGAIN = "download it again"


def read_npz(path: Path, members: Mapping[str, int]) -> dict[str, NDArray[Any]]:
    """Some arrays of an .npz; the rest is left alone.

    Args:
        path: the archive.
        members: names of the arrays to read, and the most bytes that each may unpack to.

    Raises:
        DataError: not a zip, truncated, damaged, a member missing, named twice or with a path in its name, object
            arrays (they are pickles), or more bytes declared than its limit or than its shape needs.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            _check_names(path, archive.namelist())
            return {name: _member(path, archive, name, limit) for name, limit in members.items()}
    except zipfile.BadZipFile as error:
        raise DataError(path, f"damaged or truncated .npz ({error})", AGAIN) from error
    except (EOFError, zlib.error, NotImplementedError, RuntimeError) as error:
        raise DataError(path, f"damaged .npz ({error})", AGAIN) from error
    except OSError as error:
        raise DataError(path, f"cannot be read ({error.strerror or error})", "check the path and its rights") from error


def _check_names(path: Path, names: list[str]) -> None:
    escaping = [name for name in names if "/" in name or "\\" in name or name.startswith(".")]
    if escaping:
        raise DataError(path, f"a member is named {escaping[0]!r}, a path", "do not use this file")
    if len(set(names)) < len(names):
        raise DataError(path, "two members have the same name", "do not use this file")


def _member(path: Path, archive: zipfile.ZipFile, name: str, limit: int) -> NDArray[Any]:
    if f"{name}.npy" not in archive.namelist():
        raise DataError(
            path, f"no array {name!r} in it, only {archive.namelist()}", "give the train_data_batch_* files"
        )
    declared = archive.getinfo(f"{name}.npy").file_size
    if declared > limit + LONGEST_HEADER:
        remedy = "do not use this file: it is no batch of 32x32 images"
        raise DataError(path, f"array {name!r} unpacks to {declared:,} bytes, at most {limit:,} expected", remedy)
    with archive.open(f"{name}.npy") as file:
        shape, dtype = read_header(path, file)
        if declared != file.tell() + math.prod(shape) * dtype.itemsize:
            raise DataError(path, f"array {name!r} has another size than its shape {shape} needs", AGAIN)
    # from its beginning: NumPy reads the header itself
    with archive.open(f"{name}.npy") as file:
        return npy.read_array(file, allow_pickle=False)


def read_header(path: Path, file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type that a .npy declares; `file` stands at its first entry afterwards.

    Raises:
        DataError: no .npy, truncated, or its entries are objects.
    """
    try:
        version = npy.read_magic(file)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = read(file, max_header_size=LONGEST_HEADER)
    except ValueError as error:
        raise DataError(path, "no .npy header, or a damaged one", AGAIN) from error
    if any(length < 0 for length in shape):
        raise DataError(path, f"shape {shape} in its header", AGAIN)
    if dtype.hasobject:
        raise DataError(path, "holds Python objects (a pickle)", "do not use this file, or save it as uint8")
    return shape, dtype
