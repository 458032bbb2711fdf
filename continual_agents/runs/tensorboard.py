"""TensorBoard files of a run: scalars, a plasticity overview, hyperparameters; continued without overlap."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from tensorboard.compat.proto.summary_pb2 import Summary
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from .logger import gif

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


class TensorBoard:
    """Event files in one folder.

    Args:
        folder: where they lie; what a killed predecessor wrote there at `first_step` or later is hidden.
        config: shown as text at step 0, and in the HParams tab once the run is finished.
        first_step: where this session begins.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any], *, first_step: int = 0):
        self._config = config
        self._writer = SummaryWriter(str(folder), purge_step=first_step, flush_secs=30)
        self._writer.add_custom_scalars(OVERVIEW)
        if first_step == 0 and config:
            self.text("config", f"```yaml\n{yaml.safe_dump(config, sort_keys=False, allow_unicode=True)}```", 0)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """One point per value."""
        for tag, value in values.items():
            self._writer.add_scalar(tag, value, step)

    def histogram(self, tag: str, values: Any, step: int) -> None:
        """A distribution of many values."""
        self._writer.add_histogram(tag, values, step)

    def image(self, tag: str, pixels: np.ndarray, step: int) -> None:
        """A picture, `[height, width, 3]` uint8."""
        self._writer.add_image(tag, pixels, step, dataformats="HWC")

    def video(self, tag: str, pictures: np.ndarray, step: int, frames_per_second: int) -> None:
        """Moving pictures, `[time, height, width, 3]` uint8; the Images tab plays them."""
        _, height, width, _ = pictures.shape
        encoded = gif(pictures, frames_per_second)
        picture = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=encoded)
        self._add(Summary(value=[Summary.Value(tag=tag, image=picture)]), step)

    def text(self, tag: str, markdown: str, step: int) -> None:
        """Markdown."""
        self._writer.add_text(tag, markdown, step)

    def finish(self, step: int, metrics: Mapping[str, float]) -> None:
        """Hyperparameters and final metrics for the HParams tab, in the run's own event file.

        `SummaryWriter.add_hparams` would open a second run folder for every call; the three summaries are the same.
        """
        pairs = dict(flatten(self._config))
        # what runs are told apart by comes first: the tab shows columns in this order
        first = {key: pairs[key] for key in ("method.name", "seed", "experiment.name") if key in pairs}
        settings = {
            key: value if isinstance(value, bool | int | float) else str(value)
            for key, value in (first | pairs).items()
        }
        final = {f"final/{tag}": value for tag, value in metrics.items()}
        for summary in hparams(settings, final):
            self._add(summary, step)
        self.scalars(step, final)

    def flush(self) -> None:
        """Hand everything to the disk."""
        self._writer.flush()

    def close(self) -> None:
        """Close the event file."""
        self._writer.close()

    def _add(self, summary: Any, step: int) -> None:
        self._writer._get_file_writer().add_summary(summary, step)  # type: ignore[no-untyped-call]


def flatten(config: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Nested config as `(dotted key, value)` pairs in order."""
    pairs: list[tuple[str, Any]] = []
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            pairs += flatten(value, f"{prefix}{key}.")
        else:
            pairs.append((f"{prefix}{key}", value))
    return pairs
