"""A method from its configuration."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from continual_agents.methods import Method
from continual_agents.settings import nearest, written


def method_from(settings: Mapping[str, Any]) -> Method:
    """The method of a configuration.

    Raises:
        ValueError: no mapping, a key that methods have not, or a value that `Method` refuses.
    """
    if not isinstance(settings, Mapping):
        raise ValueError(f"method={written(settings)}: settings by name are needed")
    known = [field.name for field in dataclasses.fields(Method)]
    for key in settings:
        if key not in known:
            raise ValueError(f"method.{key} is unknown{nearest(key, known)}")
    return Method(**settings)


def idle(method: Method, steps: int) -> list[str]:
    """What of a method never happens in a run of so many gradient steps, in words."""
    said = []
    for name, settings in method.operations.items():
        for key, what in (("period", "it never acts"), ("maturity", "no unit grows old enough")):
            value = settings.get(key)
            if isinstance(value, int) and value > steps and not settings.get("at_task"):
                said.append(
                    f"method={method.name}: {name}.{key}={value:,}, and a run takes {steps:,} gradient steps: {what}"
                )
    return said
