"""TensorBoard files of a run: scalars, a plasticity overview, hyperparameters; continued without overlap."""

from __future__ import annotations

import contextlib
import re
import time
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from tensorboard.compat.proto.summary_pb2 import Summary
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from continual_agents.plasticity.measures import shown

from .configuration import flatten
from .logger import gif, known

_STACK = r"/.*/mean$"  # a stack of runs has one curve per setting


def _chart(*measures: str) -> list[Any]:
    return ["Multiline", [pattern for name in measures for pattern in (f"^{name}$", f"^{name}{_STACK}")]]


def overview() -> dict[str, dict[str, list[Any]]]:
    """Custom-scalars layout; the tags are regular expressions. A run shows the charts that it has curves for."""
    diagnostics: dict[str, list[str]] = {}
    for measure in shown("chart"):
        diagnostics.setdefault(measure.chart, []).append(measure.column)
    return {
        "Plasticity at a glance": {
            "all together, to scale": _chart("glance/.*"),
            "return": _chart("return/mean"),
            "accuracy": _chart("accuracy", "test_accuracy"),
            "squared error": _chart("squared_error"),
            "friction": _chart("task/friction"),
            "task": _chart("task/index"),
            **{chart: _chart(*columns) for chart, columns in diagnostics.items()},
            "replaced units": _chart("surgery/replaced"),
            "eligible units": _chart("surgery/eligible"),
        }
    }


BOOKKEEPING = ("folder", "threads", "save_seconds", "progress", "logger")
"""Configuration keys and groups that are no hyperparameters."""


class TensorBoard:
    """Event files in one folder.

    Args:
        folder: where they lie; what a killed predecessor wrote there at `first_step` or later is hidden.
        config: shown as text at step 0, and in the HParams tab once the run is finished.
        first_step: where this session begins.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any], *, first_step: int = 0):
        self._folder, self._config = folder, config
        keep_order(folder)
        self._open(first_step)

    def _open(self, first_step: int) -> None:
        self._file = SummaryWriter(str(self._folder), purge_step=first_step, flush_secs=30)
        self._overview_is_written = False
        if first_step == 0 and self._config:
            described = yaml.safe_dump(self._config, sort_keys=False, allow_unicode=True)
            self._file.add_text("config", f"```yaml\n{described}```", 0)

    @property
    def _writer(self) -> SummaryWriter:
        """The writer; a new one when somebody has removed the folder."""
        if not self._folder.is_dir():
            warnings.warn(f"{self._folder} was removed: its curves begin again here, the tables are whole", stacklevel=4)
            with contextlib.suppress(OSError):
                self._file.close()
            self._open(0)
        return self._file

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """One point per value that is not nan."""
        writer = self._writer
        if values and not self._overview_is_written:
            writer.add_custom_scalars(_overview(values))
            self._overview_is_written = True
        for tag, value in known(values).items():
            writer.add_scalar(tag, value, step)

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
        settings = {
            _column(key): value if isinstance(value, bool | int | float) else str(value)
            for key, value in flatten(self._config)
            if key.split(".")[0] not in BOOKKEEPING
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
        self._file.close()

    def _add(self, summary: Any, step: int) -> None:
        self._writer._get_file_writer().add_summary(summary, step)  # type: ignore[no-untyped-call]


def keep_order(folder: Path) -> None:
    """Make sure that TensorBoard reads a new event file after those that are there.

    It reads them by name, which begins with the second they were made in: after a quick restart, or with a clock that
    was set back, a session would hide points of the one that continues it. Then the old ones get names of the second 0.
    """
    files = sorted(folder.glob("events.out.tfevents.*"))
    if not files or files[-1].name < f"events.out.tfevents.{int(time.time()):010d}":
        return
    for number, file in enumerate(files):
        moved = ".0000000000." in file.name
        rest = file.name.split(".", 5 if moved else 4)[-1]
        file.rename(folder / f"events.out.tfevents.0000000000.{number:06d}.{rest}")


def _overview(tags: Iterable[str]) -> dict[str, Any]:
    """The charts of `overview` that show any of these tags."""

    def has_curves(chart: list[Any]) -> bool:
        return any(re.search(pattern, tag) for pattern in chart[1] for tag in tags)

    return {
        category: {name: chart for name, chart in charts.items() if has_curves(chart)}
        for category, charts in overview().items()
    }


def _column(key: str) -> str:
    """Name of a hyperparameter. The tab sorts them and shows the first few: what runs are told apart by leads."""
    named = {"experiment.name": "experiment", "method.name": "method", "scale": "scale", "seed": "seed"}
    return named.get(key, f"settings.{key}")
