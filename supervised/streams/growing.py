"""Growing data: every task trains on more of the same images, the first on a part, the last on all of them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from continual_agents.settings import check_counts

from ..draws import Draw
from .images import Images
from .stream import Stream, chunk_steps


class GrowingImages(Stream):
    """Task k trains on the first `fractions[k]` of a run's training images; the later tasks on the last fraction.

    With fractions 1/2 and 1 this is warm start (Ash and Adams 2020): a network that was trained on half of the data
    and goes on with all of it ends up worse on held-out images than a fresh one. Measured by test accuracy.

    Args:
        seeds: one per run: which images are held out, which come first, their order in every epoch.
        images: shared by all runs.
        test_images: held out.
        train_images: of the others, those that are trained on.
        fractions: of them, task by task, in (0, 1]; a run's images are added to, never exchanged.
        epochs: passes over the last fraction in a task. All tasks have as many steps, so fewer images come more often.
        batch: images per gradient step; divides the number of images of every task.
        device: of the examples.

    Raises:
        ValueError: a number out of range, or a batch that does not fit.
    """

    loss = "cross_entropy"

    def __init__(
        self,
        seeds: Sequence[int],
        images: Images,
        *,
        test_images: int = 797,
        train_images: int = 200,
        fractions: Sequence[float] = (0.5, 1.0),
        epochs: int = 100,
        batch: int = 4,
        device: torch.device | str = "cpu",
    ):
        check_counts("stream", test_images=test_images, train_images=train_images, epochs=epochs, batch=batch)
        if test_images + train_images > len(images.labels):
            given = f"stream.test_images={test_images} and train_images={train_images}"
            raise ValueError(f"{given}: there are {len(images.labels)} images in all")
        if not fractions or not fractions[0] > 0 or list(fractions) != sorted(fractions) or not fractions[-1] <= 1:
            raise ValueError(f"stream.fractions={list(fractions)}: one for each task, growing, above 0 and at most 1")
        self.counts = [int(fraction * train_images) for fraction in fractions]
        for count in self.counts:
            if count < batch or count % batch:
                raise ValueError(f"stream.batch={batch} does not divide the {count} training images of a task")
        super().__init__(seeds, device)
        self.images, self.batch = images.to(device), batch
        self.shape = (images.pixels.shape[1],)
        self.outputs = images.classes
        orders = self.each(lambda one: one.permutation(len(images.labels)), Draw.SPLIT)
        self._test, self._train = orders[:, :test_images], orders[:, test_images : test_images + train_images]
        self.task_steps = epochs * self.counts[-1] // batch
        self._shuffle(0)

    def next(self, most: int) -> tuple[Tensor, Tensor]:
        """As `Stream.next`: inputs `[steps, runs, batch, pixels]`, classes `[steps, runs, batch]`."""
        offset = self.position % self.task_steps
        count = self._count(self.position)
        place = offset % (count // self.batch)
        if place == 0:
            self._shuffle(self.position)
        steps = min(
            most,
            self.task_steps - offset,
            count // self.batch - place,
            chunk_steps(self.runs * self.batch * self.shape[0] * 4),
        )
        rows = self._order[:, place : place + steps].transpose(0, 1)
        self.position += steps
        return self.images.pixels[rows], self.images.labels[rows]

    def evaluation(self, examples: int) -> Tensor:
        """The first held-out images of each run."""
        return self.images.pixels[self._test[:, :examples]]

    def test(self) -> tuple[Tensor, Tensor]:
        """The held-out images of each run, and their classes."""
        return self.images.pixels[self._test], self.images.labels[self._test]

    def _count(self, position: int) -> int:
        """Images of the task at a step."""
        return self.counts[min(position // self.task_steps, len(self.counts) - 1)]

    def _shuffle(self, position: int) -> None:
        """The order of the epoch at a step, `[runs, steps, batch]`."""
        task, offset = divmod(position, self.task_steps)
        count = self._count(position)
        order = self.each(lambda one: one.permutation(count), Draw.ORDER, task, offset // (count // self.batch))
        self._order = self._train.gather(1, order).unflatten(1, (-1, self.batch))

    def return_to(self, last: int) -> None:
        """As the base."""
        self._shuffle(last)
