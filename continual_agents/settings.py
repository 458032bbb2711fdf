"""Settings from a configuration, checked by name and type: the constructor that takes them is the schema."""

import collections.abc
import difflib
import inspect
import math
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, Union


def nearest(name: str, known: Iterable[str]) -> str:
    """`: did you mean 'x'?` or the list of what there is; the end of an error message."""
    names = [str(item) for item in known]
    close = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    return f": did you mean {close[0]!r}?" if close else f": one of {', '.join(names)}"


def check_settings(
    where: str, settings: Any, *constructors: Callable[..., Any], given: Sequence[str] = (), to: str = ""
) -> None:
    """Whether the constructors have a keyword argument of a fitting type for each setting. Ranges are theirs to check.

    Args:
        where: the settings' place in the configuration, for the message.
        settings: name -> value, as it came out of a YAML file or the command line.
        constructors: what takes them; keyword-only arguments with their annotations.
        given: arguments that come from elsewhere and are no settings.
        to: what a setting is unknown to, for the message.

    Raises:
        ValueError: no mapping, an unknown name (with the nearest known one), or a value of another type.
    """
    if not isinstance(settings, Mapping):
        raise ValueError(f"{where}={written(settings)}: settings by name are needed, as {where}.NAME=VALUE")
    known = {name: kind for one in constructors for name, kind in keywords(one).items() if name not in given}
    for name, value in settings.items():
        if name not in known:
            raise ValueError(f"{where}.{name} is unknown{to and f' to {to}'}{nearest(str(name), known)}")
        check_type(f"{where}.{name}", value, known[name])


def check_types(where: str, settings: Mapping[str, Any], kinds: Mapping[str, Any]) -> None:
    """`check_type` for each setting that `kinds` names; the others are somebody else's.

    Raises:
        ValueError: a value of another type.
    """
    for name, kind in kinds.items():
        if name in settings:
            check_type(f"{where}.{name}" if where else name, settings[name], kind)


def check_type(name: str, value: Any, kind: Any) -> None:
    """Whether a value is what an annotation says: a whole number is not 1.5, not true and not a word.

    Args:
        name: how the message calls it.
        value: plain, as YAML gives it.
        kind: `int`, `float` (finite), `bool`, `str`, `None`, a `Literal`, a sequence or tuple of those, a mapping, or a
            union. What configurations cannot write (functions, tensors) is left to the constructor.

    Raises:
        ValueError: it is not, saying what is needed.
    """
    if not _fits(value, kind):
        whole = isinstance(value, float) and value.is_integer() and _fits(int(value), kind)
        hint = f": write {int(value)}" if whole else ""
        if isinstance(value, float) and not math.isfinite(value):
            hint = ", and a finite one"
        if isinstance(value, int) and not -LARGEST - 1 <= value <= LARGEST:
            hint = f", and at most {LARGEST:,}"
        raise ValueError(f"{name}={written(value)}: {_said(kind)} is needed{hint}")


def check_counts(where: str, least: int = 1, **counts: int | None) -> None:
    """Whether settings are at least so much; None, where it may be given, is.

    Raises:
        ValueError: one is less.
    """
    for name, count in counts.items():
        if count is not None and count < least:
            raise ValueError(f"{where}.{name}={count}: at least {least}")


def keywords(constructor: Callable[..., Any]) -> dict[str, Any]:
    """Keyword-only arguments of a function or class with their annotations, resolved.

    A class whose constructor hands other keywords on (`**`) has those of its base too.
    """
    function: Any = constructor.__init__ if inspect.isclass(constructor) else constructor
    hints = typing.get_type_hints(function)
    parameters = inspect.signature(function).parameters.values()
    base: dict[str, Any] = {}
    if inspect.isclass(constructor) and any(one.kind is one.VAR_KEYWORD for one in parameters):
        base = keywords(constructor.__mro__[1])
    return base | {one.name: hints.get(one.name, Any) for one in parameters if one.kind is one.KEYWORD_ONLY}


LARGEST = 2**63 - 1
"""Whole number that arrays and random generators hold."""

LONGEST = 120
"""Letters of a value in a message; of a longer one both ends are shown."""


def shortened(text: str) -> str:
    """The text, or both ends of a long one."""
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} ... {text[-LONGEST // 4 :]}"


def written(value: Any) -> str:
    """A value as the command line has it, `null`, `true`, `[a, b]`; of a long one both ends."""
    return shortened(_written(value))


def _written(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_written, value))}]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_written(item)}" for key, item in value.items()) + "}"
    return str(value)


def _fits(value: Any, kind: Any) -> bool:
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin in (Union, types.UnionType):
        return any(_fits(value, part) for part in parts)
    if origin is Literal:
        return value in parts
    if kind is None or kind is type(None):
        return value is None
    if kind is float:
        return _fits(value, int) or (isinstance(value, float) and math.isfinite(value))
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool) and -LARGEST - 1 <= value <= LARGEST
    if kind in (bool, str):
        return isinstance(value, kind)
    if origin in (list, tuple, collections.abc.Sequence):
        fixed = origin is tuple and Ellipsis not in parts
        items = parts if fixed else parts[:1] * (len(value) if isinstance(value, list | tuple) else 0)
        return isinstance(value, list | tuple) and len(value) == len(items) and all(map(_fits, value, items))
    if origin in (dict, collections.abc.Mapping):
        return isinstance(value, Mapping)
    # a class that no configuration can write: plain values do not fit; what is not plain, the constructor judges
    return kind is Any or not isinstance(value, bool | int | float | str | list | dict | None)


def _said(kind: Any) -> str:
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin in (Union, types.UnionType):
        plain = [_said(part) for part in parts if _writable(part)]
        return " or ".join(dict.fromkeys(plain))
    if origin is Literal:
        return f"one of {', '.join(map(written, parts))}"
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "a word", type(None): "null"}
    if kind in names:
        return names[kind]
    if origin in (list, tuple, collections.abc.Sequence):
        many = {int: "whole numbers", float: "numbers", str: "words"}.get(parts[0], "values")
        count = f"{len(parts)} " if origin is tuple and Ellipsis not in parts else ""
        return f"a list of {count}{many}"
    if origin in (dict, collections.abc.Mapping):
        return "a mapping {key: value}"
    return "something else"


def _writable(kind: Any) -> bool:
    """Whether a configuration can write such a value."""
    plain = (int, float, bool, str, type(None))
    return kind in plain or typing.get_origin(kind) in (
        Literal, list, tuple, dict, collections.abc.Sequence, collections.abc.Mapping,
    )  # fmt: skip
