"""What streams there are: one row each."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from continual_agents.settings import check_settings, nearest

from .class_pairs import ClassPairs, imagenet_pairs, texture_pairs
from .growing import GrowingImages
from .incremental import ClassIncremental, incremental_cifar, incremental_digits, incremental_textures
from .permuted import PermutedImages, on_images
from .regression import SlowlyChangingRegression
from .stream import Stream


@dataclass(frozen=True)
class Kind:
    """One row.

    Attributes:
        make: constructor(seeds, device=, **settings).
        settings: whose keyword arguments the settings are, by name and type.
    """

    make: Callable[..., Stream]
    settings: tuple[Callable[..., Any], ...]


STREAMS: dict[str, Kind] = {
    "regression": Kind(SlowlyChangingRegression, (SlowlyChangingRegression,)),
    "permuted": Kind(functools.partial(on_images, PermutedImages), (on_images, PermutedImages)),
    "growing": Kind(functools.partial(on_images, GrowingImages), (on_images, GrowingImages)),
    "imagenet": Kind(imagenet_pairs, (imagenet_pairs, ClassPairs)),
    "textures": Kind(texture_pairs, (texture_pairs, ClassPairs)),
    "incremental_cifar": Kind(incremental_cifar, (incremental_cifar, ClassIncremental)),
    "incremental_digits": Kind(incremental_digits, (incremental_digits, ClassIncremental)),
    "incremental_textures": Kind(incremental_textures, (incremental_textures, ClassIncremental)),
}
"""Streams by `kind`."""


def sample(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The same stream with as little made data as shows its shape: what can be checked without waiting for it."""
    classes = settings.get("classes")
    few = settings.get("kind") == "textures" and isinstance(classes, int) and classes > 2
    return {**settings, "classes": 2} if few else dict(settings)


def make_stream(settings: Mapping[str, Any], seeds: Sequence[int], *, device: torch.device | str = "cpu") -> Stream:
    """The stream that a configuration asks for.

    Args:
        settings: `kind` of `STREAMS`, and what its constructor takes.
        seeds: one per run.
        device: where its examples are made.

    Raises:
        ValueError: an unknown kind or setting, or a value of another type or out of range.
    """
    chosen = dict(settings)
    kind = chosen.pop("kind")
    if kind not in STREAMS:
        raise ValueError(f"stream.kind={kind} is unknown{nearest(kind, STREAMS)}")
    check_settings("stream", chosen, *STREAMS[kind].settings, given=("device",), to=f"kind={kind}")
    return STREAMS[kind].make(seeds, device=device, **chosen)
