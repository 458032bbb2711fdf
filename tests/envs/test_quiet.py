"""What C prints goes nowhere while it is silenced, and only then."""

import ctypes

import pytest

from envs.quiet import silenced


def test_what_c_prints_is_dropped_while_silenced(capfd: pytest.CaptureFixture[str]) -> None:
    c_library = ctypes.CDLL(None)
    c_library.puts(b"before")  # still in C's buffer when it is silenced: no reason to lose it
    with silenced(1):
        c_library.puts(b"meanwhile")
    c_library.puts(b"after")
    c_library.fflush(None)
    assert capfd.readouterr().out == "before\nafter\n"


def test_an_error_ends_the_silence(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ZeroDivisionError), silenced(1):
        _ = 1 / 0
    ctypes.CDLL(None).puts(b"after")
    ctypes.CDLL(None).fflush(None)
    assert capfd.readouterr().out == "after\n"
