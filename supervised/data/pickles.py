"""Pickled batches of plain values and NumPy arrays, read without running anything that the file asks for.

Ordinary unpickling calls whatever the file names. Here every name stands for a class of this module, written in
Python, that can only hold the raw bytes of an array; any other name is refused. The pure Python unpickler is used
because the one in C can be made to allocate memory that the file does not fill.
"""

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import DataError

DTYPES = {"u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f4", "f8"}
ENCODINGS = {"latin1", "latin-1"}


class _Dtype:
    """Stands for `numpy.dtype`."""

    __slots__ = ("code",)

    def __init__(self, code: str, *_: bool):
        if code not in DTYPES:
            raise pickle.UnpicklingError(f"array of type {code!r}")
        self.code = code

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        order = state[1]
        if order not in ("<", ">", "|", "="):
            raise pickle.UnpicklingError(f"byte order {order!r}")
        self.code = order + self.code


class _Array:
    """Stands for `numpy.ndarray`, and becomes one only when all is read."""

    __slots__ = ("content",)

    def __init__(self, *_: Any):
        self.content: NDArray[Any] = np.empty(0)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, raw = state
        content = raw.encode("latin1") if isinstance(raw, str) else raw  # Python 2's strings are bytes
        self.content = np.frombuffer(content, dtype.code).reshape(shape, order="F" if fortran else "C")


class _Name:
    """A callable that holds nothing a file could change (a plain function has attributes that could be set)."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("changes a function")


class _Reconstruct(_Name):
    """Stands for `numpy.core.multiarray._reconstruct`: an array to be filled by its state."""

    __slots__ = ()

    def __call__(self, *_: Any) -> _Array:
        return _Array()


class _FromBuffer(_Name):
    """Stands for `numpy.core.numeric._frombuffer`, how protocol 5 writes arrays."""

    __slots__ = ()

    def __call__(self, raw: bytes, dtype: _Dtype, shape: tuple[int, ...], order: str) -> _Array:
        array = _Array()
        array.__setstate__((1, shape, dtype, order == "F", raw))
        return array


class _Encode(_Name):
    """Stands for `_codecs.encode`, how protocol 2 writes bytes.

    Args:
        most: bytes that may be made in all: those of the file. A file can ask for the same text again and again.
    """

    __slots__ = ("_left",)

    def __init__(self, most: int):
        self._left = most

    def __call__(self, text: str, encoding: str) -> bytes:
        if encoding not in ENCODINGS:
            raise pickle.UnpicklingError(f"encoding {encoding!r}")
        self._left -= len(text)
        if self._left < 0:
            raise pickle.UnpicklingError("unpacks to more than the file holds")
        return text.encode("latin1")


ADMITTED: dict[tuple[str, str], Any] = {
    ("numpy", "dtype"): _Dtype,
    ("numpy", "ndarray"): _Array,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _Reconstruct() for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _FromBuffer() for core in ("core", "_core")},
}


class _Unpickler(pickle._Unpickler):  # type: ignore[name-defined, misc]
    def __init__(self, content: bytes):
        super().__init__(io.BytesIO(content), encoding="latin1")
        self._encode = _Encode(len(content))

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("_codecs", "encode"):
            return self._encode
        if (module, name) not in ADMITTED:
            raise pickle.UnpicklingError(f"asks for {module}.{name}")
        return ADMITTED[module, name]


def read_pickle(path: Path) -> dict[str, Any]:
    """A pickled dict of arrays, lists and plain values; keys become strings.

    Raises:
        DataError: no such file, truncated, not a dict, or it asks for anything but arrays (nothing of that is run).
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(path, f"cannot be read ({error.strerror})", "check the path and its rights") from error
    return unpickled(path, content, holds="the train_data_batch_* files")


def unpickled(path: Path, content: bytes, *, holds: str) -> dict[str, Any]:
    """As `read_pickle`, of bytes that were read already.

    Args:
        path: where they come from, for the message.
        content: the pickle.
        holds: which files hold such a dict, for the message.

    Raises:
        DataError: as `read_pickle`.
    """
    try:
        read = _Unpickler(content).load()
        plain = {_text(key): _plain(value) for key, value in read.items()} if isinstance(read, dict) else None
    except EOFError as error:
        raise DataError(path, "truncated pickle", "download it again") from error
    except pickle.UnpicklingError as error:
        truncated = "truncated" in str(error) or "exhausted" in str(error)
        remedy = "download it again" if truncated else "do not use this file: a batch holds arrays and lists only"
        raise DataError(path, f"pickle refused: {error}", remedy) from error
    except Exception as error:  # a damaged pickle can fail in any way; nothing of it has been run
        raise DataError(path, f"damaged pickle ({type(error).__name__})", "download it again") from error
    if plain is None:
        raise DataError(path, f"holds a {type(read).__name__}, not a dict", f"give {holds}")
    return plain


def _text(key: Any) -> str:
    return key.decode("latin1") if isinstance(key, bytes) else str(key)


def _plain(value: Any) -> Any:
    return value.content if isinstance(value, _Array) else value
