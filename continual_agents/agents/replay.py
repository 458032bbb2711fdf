"""A replay buffer that continues exactly: TorchRL's, and beside the checkpoints what was added since the last one."""

import contextlib
import functools
import logging
import re
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from tensordict import TensorDict
from torchrl.data import LazyMemmapStorage, LazyTensorStorage, ReplayBuffer

from continual_agents.runs.checkpoint import CheckpointError, load_data, write_atomically

STORAGES = ("memory", "memmap")
_MAPPED = ".mapped_"
_NAME = re.compile(r"rows_(\d{12})_(\d{12})\.pt")


class Replay:
    """The last `size` transitions, sampled uniformly with replacement.

    On the disk it is a log: `save` appends one file with the rows that are new, so that a checkpoint costs what was
    collected since the last one, however large the buffer is; files that no checkpoint needs any more are removed. The
    same row has the same place in the buffer after `load`, so that the same indices are the same transitions.

    Args:
        size: transitions it holds, at least 1.
        generator: draws the samples; saved by its owner.
        storage: "memory", or "memmap": what is sampled lies in a file that the system keeps in memory as far as there
            is room, for buffers of pictures; the same numbers. The file belongs to the session, the log to the run.

    Attributes:
        count: transitions ever added.
        since: how many of them were there when it was last emptied.
    """

    def __init__(self, size: int, generator: torch.Generator, storage: str = "memory"):
        if size < 1:
            raise ValueError(f"agent.replay_buffer.size={size}: at least one transition")
        if storage not in STORAGES:
            raise ValueError(f"agent.replay_buffer.storage={storage}: {' or '.join(STORAGES)}")
        self.size, self.storage = size, storage
        self.count = self.since = 0
        self._generator = generator
        self._folder: Path | None = None
        self._saved = 0
        self._needed = [0, 0]  # rows that the two checkpoints on the disk count, the older first

    def __len__(self) -> int:
        return min(self.count - self.since, self.size)

    def empty(self) -> None:
        """Forget every transition."""
        if self.count:
            self._buffer.empty()
        self.since = self.count

    def lie_in(self, folder: Path) -> None:
        """Where a memory-mapped file is to be, before the first transition; else it is where temporary files are."""
        self._folder = folder

    @functools.cached_property
    def _buffer(self) -> ReplayBuffer:
        if self.storage == "memory":
            return ReplayBuffer(storage=LazyTensorStorage(self.size), generator=self._generator)
        if self._folder is not None:
            self._folder.mkdir(exist_ok=True)
            for left in self._folder.glob(f"{_MAPPED}*"):  # by a session that was killed: the folder has one writer
                shutil.rmtree(left)
        mapped = tempfile.mkdtemp(prefix=_MAPPED, dir=self._folder)
        weakref.finalize(self, shutil.rmtree, mapped, ignore_errors=True)
        storage = LazyMemmapStorage(self.size, scratch_dir=mapped)
        return ReplayBuffer(storage=storage, generator=self._generator)

    def extend(self, rows: TensorDict) -> None:
        """Add transitions `[rows]`; the oldest make room."""
        with _quietly() if len(self) == 0 else contextlib.nullcontext():
            self._buffer.extend(rows)
        self.count += len(rows)

    def sample(self, count: int) -> TensorDict:
        """`count` transitions, drawn with replacement."""
        return self._buffer.sample(count)

    def recent(self, count: int) -> TensorDict:
        """The last `count` transitions, or all."""
        return self._rows(self.count - min(count, len(self)), self.count)

    def _rows(self, start: int, end: int) -> TensorDict:
        places = self._places(start, end)
        return self._buffer.storage[places]

    def _places(self, start: int, end: int) -> torch.Tensor:
        return torch.arange(start - self.since, end - self.since) % self.size

    def save(self, folder: Path) -> None:
        """Append what is new to the files in `folder`; called just before a checkpoint that notes `count`."""
        start = max(self._saved, self.count - len(self))
        if self.count > start:
            folder.mkdir(exist_ok=True)
            content = self._rows(start, self.count).flatten_keys("/").to_dict()
            path = folder / f"rows_{start:012d}_{self.count:012d}.pt"
            write_atomically(path, lambda file: torch.save(content, file))
        self._saved = self.count
        self._needed = [self._needed[1], self.count]
        for _, end, path in _files(folder):
            if end <= self._needed[0] - self.size:
                path.unlink(missing_ok=True)

    def load(self, folder: Path, count: int, since: int = 0) -> None:
        """Continue where a checkpoint noted `count` and `since`; what was added after it is forgotten.

        Raises:
            CheckpointError: a file is missing or damaged.
        """
        first = max(since, count - self.size)
        self.since, at = since, first
        for temporary in folder.glob(".rows_*.tmp"):  # of a session that was killed: the folder has one writer
            temporary.unlink()
        for start, end, path in _files(folder):
            if start >= count:
                path.unlink()  # of a checkpoint that was never finished
            elif end > first:
                if not start <= at <= end <= count:
                    break
                content = load_data(path)
                rows = TensorDict(content, [end - start]).unflatten_keys("/")[at - start :]
                with _quietly():
                    self._buffer.storage.set(self._places(at, end), rows)
                at = end
        if at != count:
            raise CheckpointError(
                f"{folder} lacks the transitions {at} to {count} of the replay buffer: the run cannot be continued, "
                "start in a new folder"
            )
        # rows keep their places, so the writer has to go on behind the last one
        self._buffer.writer._cursor = (count - since) % self.size
        self.count = self._saved = count
        self._needed = [first, count]


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """TorchRL announces the memory that it takes, in the middle of a progress bar."""
    logger = logging.getLogger("torchrl")
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(before)


def _files(folder: Path) -> list[tuple[int, int, Path]]:
    """First row, last row + 1 and path of each file, in order."""
    matches = [(_NAME.fullmatch(path.name), path) for path in folder.glob("rows_*.pt")]
    found = [(int(match[1]), int(match[2]), path) for match, path in matches if match is not None]
    return sorted(found, key=lambda one: one[:2])


def transitions(batch: TensorDict) -> TensorDict:
    """What a replay buffer keeps of a batch: `observation`, `action`, `next/{observation, reward, terminated}`."""
    following = batch.get("next").select("observation", "reward", "terminated")
    flat: Any = batch.select("observation", "action").set("next", following).reshape(-1)
    return flat.clone()
