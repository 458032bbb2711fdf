"""From settings to streams and learners."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from continual_agents.methods import nearest

from .images import Images, digits
from .learner import StackedLearner
from .networks import ConvNet, make_network
from .permuted import PermutedImages
from .plans import Plan
from .regression import SlowlyChangingRegression
from .streams import Stream


@functools.lru_cache(maxsize=2)
def load_images(data: str, root: str | None) -> Images:
    """The data set of a permuted stream, read once however many stacks use it.

    Raises:
        ValueError: an unknown name.
    """
    if data == "digits":
        return digits()
    raise ValueError(f"stream.data={data!r}: digits or mnist{nearest(data, ('digits', 'mnist'))}")


def _permuted(seeds: Sequence[int], *, data: str = "digits", root: str | None = None, **settings: Any) -> Stream:
    return PermutedImages(seeds, load_images(data, root), **settings)


STREAMS: dict[str, Callable[..., Stream]] = {
    "regression": SlowlyChangingRegression,
    "permuted": _permuted,
}
"""Streams by `kind`: constructor(seeds, device=, **settings)."""


def make_stream(settings: Mapping[str, Any], seeds: Sequence[int], *, device: torch.device | str = "cpu") -> Stream:
    """The stream that a configuration asks for.

    Args:
        settings: `kind` of `STREAMS`, and what its constructor takes.
        seeds: one per run.
        device: where its examples are made.

    Raises:
        ValueError: an unknown kind, or a setting that it does not take.
    """
    chosen = dict(settings)
    kind = chosen.pop("kind")
    if kind not in STREAMS:
        raise ValueError(f"stream.kind={kind!r} is unknown{nearest(kind, STREAMS)}")
    try:
        return STREAMS[kind](seeds, device=device, **chosen)
    except TypeError as error:
        raise ValueError(f"stream: {error}; {kind} takes no such setting") from error


def make_learner(plans: Sequence[Plan], stream: Stream, *, device: torch.device | str = "cpu") -> StackedLearner:
    """The learner of one stack of plans."""
    network = make_network(plans[0].network, stream.shape, stream.outputs)
    if isinstance(network, ConvNet):
        raise ValueError("conv")
    return StackedLearner(
        network,
        [plan.method for plan in plans],
        [plan.seed for plan in plans],
        loss=stream.loss,
        batch=stream.batch,
        device=device,
    )
