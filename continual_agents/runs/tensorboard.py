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
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from .configuration import flatten
from .files import StrangeFileError, check_events
from .logger import LoggerError, Statistics, gif, known
from .overview import STREAM_MEASURES, interval_tag, overview
from .tags import is_of_a_layer, meaning, tag_of

EVENTS = "events.out.tfevents.*"

BOOKKEEPING = ("folder", "threads", "save_seconds", "progress", "logger", "device")
"""Configuration keys and groups that are no hyperparameters."""


class TensorBoard:
    """Event files in one folder, and in one below it for each group of a stack's runs.

    Args:
        folder: where they lie: what TensorBoard calls the run. What a killed predecessor wrote there at `first_step` or
            later is hidden.
        config: shown as text at step 0, and in the HParams tab.
        first_step: where this session begins.
        layers: draw the curves of single layers too.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any], *, first_step: int = 0, layers: bool = False):
        self._folder, self._config, self._first_step, self._layers = folder, config, first_step, layers
        self._groups: dict[str, TensorBoard] = {}
        folder.mkdir(parents=True, exist_ok=True)
        keep_order(folder)
        self._open(first_step)

    def _open(self, first_step: int) -> None:
        self._file = SummaryWriter(str(self._folder), purge_step=first_step, flush_secs=30)
        self._path = max(self._folder.glob(EVENTS))  # its own: `keep_order` has put all earlier ones before it
        self._described: set[str] = set()
        self._overview_is_written = False
        if first_step == 0 and self._config:
            described = yaml.safe_dump(self._config, sort_keys=False, allow_unicode=True)
            self._file.add_text("config", f"```yaml\n{described}```", 0)

    @property
    def _writer(self) -> SummaryWriter:
        """The writer; a new one when somebody has removed its file."""
        if not self._path.exists():
            warnings.warn(f"{self._path} was removed: its curves begin again, the tables are whole", stacklevel=4)
            with contextlib.suppress(OSError):
                self._file.close()
            self._open(0)
        return self._file

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """One point per value that is not nan."""
        chosen = {name: value for name, value in values.items() if self._layers or not is_of_a_layer(name)}
        self._lay_out(map(tag_of, chosen))
        for name, value in known(chosen).items():
            self._scalar(tag_of(name), value, step, meaning(name))

    def groups(self, step: int, values: Mapping[str, Mapping[str, Statistics]]) -> None:
        """Means as curves of a TensorBoard run per group, so that groups share a chart; the group "" is this run."""
        for group, statistics in values.items():
            below = self._below(group) if group else self
            below.scalars(step, {name: one.mean for name, one in statistics.items()})
            for name in set(STREAM_MEASURES) & statistics.keys():
                for end in ("low", "high"):
                    value = getattr(statistics[name], end)
                    if not np.isnan(value):
                        text = f"{end} end of the 95% interval of {name}"
                        below._scalar(interval_tag(tag_of(name), end), value, step, text)

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
        """A row in the HParams tab: the settings, and the last value of every curve.

        `SummaryWriter.add_hparams` would open a second run folder for every call. Its summary of the experiment, which
        fixes the tab's columns for all runs, is left out: without it the tab shows the settings that differ first.
        """
        for below in self._groups.values():
            below.finish(step, metrics)
        if self._groups or not self._config:  # rows are the groups'
            return
        _, started, ended = hparams(_hyperparameters(self._config), {})
        for summary in (started, ended):
            self._add(summary, step)

    def flush(self) -> None:
        """Hand everything to the disk."""
        self._writer.flush()
        for below in self._groups.values():
            below.flush()

    def close(self) -> None:
        """Close the event files."""
        with contextlib.ExitStack() as closing:
            closing.callback(self._file.close)
            for below in self._groups.values():
                closing.callback(below.close)

    def _below(self, group: str) -> TensorBoard:
        """Where the curves of a group go."""
        if group not in self._groups:
            folder = self._folder / re.sub(r"[^\w .,+=-]+", "_", group)
            try:  # the run's own folder was looked at when it was opened
                check_events(folder)
            except StrangeFileError as error:
                raise LoggerError(str(error)) from error
            config = _config_of(self._config, group)
            self._groups[group] = TensorBoard(folder, config, first_step=self._first_step, layers=self._layers)
        return self._groups[group]

    def _lay_out(self, tags: Iterable[str]) -> None:
        """Write the overview's layout, once: the first call has all names, those too whose values come later."""
        tags = list(tags)
        if self._overview_is_written or not tags:
            return
        if any((layout := overview(tags)).values()):
            self._writer.add_custom_scalars(layout)
        self._overview_is_written = True

    def _scalar(self, tag: str, value: float, step: int, description: str) -> None:
        """A point; the first one of a tag tells what it is."""
        point = Summary.Value(tag=tag, simple_value=value)
        if tag not in self._described:
            # without its class TensorBoard's fast reader would drop the description
            told = SummaryMetadata(summary_description=description, data_class="DATA_CLASS_SCALAR")
            told.plugin_data.plugin_name = "scalars"
            point.metadata.CopyFrom(told)
            self._described.add(tag)
        self._add(Summary(value=[point]), step)

    def _add(self, summary: Any, step: int) -> None:
        self._writer._get_file_writer().add_summary(summary, step)  # type: ignore[no-untyped-call]


def keep_order(folder: Path) -> None:
    """Make sure that TensorBoard reads a new event file after those that are there.

    It reads them by name, which begins with the second they were made in: after a quick restart, or with a clock that
    was set back, a session would hide points of the one that continues it. Then the old ones get names of the second 0.
    """
    files = sorted(folder.glob(EVENTS))
    if not files or files[-1].name < f"events.out.tfevents.{int(time.time()):010d}":
        return
    for number, file in enumerate(files):
        moved = ".0000000000." in file.name
        rest = file.name.split(".", 5 if moved else 4)[-1]
        file.rename(folder / f"events.out.tfevents.0000000000.{number:06d}.{rest}")


def _config_of(config: Mapping[str, Any], group: str) -> dict[str, Any]:
    """The configuration of a group, "METHOD, KEY VALUE, ...", of a stack's runs: its own method's of those compared."""
    method = config.get("method")
    name = group.split(", ")[0]
    own = method["of"].get(name, {}) if isinstance(method, Mapping) and "of" in method else method
    return {**config, "method": {**(own if isinstance(own, Mapping) else {}), "name": group}} if config else {}


def _hyperparameters(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings by their dotted keys; a constant of the experiment that the method reads is the method's alone."""
    pairs = [(key, value) for key, value in flatten(config) if key.split(".")[0] not in BOOKKEEPING]
    of_method = {(key.rpartition(".")[2], str(value)) for key, value in pairs if key.startswith("method.")}
    named = {"experiment.name": "experiment", "method.name": "method"}
    return {
        named.get(key, key): value if isinstance(value, bool | int | float) else str(value)
        for key, value in pairs
        if key in named or not (key.startswith("experiment.") and (key.rpartition(".")[2], str(value)) in of_method)
    }
