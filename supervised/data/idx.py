"""IDX, the format of the MNIST files (http://yann.lecun.com/exdb/mnist): read, plain or gzipped, without trusting it.

A file is a magic number (two zero bytes, a type byte, the number of dims), each dim as a big-endian uint32, and the
entries. Only type 8, unsigned bytes, occurs in MNIST and its relatives.
"""

import gzip
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from .errors import DataError

UNSIGNED_BYTES = 8
MOST_ITEMS = 1_000_000
"""More than any relative of MNIST has (EMNIST: 814,255); a header that promises more is damaged or hostile."""
CHUNK = 1 << 20
AGAIN = "download it again"


def read_idx(path: Path, item: Sequence[int]) -> NDArray[np.uint8]:
    """The array of an IDX file.

    Args:
        path: the file; one that ends in .gz is decompressed on the way, never beyond what its header promises.
        item: shape that each item must have: (28, 28) for images, () for labels.

    Returns:
        `[items, *item]`, uint8.

    Raises:
        DataError: another format, shape or type, no items, truncated, longer than promised, or corrupt gzip.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            return _read(file, path, tuple(item))  # type: ignore[arg-type]
    except EOFError as error:
        raise DataError(path, "truncated gzip file", AGAIN) from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataError(
            path, f"corrupt gzip file ({error})", f"{AGAIN}, or drop .gz if it is not compressed"
        ) from error
    except OSError as error:
        raise DataError(path, f"cannot be read ({error.strerror or error})", "check the path and its rights") from error


def _read(file: BinaryIO, path: Path, item: tuple[int, ...]) -> NDArray[np.uint8]:
    magic = file.read(4)
    expected = bytes((0, 0, UNSIGNED_BYTES, 1 + len(item)))
    if len(magic) < 4:
        raise DataError(path, f"truncated: {len(magic)} bytes", AGAIN)
    if magic != expected:
        hint = "it is gzipped: give it the ending .gz" if magic[:2] == b"\x1f\x8b" else AGAIN
        raise DataError(path, f"bad magic number 0x{magic.hex()}, expected 0x{expected.hex()}", hint)
    header = file.read(4 * (1 + len(item)))
    if len(header) < 4 * (1 + len(item)):
        raise DataError(path, "truncated within its header", AGAIN)
    items, *shape = struct.unpack(f">{1 + len(item)}I", header)
    if tuple(shape) != item:
        raise DataError(path, f"items of shape {tuple(shape)}, expected {item}", "give the MNIST files themselves")
    if not 0 < items <= MOST_ITEMS:
        raise DataError(path, f"promises {items:,} items, expected 1 to {MOST_ITEMS:,}", AGAIN)
    size = items * int(np.prod(shape, dtype=np.int64))
    content = _at_most(file, size + 1)
    if len(content) < size:
        raise DataError(path, f"truncated: {len(content):,} of {size:,} bytes after the header", AGAIN)
    if len(content) > size:
        raise DataError(path, f"longer than the {size:,} bytes that its header promises", AGAIN)
    return np.frombuffer(content, np.uint8).reshape(items, *item)


def _at_most(file: BinaryIO, size: int) -> bytearray:
    """The next `size` bytes, or fewer at the end; memory grows with what is there, not with what was promised."""
    content = bytearray()
    while len(content) < size and (chunk := file.read(min(CHUNK, size - len(content)))):
        content += chunk
    return content
