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
