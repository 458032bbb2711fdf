"""The loggers that a run asked for, as one: TensorBoard always, Weights & Biases beside it when asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .logger import Logger, LoggerError

KINDS = ("tensorboard", "wandb")


class Loggers:
    """Several loggers as one: it has each of their methods."""

    def __init__(self, loggers: Sequence[Logger]):
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
    loggers: list[Logger] = [TensorBoard(folder, config, first_step=first_step, layers=layers)]
    if settings.get("kind") == "wandb":
        from .weights_and_biases import WeightsAndBiases

        loggers.append(WeightsAndBiases(folder, config, settings, layers=layers))
    return Loggers(loggers)
