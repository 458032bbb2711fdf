"""The loggers that a run asked for, as one: TensorBoard always, Weights & Biases beside it when asked."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .files import check_directory, check_events
from .logger import LoggerError

KINDS = ("tensorboard", "wandb")


class Loggers:
    """Several loggers as one: it has each of their methods, which are `TensorBoard`'s.

    Steps never decrease; `scalars` ends a step: everything else of it comes before.
    """

    def __init__(self, loggers: Sequence[Any]):
        self.all = list(loggers)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)

        def each(*arguments: Any) -> None:
            for logger in self.all:
                getattr(logger, name)(*arguments)

        return each


def check_logger(settings: Mapping[str, Any]) -> None:
    """Whether the loggers of `settings` can be opened; W&B may ask for its key here, before anything has begun.

    Args:
        settings: `kind`, one of `KINDS`, what that kind takes, and `layers`: whether curves of single layers are drawn.

    Raises:
        LoggerError: an unknown kind, a package or a login that is missing.
    """
    kind = settings.get("kind", "tensorboard")
    if kind not in KINDS:
        raise LoggerError(f"logger.kind={kind}: one of {', '.join(KINDS)}")
    if kind == "wandb":
        from .weights_and_biases import check

        check(settings)


def open_loggers(
    folder: Path, config: Mapping[str, Any], settings: Mapping[str, Any], *, first_step: int = 0
) -> Loggers:
    """Loggers that write into `folder`, continuing at `first_step` what is there.

    Raises:
        LoggerError: W&B refuses.
    """
    from .tensorboard import TensorBoard

    layers = bool(settings.get("layers", False))
    loggers: list[Any] = [TensorBoard(folder, config, first_step=first_step, layers=layers)]
    if settings.get("kind") == "wandb":
        from .weights_and_biases import WeightsAndBiases

        loggers.append(WeightsAndBiases(folder, config, settings, layers=layers))
    return Loggers(loggers)


def log_comparison(
    folder: Path,
    step: int,
    figures: Mapping[str, Path],
    texts: Mapping[str, str],
    *,
    logger: Mapping[str, Any] | None = None,
) -> None:
    """Show pictures and Markdown as `FOLDER/comparison`: `tensorboard --logdir FOLDER` has them among its runs.

    Made again at the same step or a later one, they take the place of the earlier ones.

    Args:
        folder: above the runs.
        step: how far the runs are; the Images tab has a slider over it.
        figures: tag -> PNG file.
        texts: tag -> Markdown.
        logger: as `check_logger` takes it; TensorBoard alone when None.

    Raises:
        LoggerError: W&B refuses.
        StrangeFileError: `FOLDER/comparison` is a link or a file.
    """
    from PIL import Image

    check_events(folder / "comparison")
    check_directory(folder / "comparison/wandb")
    loggers = open_loggers(folder / "comparison", {}, logger or {}, first_step=step)
    try:
        for tag, path in figures.items():
            with Image.open(path) as picture:
                loggers.image(f"comparison/{tag}", np.asarray(picture.convert("RGB")), step)
        for tag, text in texts.items():
            loggers.text(f"comparison/{tag}", text, step)
        loggers.scalars(step, {})
    finally:
        loggers.close()
