"""A run's curves in Weights & Biases, through its own package; imported only when asked for."""

import html
import importlib.util
import io
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .checkpoint import write_atomically
from .logger import LoggerError, Statistics, gif
from .tags import drawn

MODES = ("online", "offline")
INSTALL = "logger=wandb needs the package wandb: pip install --constraint constraints.txt wandb"


def check(settings: Mapping[str, Any]) -> None:
    """Whether a run can be opened.

    Raises:
        LoggerError: the package is missing, an unknown mode, or nobody is logged in.
    """
    if importlib.util.find_spec("wandb") is None:
        raise LoggerError(INSTALL)
    if settings["mode"] not in MODES:
        raise LoggerError(f"logger.mode={settings['mode']}: one of {', '.join(MODES)}")
    if settings["mode"] == "online":
        import wandb

        try:
            wandb.login()
        except wandb.Error as error:
            raise LoggerError(_refusal(error)) from error


class WeightsAndBiases:
    """One W&B run. Its id is kept in the run folder, so that a run that goes on goes on there too.

    W&B drops points before the last step it has: a run killed after its last checkpoint writes the same ones again.

    Args:
        folder: the run folder; W&B keeps its files in `FOLDER/wandb`.
        config: the run's configuration.
        settings: `project`, `entity` (None: the user's own) and `mode`, one of `MODES`.
        layers: draw the curves of single layers too.

    Raises:
        LoggerError: W&B refuses: no login, no connection, no such project.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any], settings: Mapping[str, Any], *, layers: bool = False):
        try:
            import wandb
        except ModuleNotFoundError as error:
            raise LoggerError(INSTALL) from error
        self._wandb, self._layers = wandb, layers
        (folder / "wandb").mkdir(parents=True, exist_ok=True)  # without it W&B falls back to the system's scratch
        try:
            self._run = wandb.init(
                project=settings["project"],
                entity=settings["entity"],
                mode=settings["mode"],
                id=_run_id(folder / "wandb" / "run_id.txt"),
                resume="allow" if settings["mode"] == "online" else None,
                name=str(folder),
                dir=str(folder),
                config=dict(config),
                settings=wandb.Settings(console="off"),  # the progress bar is no log
            )
        except wandb.Error as error:
            raise LoggerError(_refusal(error)) from error

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """One point per value that is not nan; ends the step."""
        self._run.log(drawn(values, layers=self._layers), step=step, commit=True)

    def groups(self, step: int, values: Mapping[str, Mapping[str, Statistics]]) -> None:
        """Mean and ends of the interval as `TAG/GROUP/mean`, `low` and `high`."""
        for group, statistics in values.items():
            for part in Statistics._fields:
                own = drawn({name: getattr(one, part) for name, one in statistics.items()}, layers=self._layers)
                tags = {"/".join(filter(None, (tag, group, part))): value for tag, value in own.items()}
                self._run.log(tags, step=step, commit=False)

    def histogram(self, tag: str, values: Any, step: int) -> None:
        """A distribution of many values."""
        self._log(tag, self._wandb.Histogram(np.asarray(values).ravel().tolist()), step)

    def image(self, tag: str, pixels: np.ndarray, step: int) -> None:
        """A picture, `[height, width, 3]` uint8."""
        self._log(tag, self._wandb.Image(pixels), step)

    def video(self, tag: str, pictures: np.ndarray, step: int, frames_per_second: int) -> None:
        """Moving pictures, `[time, height, width, 3]` uint8, as a GIF."""
        self._log(tag, self._wandb.Video(io.BytesIO(gif(pictures, frames_per_second)), format="gif"), step)

    def text(self, tag: str, markdown: str, step: int) -> None:
        """Markdown, shown as it is written."""
        self._log(tag, self._wandb.Html(f"<pre>{html.escape(markdown)}</pre>", inject=False), step)

    def finish(self, step: int, metrics: Mapping[str, float]) -> None:
        """The final metrics, as the run's summary."""
        self._run.summary.update({f"final/{tag}": value for tag, value in metrics.items()})

    def flush(self) -> None:
        """W&B's own process writes as it goes."""

    def close(self) -> None:
        """End the session; a later one continues the run."""
        self._run.finish()

    def _log(self, tag: str, value: Any, step: int) -> None:
        self._run.log({tag: value}, step=step, commit=False)


def _run_id(path: Path) -> str:
    if path.exists():
        return path.read_text().strip()
    new = uuid.uuid4().hex[:8]
    write_atomically(path, lambda file: file.write(new.encode()))
    return new


def _refusal(error: Exception) -> str:
    reason = str(error).strip().splitlines()[0]
    return f"logger=wandb: {reason} Or give logger.mode=offline, and `wandb sync` the run folder's wandb/ later"
