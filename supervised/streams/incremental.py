"""Class-incremental image classification: classes arrive a few at a time, and all that have come are trained on."""

import functools
import itertools
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from continual_agents.settings import check_counts

from ..data import load_cifar100, load_digits
from ..data.cifar import CLASSES, TEST_IMAGES, TRAIN_IMAGES, by_class
from ..draws import Draw
from .augmentation import Augmentation
from .class_pairs import made_textures
from .images import ClassImages
from .stream import Stream, chunk_steps

DIGITS_IMAGES = 174
"""Images of the rarest of scikit-learn's ten digits; each class has so many here."""


class ClassIncremental(Stream):
    """Task k is to tell the first `(k + 1) * increment` classes apart, in an order of classes of the run's own.

    Every task shows all images of its classes in each epoch, augmented anew; so tasks grow longer. The measure is test
    accuracy on the classes so far at the task's end, beside that of a network trained on them from scratch
    (Dohare et al. 2024). When all classes have come, they stay.

    Args:
        seeds: one per run: order of the classes, of the images, augmentation.
        images: shared by all runs: of each class those to train on, then to choose the best epoch by, then to test on.
        increment: classes that arrive with each task; divides the number of classes.
        train_images, validation_images, test_images: of each class; without validation images no epoch is chosen.
        epochs: passes over a task's training images.
        batch: images per gradient step; divides the `increment * train_images` of an increment.
        milestones: epochs of a task after which the step size falls; it is whole again with the next task.
        gamma: factor by which it falls.
        crop, flip, rotate: see `Augmentation`.
        device: of the examples. On a GPU the whole array moves there once.

    Attributes:
        step_factor: what the step size is multiplied with now.

    Raises:
        ValueError: fewer images than asked for, or numbers that do not fit.
    """

    loss = "cross_entropy"

    def __init__(
        self,
        seeds: Sequence[int],
        images: ClassImages,
        *,
        increment: int = 5,
        train_images: int = 450,
        validation_images: int = 50,
        test_images: int = 100,
        epochs: int = 200,
        batch: int = 90,
        milestones: Sequence[int] = (60, 120, 160),
        gamma: float = 0.2,
        crop: int = 4,
        flip: bool = True,
        rotate: float = 15.0,
        device: torch.device | str = "cpu",
    ):
        name, classes = images.name, images.classes
        check_counts(
            "stream",
            increment=increment,
            train_images=train_images,
            test_images=test_images,
            epochs=epochs,
            batch=batch,
        )
        check_counts("stream", 0, validation_images=validation_images)
        if classes < 2 or classes % increment:
            raise ValueError(f"stream.increment={increment} does not divide the {classes} classes of {name}")
        if (needed := train_images + validation_images + test_images) > images.images:
            counted = f"train_images={train_images}, validation_images={validation_images}, test_images={test_images}"
            raise ValueError(f"stream.{counted}: {needed} in all, {name} has {images.images} images of each class")
        if increment * train_images % batch:
            raise ValueError(
                f"stream.batch={batch} does not divide the {increment * train_images} training images of an increment"
            )
        if list(milestones) != sorted(milestones) or any(epoch < 1 for epoch in milestones):
            raise ValueError(f"stream.milestones={list(milestones)}: rising numbers of epochs, at least 1 each")
        if not 0 < gamma <= 1:
            raise ValueError(f"stream.gamma={gamma}: a factor above 0, at most 1")
        super().__init__(seeds, device)
        self.augmentation = Augmentation(crop=crop, flip=flip, rotate=rotate)
        self.pixels = images.pixels.to(device)
        self.shape = tuple(self.pixels.shape[2:])
        if crop >= self.shape[-1]:
            raise ValueError(f"stream.crop={crop}: a border of less than the {self.shape[-1]} pixels of a side")
        self.increment, self.epochs, self.outputs, self.batch = increment, epochs, classes, batch
        self.train_images, self.validation_images, self.test_images = train_images, validation_images, test_images
        self.milestones, self.gamma = list(milestones), gamma
        self.mean, self.spread = (one.to(device) for one in _colours(images.pixels[:, :train_images]))
        self.task_steps = self.task_start(1)
        self._classes = self.each(lambda one: one.permutation(classes), Draw.CLASSES)
        self._epoch: tuple[int, int] | None = None

    def task_start(self, task: int) -> int:
        """Gradient step with which a task begins."""
        last = self.outputs // self.increment
        # task k trains on k + 1 increments, until all classes have come
        rounds = sum(range(1, min(task, last) + 1)) + max(task - last, 0) * last
        return rounds * self.epochs * (self.increment * self.train_images // self.batch)

    def seen(self, task: int) -> int:
        """Classes that have come by a task."""
        return min((task + 1) * self.increment, self.outputs)

    def place(self, position: int) -> tuple[int, int, int]:
        """Task, epoch in it and step in that of a gradient step."""
        task = next(task for task in itertools.count() if self.task_start(task + 1) > position)
        return task, *divmod(position - self.task_start(task), self._epoch_steps(task))

    def _epoch_steps(self, task: int) -> int:
        return self.seen(task) * self.train_images // self.batch

    @property
    def task(self) -> int:
        """Number of the current task, from 0."""
        return self.place(self.position)[0]

    @property
    def step_factor(self) -> float:
        """As above."""
        epoch = self.place(self.position)[1]
        return float(self.gamma ** sum(epoch >= fall for fall in self.milestones))

    def next(self, most: int) -> tuple[Tensor, Tensor]:
        """As `Stream.next`, within an epoch: images `[steps, runs, batch, colours, side, side]`; classes by arrival."""
        task, epoch, step = self.place(self.position)
        # not in `return_to`: a continued run draws an epoch, a large one, at its first batch
        if self._epoch != (task, epoch):
            self._begin(task, epoch)
        bytes_ = self.runs * self.batch * int(np.prod(self.shape)) * 4
        steps = min(most, self._epoch_steps(task) - step, chunk_steps(bytes_))
        part = slice(step * self.batch, (step + steps) * self.batch)
        chosen, drawn = self._order[:, part], self._draws[:, part]
        arrived = chosen // self.train_images
        x = self._images(arrived, chosen % self.train_images, drawn)
        self.position += steps
        x, y = x.unflatten(1, (steps, self.batch)), arrived.unflatten(1, (steps, self.batch))
        return x.transpose(0, 1), y.transpose(0, 1)

    def _begin(self, task: int, epoch: int) -> None:
        count = self.seen(task) * self.train_images
        self._order = self.each(lambda one: one.permutation(count), Draw.ORDER, task, epoch)
        self._draws = self.each(lambda one: self.augmentation.draw(one, count), Draw.AUGMENTATION, task, epoch)
        self._epoch = (task, epoch)

    def _images(self, arrived: Tensor, numbers: Tensor, drawn: Tensor | None = None) -> Tensor:
        """Images by class and number, both `[runs, n]`, with mean 0 and spread 1 over the training images."""
        found = self.pixels[self._classes.gather(1, arrived), numbers].flatten(-2)
        outside = None
        if drawn is not None:
            index, inside = self.augmentation.sources(drawn, self.shape[-1])
            found = found.gather(-1, index[:, :, None].expand_as(found))
            outside = ~inside[:, :, None]
        x = (found.to(torch.float32) - self.mean).div_(self.spread)
        return (x if outside is None else x.masked_fill_(outside, 0.0)).unflatten(-1, self.shape[-2:])

    def held_out(self, part: Literal["validation", "test"], *, most: int = 500) -> Iterator[tuple[Tensor, Tensor]]:
        """Images that are not trained on, of all classes of the task just trained, in batches: images and classes.

        Args:
            part: which of them.
            most: images of each run at once.
        """
        first = self.train_images + (self.validation_images if part == "test" else 0)
        each = self.test_images if part == "test" else self.validation_images
        numbers = torch.arange(self._seen_now() * each, device=self.device)
        for some in numbers.split(most):
            arrived = (some // each).expand(self.runs, -1)
            yield self._images(arrived, (first + some % each).expand(self.runs, -1)), arrived

    def _seen_now(self) -> int:
        return self.seen(self.place(max(self.position - 1, 0))[0])

    def evaluation(self, examples: int) -> Tensor:
        """Test images of the classes so far, equally many of each, give or take one."""
        some = torch.arange(min(examples, self._seen_now() * self.test_images), device=self.device)
        arrived, number = some % self._seen_now(), some // self._seen_now()
        first = self.train_images + self.validation_images
        return self._images(arrived.expand(self.runs, -1), (first + number).expand(self.runs, -1))

    def test(self) -> tuple[Tensor, Tensor]:
        """All test images of the classes so far, and their classes."""
        inputs, classes = zip(*self.held_out("test"), strict=True)
        return torch.cat(inputs, 1), torch.cat(classes, 1)


def _colours(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and spread of each colour over training images, `[colours, 1]`, on the scale 0 to 255."""
    colours = pixels.movedim(2, 0).flatten(1)
    # counted, not summed in floats: exact, and no copy of 150 MB as floats
    counts = torch.stack([one.bincount(minlength=256) for one in colours]).double()
    values = torch.arange(256, dtype=torch.float64)
    share = counts / counts.sum(1, keepdim=True)
    mean = (share * values).sum(1, keepdim=True)
    spread = (share * (values - mean).square()).sum(1, keepdim=True).sqrt()
    return mean.float(), spread.clamp_min(1.0).float()


def incremental_cifar(seeds: Sequence[int], *, root: str | None = None, **settings: Any) -> ClassIncremental:
    """CIFAR-100; `root` is the folder of its files.

    Raises:
        ValueError: no root.
    """
    if root is None:
        raise ValueError(
            "CIFAR-100 needs experiment.stream.root=FOLDER, with cifar-100-python.tar.gz or cifar-100-binary.tar.gz"
        )
    return ClassIncremental(seeds, _cifar(root), **settings)


def incremental_digits(seeds: Sequence[int], **settings: Any) -> ClassIncremental:
    """scikit-learn's digits, ten classes of 8x8 pixels: a stand-in that needs no download."""
    return ClassIncremental(seeds, _digits(), **settings)


def incremental_textures(
    seeds: Sequence[int], *, classes: int = 100, side: int = 32, data_seed: int = 0, **settings: Any
) -> ClassIncremental:
    """Made texture classes: a stand-in of any size that needs no download."""
    defaults = {"train_images": 450, "validation_images": 50, "test_images": 100}
    images = sum(int(settings.get(key, default)) for key, default in defaults.items())
    return ClassIncremental(seeds, made_textures(classes, images, side, data_seed), **settings)


@functools.lru_cache(maxsize=1)
def _cifar(root: str) -> ClassImages:
    def load() -> Tensor:
        halves = [by_class(load_cifar100(root, part), root) for part in ("train", "test")]  # type: ignore[arg-type]
        return torch.from_numpy(np.concatenate(halves, 1))

    return ClassImages("cifar100", CLASSES, TRAIN_IMAGES + TEST_IMAGES, load)


@functools.lru_cache(maxsize=1)
def _digits() -> ClassImages:
    images, labels = load_digits()
    rows = np.stack([np.flatnonzero(labels == digit)[:DIGITS_IMAGES] for digit in range(10)])
    return ClassImages.of("digits", torch.from_numpy(np.rint(images[rows] * 255).astype(np.uint8))[:, :, None])
