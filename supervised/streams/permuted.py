"""Online permuted images: every task shows the same images with their pixels in another order."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from continual_agents.settings import nearest

from ..data import load_digits, load_mnist
from ..draws import Draw
from .images import Images, flat_images
from .stream import Stream, chunk_steps


class PermutedImages(Stream):
    """A task is one random permutation of the pixels; every image is shown once, in random order, at batch 1.

    Measured by online accuracy: there is no test set (Dohare et al. 2021, 2024).

    Args:
        seeds: one per run: permutations and orders.
        images: shared by all runs.
        change_every: examples per task; None: each image once. Beyond the number of images they come again, in a
            fresh order.
        device: of the examples.

    Raises:
        ValueError: fewer than one example per task.
    """

    loss = "cross_entropy"
    batch = 1

    def __init__(
        self,
        seeds: Sequence[int],
        images: Images,
        *,
        change_every: int | None = None,
        device: torch.device | str = "cpu",
    ):
        super().__init__(seeds, device)
        self.images = images.to(device)
        self.task_steps = len(images.labels) if change_every is None else change_every
        if self.task_steps < 1:
            raise ValueError(f"stream.change_every={change_every}: at least one example per task")
        self.shape = (images.pixels.shape[1],)
        self.outputs = images.classes
        self._begin(0)

    def next(self, most: int) -> tuple[Tensor, Tensor]:
        """As `Stream.next`: inputs `[steps, runs, 1, pixels]`, classes `[steps, runs, 1]`."""
        offset = self.position % self.task_steps
        if offset == 0 and self.position:
            self._begin(self.task)
        round_, place = divmod(offset, len(self.images.labels))
        if place == 0 and round_:
            self._shuffle(self.task, round_)
        steps = min(
            most,
            self.task_steps - offset,
            len(self.images.labels) - place,
            chunk_steps(self.runs * self.shape[0] * 4),
        )
        rows = self._order[place : place + steps]
        self.position += steps
        return self._permute(rows)[:, :, None], self.images.labels[rows][..., None]

    def evaluation(self, examples: int) -> Tensor:
        """The same images at every call, in the current task's permutation: `[runs, examples, pixels]`."""
        images = len(self.images.labels)
        rows = self.each(lambda one: one.choice(images, min(examples, images), replace=False), Draw.EVALUATION, dim=1)
        return self._permute(rows).transpose(0, 1).contiguous()

    def _permute(self, rows: Tensor) -> Tensor:
        """Images `rows [steps, runs]` with each run's permutation: `[steps, runs, pixels]`."""
        # `expand` copies nothing: one permutation a run serves all steps
        return self.images.pixels[rows].gather(-1, self._pixels.expand(len(rows), -1, -1))

    def _begin(self, task: int, round_: int = 0) -> None:
        self._pixels = self.each(lambda one: one.permutation(self.shape[0]), Draw.PERMUTATION, task)
        self._shuffle(task, round_)

    def _shuffle(self, task: int, round_: int) -> None:
        count = len(self.images.labels)
        self._order = self.each(lambda one: one.permutation(count), Draw.ORDER, task, round_, dim=1)

    def return_to(self, last: int) -> None:
        """As the base."""
        self._begin(last // self.task_steps, last % self.task_steps // len(self.images.labels))


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


def on_images(
    stream: Callable[..., Any],
    seeds: Sequence[int],
    *,
    data: str = "digits",
    root: str | None = None,
    source: Literal["files", "openml"] = "files",
    **settings: Any,
) -> Any:
    """A stream of the images of `load_images`, from its settings; the others are the stream's own."""
    return stream(seeds, load_images(data, root, source), **settings)
