"""What an environment and the wrappers around it remember, as plain data that a checkpoint can hold.

Every layer is asked in turn, from the outside in: a layer with `state_dict` and `load_state_dict` speaks for itself;
of any other wrapper, and of gymnasium's own pure Python environments, the attributes are taken as they stand (counters,
arrays, queues, running statistics, random generators). What they refer to beyond plain data cannot be taken; such a
layer is named, and the run says that it continues inexactly.
"""

import enum
import types
from collections import deque
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import SyncVectorEnv, VectorWrapper

TRANSPARENT = ("gymnasium.envs.classic_control.", "gymnasium.envs.toy_text.")
"""Environments whose whole state stands in their attributes. Any other one may keep it in a simulator elsewhere, of
which an attribute is a mere handle: it has to offer `state_dict`."""

_CONFIGURATION = (
    *(types.FunctionType, types.MethodType, types.BuiltinFunctionType, types.ModuleType, type),
    *(gymnasium.Space, EnvSpec, enum.Enum),
)
_OUTSIDE = ("env", "_saved_kwargs", "_cached_spec", "_metadata")


class _Opaque(Exception):
    """A value that is no plain data."""


def environment_state(environment: Any) -> dict[str, Any] | None:
    """State of an environment and of the wrappers around it.

    Returns:
        `layers` from the outside in, `inexact`: attributes that could not be taken, as `Wrapper.name (Type)`; None if
        the environment itself has no state to give.
    """
    inexact: list[str] = []
    layers = _save(environment, inexact)
    return None if layers is None else {"layers": layers, "inexact": inexact}


def set_environment_state(environment: Any, state: dict[str, Any]) -> None:
    """Continue from `environment_state()`.

    Raises:
        ValueError: other wrappers stand around the environment now.
    """
    _load(environment, state["layers"])


def check_states(environment: Any) -> None:
    """Whether every layer that offers a state also takes it.

    Raises:
        ValueError: `state_dict` without `load_state_dict`.
    """
    for layer in _layers(environment):
        if hasattr(layer, "state_dict") and not hasattr(layer, "load_state_dict"):
            raise ValueError(
                f"the environment {type(layer).__name__} has state_dict but no load_state_dict: give it both or neither"
            )
        if isinstance(layer, SyncVectorEnv):
            for member in layer.envs:
                check_states(member)


def _layers(environment: Any) -> list[Any]:
    """The wrappers from the outside in, and the environment itself."""
    found = [environment]
    while isinstance(found[-1], gymnasium.Wrapper | VectorWrapper):
        found.append(found[-1].env)
    return found


def _save(environment: Any, inexact: list[str]) -> list[Any] | None:
    *wrappers, source = _layers(environment)
    saved: list[Any] = [_own_state(wrapper, inexact) for wrapper in wrappers]
    if isinstance(source, SyncVectorEnv):
        members = [_save(member, inexact) for member in source.envs]
        return None if any(member is None for member in members) else [*saved, {"members": members}]
    if hasattr(source, "state_dict") or type(source).__module__.startswith(TRANSPARENT):
        # what a transparent environment holds besides plain data are pictures
        return [*saved, _own_state(source, [])]
    return None


def _own_state(layer: Any, inexact: list[str]) -> dict[str, Any]:
    kind = type(layer).__name__
    if hasattr(layer, "state_dict"):
        return {"class": kind, "state": layer.state_dict()}
    attributes = {}
    for name, value in vars(layer).items():
        if name in _OUTSIDE or isinstance(value, _CONFIGURATION):
            continue
        try:
            attributes[name] = _encode(value)
        except _Opaque:
            inexact.append(f"{kind}.{name} ({type(value).__name__})")
    return {"class": kind, "attributes": attributes}


def _load(environment: Any, saved: list[Any]) -> None:
    layers = _layers(environment)
    names = [type(layer).__name__ for layer in layers[:-1]]
    stored = [one.get("class", "vector") for one in saved[:-1]]
    if names != stored:
        raise ValueError(f"the environment had the wrappers {stored}, now it has {names}")
    for layer, one in zip(layers, saved, strict=True):
        if "members" in one:
            for member, inner in zip(layer.envs, one["members"], strict=True):
                _load(member, inner)
        elif "state" in one:
            layer.load_state_dict(one["state"])
        else:
            _restore(layer, one["attributes"])


def _encode(value: Any, inside: bool = False) -> Any:
    """Plain data that `_decode` turns back into the same value, type included; `inside`: of a container.

    Raises:
        _Opaque: the value is none.
    """
    if value is None or type(value) in (bool, int, float, str, bytes):
        return value
    if isinstance(value, np.random.Generator):
        return {"kind": "generator", "value": value.bit_generator.state}
    if isinstance(value, np.generic | np.ndarray) and value.dtype != object:
        # a checkpoint keeps arrays as tensors, which know fewer types
        return {"kind": "array", "shape": list(value.shape), "dtype": value.dtype.str, "value": value.tobytes()}
    if isinstance(value, torch.Tensor):
        return {"kind": "tensor", "value": value.detach().clone()}
    if isinstance(value, deque):
        return {"kind": "deque", "value": [_encode(item, True) for item in value], "maxlen": value.maxlen}
    if type(value) in (list, tuple, set):
        return {"kind": type(value).__name__, "value": [_encode(item, True) for item in value]}
    if type(value) is dict:
        return {"kind": "dict", "value": [[_encode(key, True), _encode(item, True)] for key, item in value.items()]}
    # an object inside a container could not be changed in place; one that C code makes keeps more than its attributes
    if inside or isinstance(value, _CONFIGURATION) or type(value).__new__ is not object.__new__:
        raise _Opaque
    attributes = {name: _encode(one) for name, one in vars(value).items() if not isinstance(one, _CONFIGURATION)}
    return {"kind": "object", "value": attributes}


def _decode(stored: Any, now: Any) -> Any:
    """The value that was encoded; objects and generators are changed in place, others may hold them too."""
    if not isinstance(stored, dict):
        return stored
    kind, value = stored["kind"], stored["value"]
    if kind == "generator":
        if not isinstance(now, np.random.Generator):
            now = np.random.Generator(getattr(np.random, value["bit_generator"])())
        now.bit_generator.state = value
        return now
    if kind == "object":
        _restore(now, value)
        return now
    if kind == "array":
        array = np.frombuffer(value, dtype=stored["dtype"]).reshape(stored["shape"])
        return array.copy() if stored["shape"] or isinstance(now, np.ndarray) else array[()]
    if kind == "tensor":
        return value.clone()
    if kind == "dict":
        return {_decode(key, None): _decode(item, None) for key, item in value}
    items = [_decode(item, None) for item in value]
    return (
        deque(items, stored["maxlen"]) if kind == "deque" else {"list": list, "tuple": tuple, "set": set}[kind](items)
    )


def _restore(layer: Any, attributes: dict[str, Any]) -> None:
    for name, stored in attributes.items():
        setattr(layer, name, _decode(stored, getattr(layer, name, None)))
