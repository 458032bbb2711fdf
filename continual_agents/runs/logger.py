"""Numbers and pictures as loggers take them."""

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np


class LoggerError(RuntimeError):
    """A logger that cannot be used; the message says why and what to do."""


class Statistics(NamedTuple):
    """Mean over runs and its 95% interval (normal approximation, 1.96 standard errors); nan where unknown."""

    mean: float
    low: float = math.nan
    high: float = math.nan


def known(values: Mapping[str, Any]) -> dict[str, float]:
    """The values that are not nan, as numbers."""
    return {tag: float(value) for tag, value in values.items() if not math.isnan(float(value))}


def run_statistics(metrics: Mapping[str, Any], groups: Sequence[str] | None = None) -> dict[str, dict[str, Statistics]]:
    """Statistics over the runs of each group: group -> name -> mean and interval.

    Args:
        metrics: name -> array `[runs]`; nan where a run does not know it.
        groups: label of each run's setting, `[runs]`; one group "" when None.
    """
    found: dict[str, dict[str, Statistics]] = {}
    for name, values in metrics.items():
        numbers = np.asarray(values, dtype=np.float64)
        labels = np.asarray(groups if groups is not None else [""] * len(numbers))
        for label in dict.fromkeys(labels.tolist()):
            chosen = numbers[labels == label]
            found.setdefault(label, {})[name] = _statistics(chosen[~np.isnan(chosen)])
    return found


def _statistics(numbers: np.ndarray) -> Statistics:
    if numbers.size < 2:
        return Statistics(float(numbers[0]) if numbers.size else math.nan)
    mean, half = float(numbers.mean()), 1.96 * float(numbers.std(ddof=1)) / math.sqrt(numbers.size)
    return Statistics(mean, mean - half, mean + half)


def gif(pictures: np.ndarray, frames_per_second: int) -> bytes:
    """An endless animated GIF of `[time, height, width, 3]` uint8 pictures.

    `SummaryWriter.add_video` would make one with the editor of moviepy 1, a package that nothing else here needs.
    """
    from PIL import Image

    first, *others = [Image.fromarray(picture) for picture in pictures]
    buffer = io.BytesIO()
    first.save(buffer, "GIF", save_all=True, append_images=others, duration=round(1000 / frames_per_second), loop=0)
    return buffer.getvalue()
