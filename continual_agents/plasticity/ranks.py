"""How many directions a layer's activations really use: four notions of rank.

All take a matrix `[..., batch, width]` of activations and return `[...]` in float64; an all-zero matrix has rank 0.
"""

import torch
from torch import Tensor

from .units import check_batch


def singular_values(matrix: Tensor) -> Tensor:
    """Singular values in descending order, float64, `[..., min(batch, width)]`.

    Computed as the roots of the eigenvalues of the smaller Gram matrix: 1.4 times (256 wide) to 2.4 times (2,000 wide)
    faster than a float64 SVD on one core. Squaring costs half of float64's 16 digits; what is below that noise (under
    1e-6 of the largest, less than float32 activations resolve) is set to exactly 0, so that a matrix of rank 1 has
    effective rank 1.

    A matrix with infinite or nan entries (a diverged run of a stack) has singular values and ranks nan.

    Raises:
        ValueError: not a matrix, or empty.
    """
    check_batch(matrix)
    finite = torch.isfinite(matrix).all(-1).all(-1)
    matrix = torch.where(finite[..., None, None], matrix, 0.0).to(torch.float64)
    largest = matrix.abs().amax((-2, -1), keepdim=True)
    scaled = matrix / torch.where(largest > 0, largest, 1.0)  # squares of tiny or huge values stay in range
    wide = matrix.shape[-1] > matrix.shape[-2]
    gram = scaled @ scaled.mT if wide else scaled.mT @ scaled
    eigenvalues = torch.linalg.eigvalsh(gram).flip(-1)
    noise = eigenvalues[..., :1] * torch.finfo(torch.float64).eps * max(matrix.shape[-2:])
    singular = torch.where(eigenvalues > noise, eigenvalues, 0.0).clamp_min(0.0).sqrt() * largest[..., 0]
    return torch.where(finite[..., None], singular, torch.nan)


def effective_rank(matrix: Tensor) -> Tensor:
    """`exp(-sum_k p_k log p_k)` with `p = sigma / sum sigma` (Roy and Vetterli, EUSIPCO 2007)."""
    return effective_rank_of(singular_values(matrix))


def approximate_rank(matrix: Tensor, fraction: float = 0.99) -> Tensor:
    """Least number of singular values whose squares hold `fraction` of the squared sum (Yang et al. 2019, srank)."""
    return _count_holding(singular_values(matrix).square(), fraction)


def abs_approximate_rank(matrix: Tensor, fraction: float = 0.99) -> Tensor:
    """Least number of singular values that hold `fraction` of their plain sum.

    This is what the reinforcement-learning figures of Nature 632:768 (2024) call "stable rank" (as Kumar et al. 2021).
    """
    return _count_holding(singular_values(matrix), fraction)


def stable_rank(matrix: Tensor) -> Tensor:
    """`||A||_F^2 / ||A||_2^2`, the squared sum of the singular values over the largest square."""
    return stable_rank_of(singular_values(matrix))


def effective_rank_of(singular: Tensor) -> Tensor:
    """`effective_rank` from singular values `[..., k]`."""
    total = singular.sum(-1, keepdim=True)
    share = singular / torch.where(total == 0, 1.0, total)
    return torch.where(total[..., 0] == 0, 0.0, torch.special.entr(share).sum(-1).exp())


def stable_rank_of(singular: Tensor) -> Tensor:
    """`stable_rank` from singular values `[..., k]`, largest first."""
    largest = singular[..., :1]
    return (singular / torch.where(largest == 0, 1.0, largest)).square().sum(-1)


def approximate_rank_of(singular: Tensor, fraction: float = 0.99) -> Tensor:
    """`approximate_rank` from singular values `[..., k]`, largest first."""
    return _count_holding(singular.square(), fraction)


def abs_approximate_rank_of(singular: Tensor, fraction: float = 0.99) -> Tensor:
    """`abs_approximate_rank` from singular values `[..., k]`, largest first."""
    return _count_holding(singular, fraction)


def _count_holding(amounts: Tensor, fraction: float) -> Tensor:
    """Number of leading `amounts [..., k]` (descending) that first reach `fraction` of their sum; 0 if all are 0."""
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction={fraction}: expected a number in (0, 1]")
    held = amounts.cumsum(-1)
    total = held[..., -1:]
    # the last sums may fall short of fraction * total = total by rounding alone
    missing = (held < fraction * total * (1 - 1e-12)).sum(-1)
    total = total[..., 0]
    return torch.where(total.isnan(), torch.nan, torch.where(total > 0, missing + 1, 0).to(torch.float64))
