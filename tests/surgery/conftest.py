"""What several files here share."""

import pytest
import torch

from continual_agents.surgery import kernels


@pytest.fixture(params=["C", "torch"])
def ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Once with kernels.c, once with torch's operations alone, as on a machine without a C compiler."""
    if request.param == "torch":
        monkeypatch.setattr(kernels, "library", lambda dtype: None)
    return request.param


@pytest.fixture
def library() -> kernels.Library:
    """The functions for float32."""
    found = kernels.library(torch.float32)
    assert found is not None, "tests need a C compiler"
    return found
