"""Figures and tables about several runs, beside the runs' own curves."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .files import check_directory, check_events
from .loggers import open_loggers


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
