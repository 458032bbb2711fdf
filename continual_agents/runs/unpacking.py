"""What a file of `torch.save` would make, before it is made: `weights_only=True` runs no code, and bounds nothing.

`data.pkl` in the archive is a program for a small machine that makes containers and asks for tensors. It is run here by
a machine of the same kind that makes no tensors and counts: a small file may ask for tensors of any size (strides of 0),
for `bytearray(10**12)`, or for tuples within tuples that take for ever to hash.
"""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

LARGEST_PROGRAM = 4 << 20
"""Bytes of `data.pkl`; that of a network has some 100 per tensor."""

SLACK = 64 << 20
"""Bytes that any file may make, however small it is."""

OPCODES = (
    pickle.PROTO, pickle.STOP, pickle.MARK, pickle.GLOBAL, pickle.REDUCE, pickle.BUILD, pickle.BINPERSID,
    pickle.APPEND, pickle.APPENDS, pickle.SETITEM, pickle.SETITEMS, pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2,
    pickle.TUPLE3, pickle.NONE, pickle.NEWFALSE, pickle.NEWTRUE, pickle.EMPTY_TUPLE, pickle.EMPTY_LIST,
    pickle.EMPTY_DICT, pickle.BININT, pickle.BININT1, pickle.BININT2, pickle.BINFLOAT, pickle.BINUNICODE,
    pickle.SHORT_BINSTRING, pickle.BINGET, pickle.LONG_BINGET, pickle.BINPUT, pickle.LONG_BINPUT, pickle.LONG1,
)  # fmt: skip
"""What torch writes for containers, numbers, strings and tensors."""

ITEM_SIZES = {
    **dict.fromkeys(("ByteStorage", "CharStorage", "BoolStorage", "UntypedStorage"), 1),
    **dict.fromkeys(("ShortStorage", "HalfStorage", "BFloat16Storage"), 2),
    **dict.fromkeys(("IntStorage", "FloatStorage"), 4),
    **dict.fromkeys(("LongStorage", "DoubleStorage", "ComplexFloatStorage"), 8),
    "ComplexDoubleStorage": 16,
}


class UnpackingError(ValueError):
    """A file that makes too much, or other things than data; the message says which."""


class CodeError(UnpackingError):
    """A file that asks for a function to be called."""


def check_unpacking(path: Path) -> None:
    """Whether a file of `torch.save` makes only containers, numbers, strings and tensors, and no more than it holds.

    What it may make is twice its size and 64 MB more: shared weights count once for every tensor of them.

    Raises:
        UnpackingError: it makes more, or something else, or is no such file.
        OSError: it cannot be read.
    """
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise UnpackingError("is compressed, which torch.save never does")
        found = os.stat(path)
        size, have = sum(member.file_size for member in members), found.st_size
        if size > have:
            raise UnpackingError(f"would unpack from {have:,} to {size:,} bytes")
        check_solid(found)
        programs = [member for member in members if member.filename.endswith("/data.pkl")]
        if len(programs) != 1 or len({member.filename for member in members}) < len(members):
            raise UnpackingError("does not have one data.pkl")  # torch might read the other one
        if programs[0].file_size > LARGEST_PROGRAM:
            raise UnpackingError(f"has a data.pkl of {programs[0].file_size:,} bytes")
        _Counting(io.BytesIO(archive.read(programs[0])), most=2 * have + SLACK).load()


def check_solid(found: os.stat_result) -> None:
    """Whether a file is on the disk and not made of holes, which take no space and hours to read.

    Raises:
        UnpackingError: most of it is not there.
    """
    if found.st_blocks * 512 < found.st_size // 2 - SLACK:
        raise UnpackingError(f"has {found.st_size:,} bytes of which most are holes")


class _Made:
    """Stands for a tensor, storage or other object that torch would make."""

    def __init__(self, counter: _Counting):
        self._counter = counter

    def __setstate__(self, state: Any) -> None:
        # torch copies it into the object's attributes
        self._counter.count(100 * _length(state))


class _Storage(_Made):
    def __init__(self, counter: _Counting, item_size: int, items: int):
        super().__init__(counter)
        self.item_size, self.items = item_size, items


class _Mapping(_Made, dict):  # type: ignore[type-arg]
    def __init__(self, counter: _Counting):
        _Made.__init__(self, counter)
        dict.__init__(self)


class _Counting(pickle._Unpickler):  # type: ignore[name-defined]
    """Runs the program and counts what torch would make."""

    def __init__(self, program: IO[bytes], *, most: int):
        super().__init__(program, encoding="bytes")
        self._most, self._counted = most, 0

    def count(self, size: int) -> None:
        """Bytes more."""
        self._counted += size
        if self._counted > self._most or size < 0:
            raise UnpackingError(f"would make more than {self._most:,} bytes")

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in of what a program may name."""
        place = f"{module}.{name}"
        functions: Mapping[str, Callable[..., Any]] = {
            "collections.OrderedDict": self._ordered,
            "torch._utils._rebuild_tensor_v2": self._tensor,
            "torch._utils._rebuild_parameter": self._parameter,
            "torch.Size": self._size,
            "torch.device": self._small,
            "_codecs.encode": self._encode,
        }
        if place in functions:
            return functions[place]
        if module == "torch" and name in ITEM_SIZES:
            return ITEM_SIZES[name]
        if module == "torch" and name.isidentifier() and name[:3] in ("flo", "int", "uin", "boo", "bfl", "com", "str"):
            return place  # a dtype or layout: no function
        raise CodeError(f"asks for {place}")

    def persistent_load(self, pid: Any) -> Any:
        """A storage: ("storage", type, key, device, items)."""
        if not (isinstance(pid, tuple) and len(pid) == 5 and pid[0] in ("storage", b"storage")):
            raise UnpackingError("names something else than a storage")
        if not isinstance(pid[1], int) or not isinstance(pid[4], int) or pid[4] < 0:
            raise UnpackingError("names a storage of no known kind")
        return _Storage(self, pid[1], pid[4])

    def _tensor(self, storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Any:
        if not isinstance(storage, _Storage) or not isinstance(size, tuple):
            raise UnpackingError("holds a tensor that is none")
        items = 1
        for length in size:
            if not isinstance(length, int) or length < 0:
                raise UnpackingError("holds a tensor of no size")
            items *= length
        self.count(items * storage.item_size + 500)
        return _Made(self)

    def _parameter(self, data: Any, *_: Any) -> Any:
        return data

    def _ordered(self, *items: Any) -> Any:
        if items:
            raise UnpackingError("holds a mapping made of a list")
        self.count(200)
        return _Mapping(self)

    def _size(self, *items: Any) -> Any:
        self.count(100 + 10 * sum(_length(item) for item in items))
        return ()

    def _encode(self, text: Any, encoding: Any) -> Any:
        if not isinstance(text, str) or encoding not in ("latin1", b"latin1"):
            raise UnpackingError("holds bytes that are none")
        self.count(2 * len(text) + 100)
        return text.encode("latin1")

    def _small(self, *items: Any) -> Any:
        self.count(200)
        return _Made(self)

    # what may be done with them; pickle's own table, without what torch never writes

    dispatch = {opcode[0]: pickle._Unpickler.dispatch[opcode[0]] for opcode in OPCODES}  # type: ignore[attr-defined]

    def _one_item(self: Any) -> None:
        _check_key(self.stack[-2])
        self.load_setitem()

    def _items(self: Any) -> None:
        for key in self.stack[::2]:
            _check_key(key)
        self.load_setitems()

    dispatch |= {pickle.SETITEM[0]: _one_item, pickle.SETITEMS[0]: _items}


def _check_key(key: Any) -> None:
    """Tuples within tuples take for ever to hash."""
    flat = isinstance(key, tuple) and not any(isinstance(item, tuple) for item in key) and len(key) < 100
    if not (flat or isinstance(key, str | bytes | int | float | None)):
        raise UnpackingError(f"has a {type(key).__name__} for a key")


def _length(value: Any) -> int:
    return len(value) if isinstance(value, tuple | list | dict | str | bytes) else 1
