"""Large weights are reduced in pieces: the same sums, whichever dim is kept and whatever is left over."""

import pytest
import torch

from continual_agents.surgery import utility


@pytest.mark.parametrize("shape", [(67, 40), (40, 67), (33, 5, 3, 2)])
@pytest.mark.parametrize("dim", [0, 1, -1])
def test_pieces_add_up(shape, dim, monkeypatch) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    whole = utility.magnitude(weight, dim)
    monkeypatch.setattr(utility, "CHUNK", weight.numel() // 4)
    scratch = torch.full_like(weight, torch.nan)
    pieces = utility.magnitude(weight, dim, scratch)
    assert scratch.isnan().any(), "only a part of the scratch was used"
    torch.testing.assert_close(pieces, whole, rtol=1e-14, atol=0)
