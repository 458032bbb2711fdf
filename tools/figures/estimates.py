"""From records of runs to a curve with an interval."""

import numpy as np
import pandas as pd
import torch

from continual_agents import plasticity

ENOUGH_FOR_IQM = 8
"""Runs from which on returns are summarised by the interquartile mean; it discards a quarter of them at each end."""


def nice_width(span: float, bins: int) -> float:
    """Smallest of 1, 2, 2.5, 5 times a power of ten that covers `span` in at most `bins` bins."""
    least = span / bins
    power = 10.0 ** np.floor(np.log10(least))
    # 1e-9: a span that fits its bins exactly must not get wider ones by rounding
    return float(next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= least * (1 - 1e-9)))


def binned(records: pd.DataFrame, column: str, *, position: str, edges: np.ndarray) -> np.ndarray:
    """Mean of `column` per run and bin, `[runs, bins]`; inner gaps of a run are bridged linearly, its ends stay nan.

    Args:
        records: long table with columns `replicate` (which run), `position` and `column`.
        column: what to average.
        position: column with the place on the x axis; a record at an edge belongs to the bin that ends there.
        edges: `[bins + 1]`, increasing.
    """
    rows = []
    for _, one in records.groupby("replicate", sort=False):
        known = one[column].notna()
        values = one.loc[known, column].to_numpy(float)
        index = np.searchsorted(edges, one.loc[known, position].to_numpy(float), side="left") - 1
        inside = (index >= 0) & (index < len(edges) - 1)
        counts = np.bincount(index[inside], minlength=len(edges) - 1)
        sums = np.bincount(index[inside], weights=values[inside], minlength=len(edges) - 1)
        rows.append(np.divide(sums, counts, out=np.full(len(counts), np.nan), where=counts > 0))
    return pd.DataFrame(np.stack(rows)).interpolate(axis=1, limit_area="inside").to_numpy()


def estimate(values: np.ndarray, *, iqm: bool = False) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean (or interquartile mean) over runs with a bootstrapped 95% interval at every position.

    Args:
        values: `[runs, positions]`, nan where a run has no data; such a position uses the other runs.
        iqm: use the interquartile mean where at least `ENOUGH_FOR_IQM` runs have data.

    Returns:
        `value, low, high`, each `[positions]`; nan where no run has data, ends nan where only one has.
    """
    results = np.full((3, values.shape[1]), np.nan)
    present = np.isfinite(values)
    patterns, pattern_of = np.unique(present, axis=1, return_inverse=True)
    for number in range(patterns.shape[1]):
        runs, positions = patterns[:, number], pattern_of.ravel() == number
        if runs.any():
            chosen = torch.from_numpy(values[np.ix_(runs, positions)])
            enough = iqm and len(chosen) >= ENOUGH_FOR_IQM
            statistic = plasticity.interquartile_mean if enough else plasticity.mean
            results[:, positions] = torch.stack(plasticity.bootstrap(chosen, statistic)).numpy()
    return results[0], results[1], results[2]


def estimate_one(values: np.ndarray, *, iqm: bool = False) -> tuple[float, float, float]:
    """`estimate` of one number per run."""
    value, low, high = estimate(np.asarray(values, dtype=float)[:, None], iqm=iqm)
    return float(value[0]), float(low[0]), float(high[0])
