from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from envs import SlipperyAnt, SlipperyVectorEnv


@pytest.fixture
def ant() -> Iterator[Callable[..., SlipperyAnt]]:
    """Makes SlipperyAnts and closes them."""
    yield from _maker(SlipperyAnt)


@pytest.fixture
def vector() -> Iterator[Callable[..., SlipperyVectorEnv]]:
    """Makes SlipperyVectorEnvs and closes them."""
    yield from _maker(SlipperyVectorEnv)


def _maker(kind: Any) -> Iterator[Callable[..., Any]]:
    made = []

    def make(*arguments: Any, **named: Any) -> Any:
        made.append(kind(*arguments, **named))
        return made[-1]

    yield make
    for environment in made:
        environment.close()
