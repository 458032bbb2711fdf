from __future__ import annotations

import doctest
import importlib

import pytest


@pytest.mark.parametrize("module", ["friction", "slippery_ant", "slippery_vector"])
def test_the_docstrings_examples_run(module: str) -> None:
    results = doctest.testmod(importlib.import_module(f"envs.{module}"))
    assert results.attempted > 0
    assert results.failed == 0
