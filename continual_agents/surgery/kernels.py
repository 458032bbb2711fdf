"""kernels.c as functions: what a step of surgery, a replacement and `surgery.Adam` do on a CPU, in few calls.

They take addresses and check nothing: `library_for` says whether tensors can be handed to them, `layout` whether what
was prepared still holds. Without a C compiler torch's own operations do the same, slower, with other last digits.
"""

from __future__ import annotations

import ctypes
import functools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .compiler import CompilerError, compiled

SOURCE = Path(__file__).with_name("kernels.c")

FLAGS = ("-O3", "-march=native", "-std=gnu11", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math")

REALS = {torch.float32: "float", torch.float64: "double"}

ADDRESS, WHOLE, REAL = ctypes.c_void_p, ctypes.c_int64, ctypes.c_double


class Sum(ctypes.Structure):
    """`Sum` of kernels.c."""

    _fields_ = [("x", ADDRESS), ("outer", WHOLE), ("units", WHOLE), ("inner", WHOLE), ("out", ADDRESS), ("more", WHOLE)]


class Averages(ctypes.Structure):
    """`Averages` of kernels.c."""

    _fields_ = [(name, ADDRESS) for name in ("state", "fresh", "activity", "out", "incoming")]
    _fields_ += [(name, WHOLE) for name in ("units", "values", "ones", "samples")]
    _fields_ += [("pace", REAL)]


class Zeros(ctypes.Structure):
    """`Zeros` of kernels.c."""

    _fields_ = [("x", ADDRESS), ("outer", WHOLE), ("size", WHOLE), ("inner", WHOLE), ("bytes", WHOLE)]


class Part(ctypes.Structure):
    """`Part` of kernels.c."""

    _fields_ = [(name, ADDRESS) for name in ("parameter", "gradient", "first", "second")]
    _fields_ += [(name, ADDRESS) for name in ("row_ages", "column_ages", "step")]
    _fields_ += [(name, WHOLE) for name in ("rows", "columns", "inner")]


class Settings(ctypes.Structure):
    """`Settings` of kernels.c."""

    _fields_ = [("ones", ADDRESS), ("roots", ADDRESS), ("last", WHOLE)]
    _fields_ += [(name, REAL) for name in ("rate", "beta1", "beta2", "eps", "decay")]
    _fields_ += [("decoupled", WHOLE), ("maximize", WHOLE)]


FUNCTIONS: dict[str, list[Any]] = {
    "absolute_sums": [ADDRESS, WHOLE],
    "sum_of_rows": [ADDRESS, WHOLE, WHOLE, ADDRESS],
    "follow": [ADDRESS, WHOLE, ADDRESS],
    "judge": [ADDRESS, WHOLE, ADDRESS, WHOLE, WHOLE, ADDRESS],
    "restart": [ADDRESS, WHOLE, ADDRESS, WHOLE, ADDRESS, WHOLE],
    "fill_zeros": [ADDRESS, WHOLE, ADDRESS, WHOLE],
    "hand_over": [ADDRESS, WHOLE, WHOLE, ADDRESS, WHOLE, ADDRESS, ADDRESS],
    "adam": [ADDRESS, WHOLE, ADDRESS, ADDRESS, WHOLE, WHOLE],
}
"""What kernels.c has, and the types of its arguments; all return nothing."""


class Library:
    """The functions of kernels.c for numbers of one type, by their names."""

    def __init__(self, dtype: torch.dtype, loaded: ctypes.CDLL) -> None:
        self._dtype = dtype
        for name, arguments in FUNCTIONS.items():
            function = getattr(loaded, name)
            function.argtypes, function.restype = arguments, None
            setattr(self, name, function)

    def __getattr__(self, name: str) -> Callable[..., None]:  # for type checkers: all are there
        raise AttributeError(name)

    def __reduce__(self) -> tuple:  # a copy, in another process too, has the functions of its process
        return library, (self._dtype,)


@functools.cache
def library(dtype: torch.dtype) -> Library | None:
    """The functions for numbers of this type; None where there are none, or no compiler."""
    if dtype not in REALS:
        return None
    source = f"#define REAL {REALS[dtype]}\n{SOURCE.read_text(encoding='utf-8')}"
    try:
        return Library(dtype, compiled(source, FLAGS, SOURCE.name))
    except CompilerError:
        return None


def dense(tensor: Tensor) -> bool:
    """Whether this is an ordinary tensor, its numbers side by side in a CPU's memory."""
    kind = type(tensor)  # a fake or a distributed tensor has no memory of its own
    return (kind is Tensor or kind is torch.nn.Parameter) and tensor.device.type == "cpu" and tensor.is_contiguous()


def layout(tensor: Tensor) -> tuple[Any, ...]:
    """Where its numbers are, and what they are: as long as it is the same, prepared addresses hold."""
    return tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()


def library_for(tensors: Sequence[Tensor]) -> Library | None:
    """The functions for these tensors; None unless all are dense and of one type."""
    dtype = tensors[0].dtype
    return library(dtype) if all(dense(t) and t.dtype == dtype for t in tensors) else None


def sides(shape: Sequence[int], dim: int) -> tuple[int, int, int]:
    """Entries before, along and behind `dim`."""
    return math.prod(shape[:dim]), shape[dim], math.prod(shape[dim + 1 :])


def absolute_sum(weight: Tensor, dim: int, out: Tensor, *, more: bool = False) -> Sum:
    """A `Sum` of |weight| over every dim but `dim`, into `out`."""
    outer, units, inner = sides(weight.shape, dim % weight.ndim)
    return Sum(weight.data_ptr(), outer, units, inner, out.data_ptr(), more)
