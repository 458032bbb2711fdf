"""From settings to streams and learners."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch

from continual_agents.settings import check_settings, nearest

from .class_images import ClassImages
from .data import Textures, load_digits, load_imagenet, load_mnist
from .imagenet import ClassPairs
from .images import Images, flat_images
from .learner import StackedLearner
from .looped import LoopedLearner
from .networks import ConvNet, make_network
from .permuted import PermutedImages
from .plans import Plan
from .regression import SlowlyChangingRegression
from .streams import Stream


@functools.lru_cache(maxsize=2)
def load_images(data: str, root: str | None, source: Literal["files", "openml"] = "files") -> Images:
    """The data set of a permuted stream, read once however many stacks use it.

    Args:
        data: "digits" or "mnist".
        root: folder of MNIST's files; digits ship with scikit-learn.
        source: where MNIST comes from: the files, or "openml" to download it once into `root`.

    Raises:
        ValueError: an unknown name, or no root for MNIST.
    """
    if data == "digits":
        images, labels = load_digits()
        return flat_images("digits", images, labels)
    if data != "mnist":
        raise ValueError(f"stream.data={data} is unknown{nearest(data, ('digits', 'mnist'))}")
    if root is None:
        raise ValueError(
            "MNIST needs experiment.stream.root=FOLDER with its four IDX files (plain or .gz), or also "
            "experiment.stream.source=openml to download it there once"
        )
    mnist = load_mnist(root, source=source)
    return flat_images("mnist", mnist.images, mnist.labels)


def _permuted(
    seeds: Sequence[int],
    *,
    data: str = "digits",
    root: str | None = None,
    source: Literal["files", "openml"] = "files",
    **settings: Any,
) -> Stream:
    return PermutedImages(seeds, load_images(data, root, source), **settings)


def _textures(
    seeds: Sequence[int], *, classes: int = 100, side: int = 32, data_seed: int = 0, **settings: Any
) -> Stream:
    ClassPairs.check("textures", classes, _images(settings), **settings)
    return ClassPairs(seeds, _made_textures(classes, _images(settings), side, data_seed), **settings)


def _imagenet(seeds: Sequence[int], *, root: str | None = None, classes: int = 1000, **settings: Any) -> Stream:
    if root is None:
        raise ValueError(
            "ImageNet needs experiment.stream.root=FOLDER, made by python -m tools.prepare_data imagenet SRC FOLDER"
        )
    ClassPairs.check("imagenet", classes, _images(settings), **settings)
    return ClassPairs(seeds, _loaded_imagenet(root, classes, _images(settings)), **settings)


def _images(settings: Mapping[str, Any]) -> int:
    return int(settings.get("train_images", 600)) + int(settings.get("test_images", 100))


@functools.lru_cache(maxsize=2)
def _made_textures(classes: int, images: int, side: int, seed: int) -> ClassImages:
    made = Textures(classes=classes, images=images, side=side, seed=seed)
    return ClassImages("textures", torch.from_numpy(made.array()))


@functools.lru_cache(maxsize=1)
def _loaded_imagenet(root: str, classes: int, images: int) -> ClassImages:
    return ClassImages("imagenet", torch.from_numpy(load_imagenet(root, classes=classes, images=images)))


STREAMS: dict[str, Callable[..., Stream]] = {
    "regression": SlowlyChangingRegression,
    "permuted": _permuted,
    "imagenet": _imagenet,
    "textures": _textures,
}
"""Streams by `kind`: constructor(seeds, device=, **settings)."""

SCHEMAS: dict[str, tuple[Callable[..., Any], ...]] = {
    "regression": (SlowlyChangingRegression,),
    "permuted": (_permuted, PermutedImages),
    "imagenet": (_imagenet, ClassPairs),
    "textures": (_textures, ClassPairs),
}
"""Whose keyword arguments the settings of each kind are."""


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
    check_settings("stream", chosen, *SCHEMAS[kind], given=("device",), to=f"kind={kind}")
    return STREAMS[kind](seeds, device=device, **chosen)


def make_learner(
    plans: Sequence[Plan], stream: Stream, *, device: torch.device | str = "cpu", fast: bool = False
) -> StackedLearner | LoopedLearner:
    """The learner of one stack of plans; `fast` as in `StackedLearner` (a conv net is a loop over modules either way).

    Raises:
        ValueError: settings out of range, or plans that do not fit into one stack.
    """
    network = make_network(plans[0].network, stream.shape, stream.outputs)
    methods, seeds = [plan.method for plan in plans], [plan.seed for plan in plans]
    if isinstance(network, ConvNet):
        return LoopedLearner(network, methods, seeds, loss=stream.loss, device=device)
    try:
        return StackedLearner(network, methods, seeds, loss=stream.loss, batch=stream.batch, device=device, fast=fast)
    except ValueError as error:
        raise ValueError(f"method {methods[0].name}: {error}") from error
