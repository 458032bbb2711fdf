import math

import pytest
import torch

from continual_agents import plasticity

RANKS = (
    plasticity.effective_rank,
    plasticity.approximate_rank,
    plasticity.abs_approximate_rank,
    plasticity.stable_rank,
)


def with_singular_values(values, rows=40, seed=0):
    """Matrix `[rows, len(values)]` whose singular values are exactly `values`."""
    generator = torch.Generator().manual_seed(seed)
    width = len(values)
    left = torch.linalg.qr(torch.randn(rows, width, generator=generator, dtype=torch.float64)).Q
    right = torch.linalg.qr(torch.randn(width, width, generator=generator, dtype=torch.float64)).Q
    return left @ torch.diag(torch.tensor(values, dtype=torch.float64)) @ right


def test_hand_numbers():
    matrix = with_singular_values([3.0, 1.0])
    # p = 3/4, 1/4: exp(.75 log 4/3 + .25 log 4) = 1.7548; squares 9, 1: stable 10/9
    assert plasticity.effective_rank(matrix).item() == pytest.approx(1.754765, abs=1e-6)
    assert plasticity.stable_rank(matrix).item() == pytest.approx(10 / 9)
    assert plasticity.approximate_rank(matrix, 0.9).item() == 1  # 9 of 10 is just enough
    assert plasticity.approximate_rank(matrix, 0.91).item() == 2
    assert plasticity.abs_approximate_rank(matrix, 0.75).item() == 1  # 3 of 4
    assert plasticity.abs_approximate_rank(matrix, 0.76).item() == 2


def test_the_two_approximate_ranks_differ_as_they_should():
    matrix = with_singular_values(
        [10.0, 0.5, 0.5]
    )  # squares: 100 of 100.5 is 99.5%; plain: 10 of 11 is 91%, 10.5 is 95%
    assert plasticity.approximate_rank(matrix).item() == 1
    assert plasticity.abs_approximate_rank(matrix).item() == 3


def test_equal_singular_values_give_the_full_rank():
    matrix = with_singular_values([2.0] * 8)
    for rank in (plasticity.effective_rank, plasticity.stable_rank):
        assert rank(matrix).item() == pytest.approx(8.0, rel=1e-9)
    assert plasticity.approximate_rank(matrix).item() == 8


@pytest.mark.parametrize("rank", RANKS)
def test_zero_matrix_has_rank_0_and_a_rank_1_matrix_exactly_1(rank):
    assert rank(torch.zeros(10, 6)).item() == 0
    column = torch.arange(1.0, 301.0)[:, None] / 7  # float32, wide: 300 spurious singular values of 1e-8 would add up
    assert rank(column * column.T).item() == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize("shape", [(64, 16), (16, 64), (30, 30), (1, 5), (5, 1)])
def test_singular_values_agree_with_the_svd(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).relu()
    torch.testing.assert_close(plasticity.singular_values(matrix), torch.linalg.svdvals(matrix), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_scale_does_not_matter(scale):
    matrix = with_singular_values([3.0, 1.0]) * scale
    assert plasticity.effective_rank(matrix).item() == pytest.approx(1.754765, abs=1e-6)
    assert plasticity.singular_values(matrix)[0].item() == pytest.approx(3 * scale)


@pytest.mark.parametrize("rank", RANKS)
def test_runs_dims_give_what_each_run_gives_alone(rank):
    stack = torch.randn(3, 20, 6, generator=torch.Generator().manual_seed(2)).relu()
    stack[1] = 0.0
    together = rank(stack)
    assert together.shape == (3,)
    assert together[1] == 0
    for run in range(3):
        assert together[run].item() == pytest.approx(rank(stack[run]).item(), rel=1e-9)


def test_effective_rank_of_the_identity_by_definition():
    singular = [5.0, 4.0, 2.0, 1.0, 0.5]
    shares = [value / sum(singular) for value in singular]
    expected = math.exp(-sum(share * math.log(share) for share in shares))
    assert plasticity.effective_rank(with_singular_values(singular)).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("rank", RANKS)
def test_a_diverged_run_is_nan_and_leaves_the_others(rank):
    stack = torch.randn(3, 20, 6, generator=torch.Generator().manual_seed(2))
    expected = rank(stack)
    stack[1, 4, 2] = float("inf")
    together = rank(stack)
    assert together.isnan().tolist() == [False, True, False]
    assert together[2] == expected[2]


def test_refusals():
    with pytest.raises(ValueError, match=r"fraction=1\.5"):
        plasticity.approximate_rank(torch.ones(3, 3), 1.5)
    with pytest.raises(ValueError, match="batch, width"):
        plasticity.stable_rank(torch.ones(3))
