"""Averages over runs with bootstrapped intervals."""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Estimate(NamedTuple):
    """A statistic over runs with the ends of its interval; all `[...]`, the ends nan when there is a single run."""

    value: Tensor
    low: Tensor
    high: Tensor


def mean(values: Tensor) -> Tensor:
    """Mean over runs, `[..., runs, positions] -> [..., positions]`."""
    return values.mean(-2)


def interquartile_mean(values: Tensor) -> Tensor:
    """Mean of the middle half of the runs (Agarwal et al. 2021): a quarter of them, rounded down, is cut at each end.

    Args:
        values: `[..., runs, positions]`.

    Returns:
        `[..., positions]`; equals the mean below 4 runs.
    """
    runs = values.shape[-2]
    cut = runs // 4
    return values.sort(-2).values[..., cut : runs - cut, :].mean(-2)


def bootstrap(
    values: Tensor,
    statistic: Callable[[Tensor], Tensor] = mean,
    *,
    strata: Sequence[object] | None = None,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Estimate:
    """Statistic over runs with its percentile bootstrap interval (Efron and Tibshirani 1993, chapter 13).

    Runs are drawn with replacement, `resamples` times, whole runs together at all positions; with `strata`, separately
    in each stratum and in its own number (Agarwal et al. 2021). Below some ten runs such intervals are too narrow: a
    95% interval over 5 runs covers about 85%. State the number of runs beside it.

    Args:
        values: `[runs]` or `[runs, positions]`, finite.
        statistic: maps `[..., runs, positions]` to `[..., positions]`.
        strata: label of each run, for instance its environment.
        confidence: mass inside the interval.
        resamples: number of bootstrap draws.
        seed: of the draws; the same seed gives the same interval.

    Returns:
        `Estimate` of 0-dim tensors or `[positions]`, float64.

    Raises:
        ValueError: no runs, values that are not finite, `confidence` outside (0, 1), or labels of another number.
    """
    table = values.to(torch.float64)
    if table.dim() not in (1, 2) or table.shape[0] == 0:
        raise ValueError(f"values of shape {tuple(values.shape)}: expected [runs] or [runs, positions]")
    if not torch.isfinite(table).all():
        raise ValueError("values hold inf or nan: leave out the runs or positions that are missing")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence={confidence}: expected a number between 0 and 1")
    columns = table[:, None] if table.dim() == 1 else table
    value = statistic(columns)
    low = high = torch.full_like(value, torch.nan)
    if len(columns) > 1:
        # the same draws at every position: a run counts as a whole, and curves stay smooth
        chosen = _resample(tuple(strata or [0] * len(columns)), len(columns), resamples, seed)
        block = max(1, 4_000_000 // chosen.numel())  # positions at a time: bounds the memory at about 32 MB
        draws = torch.cat([statistic(part[chosen]) for part in columns.split(block, dim=1)], dim=1)
        ends = torch.tensor([(1 - confidence) / 2, (1 + confidence) / 2], dtype=torch.float64)
        low, high = torch.stack([torch.quantile(column, ends) for column in draws.T], dim=1)
    return Estimate(*(part[0] if table.dim() == 1 else part for part in (value, low, high)))


@functools.lru_cache(maxsize=8)  # the settings of a sweep have as many runs each: a hundred times the same draws
def _resample(strata: tuple[object, ...], runs: int, resamples: int, seed: int) -> Tensor:
    """Run indices `[resamples, runs]`, drawn with replacement within each stratum."""
    if len(strata) != runs:
        raise ValueError(f"{len(strata)} strata labels for {runs} runs: give one label per run")
    generator = torch.Generator().manual_seed(seed)
    parts = []
    for label in dict.fromkeys(strata):
        members = torch.tensor([index for index, other in enumerate(strata) if other == label])
        picks = torch.randint(len(members), (resamples, len(members)), generator=generator)
        parts.append(members[picks])
    return torch.cat(parts, dim=1)
