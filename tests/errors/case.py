"""What a case of bad input is made of."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

BASES = {
    "agent": "experiment=slippery_ant scale=smoke",
    "changing": "experiment=changing_cartpole scale=smoke",
    "gymnasium": "experiment=gymnasium scale=smoke",
    "dqn": "experiment=dqn_cartpole scale=smoke",
    "digits": "experiment=permuted_digits scale=smoke",
    "regression": "experiment=slowly_changing_regression scale=smoke",
    "textures": "experiment=texture_pairs scale=smoke",
    "mnist": "experiment=permuted_mnist scale=smoke",
    "imagenet": "experiment=continual_imagenet scale=smoke",
    "incremental": "experiment=incremental_digits scale=smoke",
    "cifar": "experiment=incremental_cifar scale=smoke",
    "warm_start": "experiment=warm_start scale=smoke",
}


@dataclasses.dataclass(frozen=True)
class Case:
    """Something a person gets wrong, and the one line that answers it.

    Attributes:
        words: the command line behind `python -m TOOL`; `{tmp}` is the test's folder.
        message: what standard error has after "error: ", to the letter; `{tmp}` as above, `{holder}` who
            has the run folder.
        base: key of `BASES`: words in front, for `tools.train`.
        tool: module of the command.
        setup: prepares the test's folder.
        given: what the page says about that.
        hidden: a package that is not there.
    """

    words: str
    message: str
    base: str = ""
    tool: str = "tools.train"
    setup: Callable[[Path], None] | None = None
    given: str = ""
    hidden: str = ""

    @property
    def command(self) -> str:
        """All words."""
        return " ".join(filter(None, [BASES.get(self.base, ""), self.words]))


def cases(*rows: tuple[Any, ...], **common: Any) -> list[Case]:
    """A table of cases: what they have in common, and of each its `words`, `message`, then `given` and `setup`."""
    return [Case(*row[:2], **common, **dict(zip(("given", "setup"), row[2:], strict=False))) for row in rows]
