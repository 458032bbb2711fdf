"""Continual binary image classification: a task is to tell two classes of images apart."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from continual_agents.settings import check_counts

from ..data import Textures, load_imagenet
from ..draws import Draw
from .images import ClassImages
from .stream import Stream


class ClassPairs(Stream):
    """Tasks of two classes each, in a random order of pairs; several epochs per task, then a test.

    Every class comes once before any comes again. The measure is test accuracy at the task's end (Dohare et al. 2024).

    Args:
        seeds: one per run: pairs and orders.
        images: shared by all runs.
        train_images: per class; the first ones.
        test_images: per class; those after them.
        epochs: passes over a task's training images.
        batch: images per gradient step; must divide the `2 * train_images` of a task.
        device: of the examples. On a GPU the whole array moves there once.

    Raises:
        ValueError: fewer images than asked for, or a batch that does not fit.
    """

    loss = "cross_entropy"
    outputs = 2

    def __init__(
        self,
        seeds: Sequence[int],
        images: ClassImages,
        *,
        train_images: int = 600,
        test_images: int = 100,
        epochs: int = 250,
        batch: int = 100,
        device: torch.device | str = "cpu",
    ):
        classes = images.classes
        if classes < 2:
            raise ValueError(f"stream.classes={classes}: a task tells two classes apart, at least 2 are needed")
        check_counts("stream", train_images=train_images, test_images=test_images, epochs=epochs, batch=batch)
        if train_images + test_images > images.images:
            needed = f"stream.train_images={train_images} and test_images={test_images}"
            raise ValueError(f"{needed}: {images.name} has {images.images} images of each class")
        if 2 * train_images % batch:
            raise ValueError(f"stream.batch={batch} does not divide the {2 * train_images} training images of a task")
        super().__init__(seeds, device)
        self.train_images, self.test_images, self.batch = train_images, test_images, batch
        self.pixels = images.pixels.to(device)
        self.shape = tuple(self.pixels.shape[2:])
        self._classes = classes
        self.epoch_steps = 2 * train_images // batch
        self.task_steps = epochs * self.epoch_steps
        self._pairs = self._draw_pairs(0)
        self._order = self._draw_order(0)

    def next(self, most: int) -> tuple[Tensor, Tensor]:
        """As `Stream.next`: images `[1, runs, batch, colours, side, side]` in [0, 1], classes `[1, runs, batch]`."""
        if self.position and self.position % self.task_steps == 0:
            self._pairs = self._draw_pairs(self.task)
        if self.position and self.position % self.epoch_steps == 0:
            self._order = self._draw_order(self.position // self.epoch_steps)
        start = self.position % self.epoch_steps * self.batch
        chosen = self._order[:, start : start + self.batch]
        classes = chosen // self.train_images
        self.position += 1
        return self._images(classes, chosen % self.train_images)[None], classes[None]

    def evaluation(self, examples: int) -> Tensor:
        """The first test images of the current pair."""
        each = min(max(1, examples // 2), self.test_images)
        return self._images(*self._all(self.train_images, each))

    def test(self) -> tuple[Tensor, Tensor]:
        """All test images of the current pair, and their classes."""
        classes, numbers = self._all(self.train_images, self.test_images)
        return self._images(classes, numbers), classes

    def _all(self, first: int, count: int) -> tuple[Tensor, Tensor]:
        numbers = torch.arange(first, first + count, device=self.device).repeat(2).expand(self.runs, -1)
        classes = torch.arange(2, device=self.device).repeat_interleave(count).expand(self.runs, -1)
        return classes, numbers

    def _images(self, classes: Tensor, numbers: Tensor) -> Tensor:
        """Images by class of the pair and number, both `[runs, n]`, as floats in [0, 1]."""
        found = self.pixels[self._pairs.gather(1, classes), numbers]
        return found.to(torch.float32).div_(255)

    def _draw_pairs(self, task: int) -> Tensor:
        """The two classes of each run's task, `[runs, 2]`."""
        # of an odd number of classes one is left out of a round, another one each time
        round_, place = divmod(task, self._classes // 2)
        orders = self.each(lambda one: one.permutation(self._classes), Draw.PAIRS, round_)
        return orders[:, 2 * place : 2 * place + 2]

    def _draw_order(self, epoch: int) -> Tensor:
        """Each run's order of the training images in an epoch, `[runs, 2 * train_images]`."""
        return self.each(lambda one: one.permutation(2 * self.train_images), Draw.ORDER, epoch)

    def return_to(self, last: int) -> None:
        """As the base."""
        self._pairs = self._draw_pairs(last // self.task_steps)
        self._order = self._draw_order(last // self.epoch_steps)


def texture_pairs(
    seeds: Sequence[int], *, classes: int = 100, side: int = 32, data_seed: int = 0, **settings: Any
) -> ClassPairs:
    """Pairs of made texture classes."""
    return ClassPairs(seeds, made_textures(classes, _images(settings), side, data_seed), **settings)


def imagenet_pairs(
    seeds: Sequence[int], *, root: str | None = None, classes: int = 1000, **settings: Any
) -> ClassPairs:
    """Pairs of ImageNet's classes; `root` is the folder of the prepared array.

    Raises:
        ValueError: no root.
    """
    if root is None:
        raise ValueError(
            "ImageNet needs experiment.stream.root=FOLDER, made by python -m tools.prepare_data imagenet SRC FOLDER"
        )
    return ClassPairs(seeds, _imagenet(root, classes, _images(settings)), **settings)


def _images(settings: Mapping[str, Any]) -> int:
    return int(settings.get("train_images", 600)) + int(settings.get("test_images", 100))


@functools.lru_cache(maxsize=2)
def made_textures(classes: int, images: int, side: int, seed: int) -> ClassImages:
    """Texture classes, made once for all streams of a process."""

    def made() -> Tensor:
        return torch.from_numpy(Textures(classes=classes, images=images, side=side, seed=seed).array())

    return ClassImages("textures", classes, images, made)


@functools.lru_cache(maxsize=1)
def _imagenet(root: str, classes: int, images: int) -> ClassImages:
    load = functools.partial(load_imagenet, root, classes=classes, images=images)
    return ClassImages("imagenet", classes, images, lambda: torch.from_numpy(load()))
