"""One stack on its stream: the learner that its network asks for, how it learns chunk by chunk, how it does."""

import warnings
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch

from .incremental import IncrementalLearner
from .looped import LoopedLearner
from .losses import LOSSES
from .measures import ACTIVITY, Bin, activity, diagnose, test_accuracy
from .networks import Mlp, make_network
from .plans import Plan
from .stacked.learner import StackedLearner
from .stacked.native import vector_bytes
from .stacked.operations import obstacle
from .streams.incremental import ClassIncremental
from .streams.stream import Stream, task_of, task_start
from .streams.table import make_stream


def make_learner(
    plans: Sequence[Plan], stream: Stream, *, device: torch.device | str = "cpu", fast: bool = False
) -> StackedLearner | LoopedLearner:
    """The learner of one stack of plans; `fast` as in `StackedLearner` and `LoopedLearner` (for conv nets).

    Raises:
        ValueError: settings out of range, or plans that do not fit into one stack.
    """
    network = make_network(plans[0].network, stream.shape, stream.outputs)
    methods, seeds = [plan.method for plan in plans], [plan.seed for plan in plans]
    if isinstance(stream, ClassIncremental):
        return IncrementalLearner(
            network, methods, seeds, loss=stream.loss, seen=stream.seen(0), device=device, fast=fast
        )
    missing = obstacle(plans[0].method)
    if missing is not None and isinstance(network, Mlp):
        warnings.warn(f"{missing} has no form for stacks: {plans[0].method.name}'s runs train one by one", stacklevel=2)
    if not isinstance(network, Mlp) or missing is not None:
        return LoopedLearner(network, methods, seeds, loss=stream.loss, device=device, fast=fast)
    try:
        return StackedLearner(network, methods, seeds, loss=stream.loss, batch=stream.batch, device=device, fast=fast)
    except ValueError as error:
        told = str(error).startswith("method ")
        raise ValueError(str(error) if told else f"method {methods[0].name}: {error}") from error


class Group:
    """One stack on its stream.

    Args:
        numbers: which runs of the figure it holds.
        plans: theirs.
        stream: what they learn from.
        device: where it runs.
        fast: as in `make_learner`.
    """

    def __init__(
        self,
        numbers: Sequence[int],
        plans: Sequence[Plan],
        stream: Stream,
        *,
        device: torch.device | str,
        fast: bool = False,
    ):
        self.numbers, self.stream = list(numbers), stream
        self.learner: Any = make_learner(plans, stream, device=device, fast=fast)
        self.bin = Bin(len(plans))
        self.data = fingerprint(stream)

    @property
    def code(self) -> str:
        """What takes the steps, and what its rounding depends on."""
        code = str(self.learner.code)
        if code == "native":
            return f"{code}, vectors of {vector_bytes()} bytes"
        return f"{code}, channels last" if getattr(self.learner, "channels_last", False) else code

    def _start_task(self, task: int) -> None:
        self.learner.start_task(task)

    def advance(self, until: int) -> int:
        """Learn from the next chunk, at most to step `until`; the number of steps done."""
        task = task_of(self.stream, self.stream.position)
        if self.stream.position == task_start(self.stream, task):
            self._start_task(task)
        x, y = self.stream.next(until - self.stream.position)
        self.bin.add(self.learner.learn(x, y))
        return len(x)

    def row(self, examples: int) -> dict[str, np.ndarray]:
        """What the table says of these runs at the end of a row."""
        row = {
            "task/index": np.full(len(self.numbers), float(task_of(self.stream, self.stream.position - 1))),
            LOSSES[self.stream.loss].measured_as: self.bin.take(),
        }
        accuracy = self._test_accuracy()
        if accuracy is not None:
            row["online_accuracy"] = row.pop("accuracy")
            row["test_accuracy"] = accuracy
        row |= diagnose(self.learner, self.stream, examples)
        replaced = self.learner.report().get("replaced", np.full(len(self.numbers), np.nan))
        return row | {"surgery/replaced": replaced}

    def _test_accuracy(self) -> np.ndarray | None:
        return test_accuracy(self.learner, self.stream)

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to continue exactly, and by what to know the data again."""
        return {part: getattr(self, part).state_dict() for part in ("stream", "learner", "bin")} | {"data": self.data}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict()`."""
        for part in ("stream", "learner", "bin"):
            getattr(self, part).load_state_dict(state[part])


def fingerprint(stream: Stream, *, images: int = 1000) -> int | None:
    """A checksum of a stream's images, of at most so many of them; None for a stream that makes its examples."""
    pixels = getattr(getattr(stream, "images", stream), "pixels", None)
    if pixels is None:
        return None
    rows = pixels if pixels.dim() == 2 else pixels[:, ::50]  # of every class a few: it may be memory-mapped
    rows = rows[:: -(-len(rows) // images)].cpu().contiguous().numpy()
    return zlib.crc32(rows.tobytes(), zlib.crc32(str(tuple(pixels.shape)).encode()))


class IncrementalGroup(Group):
    """A stack on classes that arrive in increments: its step sizes fall within a task, its best epoch ends it."""

    stream: ClassIncremental
    learner: IncrementalLearner

    def _start_task(self, task: int) -> None:
        self.learner.start_increment(task, self.stream.seen(task))

    def advance(self, until: int) -> int:
        """As the base; after each epoch the validation images say whether it was the best."""
        self.learner.scale_step_size(self.stream.step_factor)
        done = super().advance(until)
        task, _, step = self.stream.place(self.stream.position)
        if step == 0 and self.stream.validation_images:
            self.learner.keep_best(self._accuracy("validation"))
            if self.stream.position == self.stream.task_start(task):
                self.learner.take_best()
        return done

    def row(self, examples: int) -> dict[str, np.ndarray]:
        """As the base, with the number of classes and what was published of the activations."""
        row = {**super().row(examples), "task/classes": np.full(len(self.numbers), float(self.learner.seen))}
        found = dict.fromkeys(ACTIVITY, np.full(len(self.numbers), np.nan))
        return row | (activity(self.learner, self.stream, examples) if examples else found)

    def _test_accuracy(self) -> np.ndarray:
        return self._accuracy("test")

    def _accuracy(self, part: Literal["validation", "test"]) -> np.ndarray:
        right, images = np.zeros(len(self.numbers)), 0
        for x, y in self.stream.held_out(part):
            right += (self.learner.predict(x).argmax(-1) == y).sum(1).cpu().numpy()
            images += y.shape[1]
        return right / images


def make_group(
    numbers: Sequence[int], plans: Sequence[Plan], *, device: torch.device | str, fast: bool = False
) -> Group:
    """The group that the stream of these plans needs; arguments as in `Group`."""
    stream = make_stream(plans[0].stream, [plan.seed for plan in plans], device=device)
    kind = IncrementalGroup if isinstance(stream, ClassIncremental) else Group
    return kind(numbers, plans, stream, device=device, fast=fast)
