"""TensorBoard files of a run: scalars, a plasticity overview, hyperparameters; continued without overlap."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

_STACK = r"/.*/mean$"  # a stack of runs has one curve per setting


def _chart(*measures: str) -> list[Any]:
    return ["Multiline", [pattern for name in measures for pattern in (f"^{name}$", f"^{name}{_STACK}")]]


OVERVIEW = {
    "Plasticity at a glance": {
        "return": _chart("return/mean"),
        "accuracy": _chart("accuracy", "test_accuracy"),
        "squared error": _chart("squared_error"),
        "friction": _chart("task/friction"),
        "task": _chart("task/index"),
        "dead and dormant units": _chart("plasticity/dead_units", "plasticity/dormant_units"),
        "effective rank": _chart("plasticity/effective_rank"),
        "weight magnitude": _chart("plasticity/weight_magnitude"),
        "replaced units": _chart("surgery/replaced"),
        "eligible units": _chart("surgery/eligible"),
    }
}
"""Custom-scalars layout; the tags are regular expressions."""


def open_writer(folder: Path, *, first_step: int = 0) -> SummaryWriter:
    """Writer for `folder`. What a killed predecessor wrote at `first_step` or later is hidden by TensorBoard."""
    writer = SummaryWriter(str(folder), purge_step=first_step, flush_secs=30)
    writer.add_custom_scalars(OVERVIEW)
    return writer


def add_scalars(writer: SummaryWriter, step: int, metrics: Mapping[str, Any]) -> None:
    """One scalar per metric; values that are not known at this step (nan) leave no point."""
    for tag, value in metrics.items():
        number = float(value)
        if not math.isnan(number):
            writer.add_scalar(tag, number, step)


def add_run_statistics(
    writer: SummaryWriter, step: int, metrics: Mapping[str, Any], groups: Sequence[str] | None = None
) -> None:
    """Mean and 95% interval over runs (normal approximation, 1.96 standard errors), one curve per group.

    Args:
        metrics: name -> array `[runs]`.
        groups: label of each run's setting, `[runs]`; one unnamed group when None.
    """
    for tag, values in metrics.items():
        numbers = np.asarray(values, dtype=np.float64)
        labels = np.asarray(groups if groups is not None else [""] * len(numbers))
        for label in dict.fromkeys(labels.tolist()):
            chosen = numbers[labels == label]
            chosen = chosen[~np.isnan(chosen)]
            if not chosen.size:
                continue
            prefix = f"{tag}/{label}" if label else tag
            writer.add_scalar(f"{prefix}/mean", chosen.mean(), step)
            if chosen.size > 1:
                half = 1.96 * chosen.std(ddof=1) / math.sqrt(chosen.size)
                writer.add_scalar(f"{prefix}/low", chosen.mean() - half, step)
                writer.add_scalar(f"{prefix}/high", chosen.mean() + half, step)


def add_hyperparameters(
    writer: SummaryWriter, config: Mapping[str, Any], metrics: Mapping[str, float], step: int
) -> None:
    """Hyperparameters and final metrics for the HParams tab, in the run's own event file.

    `SummaryWriter.add_hparams` would open a second run folder for every call; the three summaries are the same.
    """
    pairs = dict(flatten(config))
    # what runs are told apart by comes first: the tab shows columns in this order
    first = {key: pairs[key] for key in ("method.name", "seed", "experiment.name") if key in pairs}
    settings = {
        key: value if isinstance(value, bool | int | float) else str(value) for key, value in (first | pairs).items()
    }
    for summary in hparams(settings, {f"final/{key}": value for key, value in metrics.items()}):
        writer._get_file_writer().add_summary(summary, step)  # type: ignore[no-untyped-call]
    add_scalars(writer, step, {f"final/{key}": value for key, value in metrics.items()})


def flatten(config: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Nested config as `(dotted key, value)` pairs in order."""
    pairs: list[tuple[str, Any]] = []
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            pairs += flatten(value, f"{prefix}{key}.")
        else:
            pairs.append((f"{prefix}{key}", value))
    return pairs
