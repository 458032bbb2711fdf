"""Checkpoints that are either whole or not there, and that load without running code.

What a file holds, as tensors, numbers, strings and containers of them:

```
format                       version of this layout, `FORMAT`
step                         position of the run: environment steps, gradient steps or epochs
state
  finished                   whether this is the end
  rows {table: count}        whole rows of each CSV that belong to this state; what lies behind them is cut off
  logged                     last step that tables and curves know
  latest {metric: value}     last known value of each, for the final metrics
  glance {metric: value}     what the overview's curves are divided by
  run                        the experiment's own
    of an agent (agents/training.py, Loop.state)
      collector              frames, generator, current observations, returns and lengths so far, environment (or null)
      ppo                    actor, critic, optimizer, operations, generator, gradient_steps
      updates, probed        updates done; names of the diagnostics, for rows in which nobody looked
    of a stream (supervised/train.py, _state)
      rows                   rows done
      groups [stack]         stream (position), learner (steps, stack, optimizer, operations), bin (the row so far)
    of a warm start (supervised/warm_start.py)
      epoch, parameters, velocities
```
"""

from __future__ import annotations

import hashlib
import os
import pickle
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

FORMAT = 1
"""Version of the checkpoint layout; a file of another version is refused."""


class CheckpointError(RuntimeError):
    """No usable checkpoint, or a state that cannot be stored."""


def plain(value: Any, path: str = "state") -> Any:
    """Turn a nested state into what `torch.load(weights_only=True)` accepts: arrays become tensors.

    Raises:
        CheckpointError: an object that is neither tensor, array, number, string, bytes nor container, with its path.
    """
    if value is None or isinstance(value, bool | int | float | str | bytes | torch.Tensor):
        # subclasses such as np.float64 or torch's Parameter would be pickled by class name
        if isinstance(value, torch.Tensor):
            return value.detach()
        return value.item() if isinstance(value, np.generic) else value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy())
    if isinstance(value, dict):
        return {key: plain(item, f"{path}[{key!r}]") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(plain(item, f"{path}[{index}]") for index, item in enumerate(value))
    raise CheckpointError(
        f"{path} is a {type(value).__name__}: a checkpoint holds tensors, numbers, strings and containers of them only"
    )


def write_atomically(
    path: Path, write: Callable[[IO[bytes]], Any], *, before_rename: Callable[[Path], None] | None = None
) -> None:
    """Write a file so that a kill at any moment leaves the old file or the new one, never half of one.

    Args:
        path: the file.
        write: given the open temporary file beside it.
        before_rename: given the whole temporary file, when it is on the disk.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        if before_rename is not None:
            before_rename(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)  # makes the rename itself durable
    finally:
        os.close(directory)


class Checkpoints:
    """The checkpoints of one run: `step_000000002048.pt`, each with its SHA-256 beside it; the last `keep` stay.

    Args:
        folder: where they live; made if missing.
        keep: how many to keep, at least 2, so that a damaged newest one leaves a good one.
    """

    def __init__(self, folder: Path, *, keep: int = 2):
        if keep < 2:
            raise ValueError(f"keep={keep}: keep at least 2 checkpoints, one may be damaged")
        self.folder = Path(folder)
        self.keep = keep
        self.folder.mkdir(parents=True, exist_ok=True)

    def save(self, step: int, state: dict[str, Any]) -> Path:
        """Store `state` durably; what it replaces goes when it is whole.

        The digest is written before the checkpoint appears under its name. Where there is one of that name already, the
        digests of both stand in the file until the next write: a kill in between leaves either whole.
        """
        path = self.folder / f"step_{step:012d}.pt"
        content = {"format": FORMAT, "step": step, "state": plain(state)}

        def note_digest(temporary: Path) -> None:
            digests = [_sha256(known) for known in (temporary, path) if known.exists()]
            write_atomically(_digest_of(path), lambda file: file.write("\n".join(digests).encode()))

        write_atomically(path, lambda file: _store(content, file), before_rename=note_digest)
        self._clean(path)
        return path

    def _clean(self, newest: Path) -> None:
        """Remove old checkpoints, those of a later step that a damaged one made us leave, and what kills left."""
        paths = self.paths()
        here = paths.index(newest)
        for path in paths[: max(0, here + 1 - self.keep)] + paths[here + 1 :]:
            path.unlink(missing_ok=True)
        for digest in self.folder.glob("step_*.sha256"):
            if not digest.with_suffix(".pt").exists():
                digest.unlink(missing_ok=True)
        for temporary in self.folder.glob(".step_*.tmp"):  # ours are gone: the folder has one writer
            temporary.unlink(missing_ok=True)

    def paths(self) -> list[Path]:
        """Checkpoint files, oldest first."""
        return sorted(self.folder.glob("step_*.pt"))

    @classmethod
    def check(cls, folder: Path) -> None:
        """Whether `load` would find a good checkpoint in a folder, or none at all; writes nothing, says nothing.

        Raises:
            CheckpointError: as `load`.
        """
        if not Path(folder).is_dir():
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            cls(folder).load(mmap=True)

    def load(self, *, mmap: bool = False) -> dict[str, Any] | None:
        """The newest good checkpoint's content (`step`, `state`), or None when there is none at all.

        Damaged ones are passed over with a warning that names the file and what was used instead.

        Args:
            mmap: leave the tensors in the file until they are looked at.

        Raises:
            CheckpointError: there are checkpoints but none is good, or one is of another format version.
        """
        paths = self.paths()
        damaged: list[tuple[Path, str]] = []
        for path in reversed(paths):
            problem = _damage(path)
            if problem is None:
                content = read_checkpoint(path, mmap=mmap)
                for one, what in damaged:
                    warnings.warn(f"{one}: {what}; falling back to {path.name}", stacklevel=2)
                return content
            damaged.append((path, problem))
        if paths:
            raise CheckpointError(
                f"none of the {len(paths)} checkpoints in {self.folder} is whole: start in a new folder"
            )
        return None


def read_checkpoint(path: Path, *, map_location: str = "cpu", mmap: bool = False) -> dict[str, Any]:
    """Load one checkpoint file; no code in it is ever run (`weights_only=True`).

    Raises:
        CheckpointError: not a checkpoint, needs code to load, or of another version.
    """
    content = load_data(path, map_location=map_location, mmap=mmap)
    if not isinstance(content, dict) or not {"format", "step", "state"} <= content.keys():
        raise CheckpointError(f"{path} is not a checkpoint of this project: give a file of RUN_FOLDER/checkpoints")
    if content["format"] != FORMAT:
        raise CheckpointError(
            f"{path} has checkpoint format {content['format']}, this version reads {FORMAT}: "
            "continue it with the version that wrote it (environment.json names it)"
        )
    return content


def _store(content: dict[str, Any], file: IO[bytes]) -> None:
    try:
        torch.save(content, file)
    except RuntimeError as error:
        # on a full disk torch trips over its own tidying up
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


def load_data(path: Path, *, map_location: str = "cpu", mmap: bool = False) -> Any:
    """What `torch.save` wrote, if it is tensors, numbers, strings and containers; code in the file is never run.

    Raises:
        CheckpointError: unreadable, needs code to load, or unpacks to more than it is.
    """
    try:
        _refuse_bomb(path)
        return torch.load(path, map_location=map_location, weights_only=True, mmap=mmap)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror})") from error
    except CheckpointError:
        raise
    except pickle.UnpicklingError as error:
        if "unsupported global" in str(error).lower():
            raise CheckpointError(f"{path} asks for code to be run: do not use this file") from error
        raise CheckpointError(f"{path} is not a file of torch.save, or is damaged") from error
    except Exception as error:  # torch raises a dozen types here
        raise CheckpointError(f"{path} is not a file of torch.save, or is damaged") from error


def _refuse_bomb(path: Path) -> None:
    """torch.save compresses nothing, so what the members say they hold is in the file, byte for byte.

    Raises:
        CheckpointError: an archive that would unpack to more than it is.
    """
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise CheckpointError(f"{path} is compressed, which torch.save never does: do not use this file")
    size, have = sum(member.file_size for member in members), path.stat().st_size
    if size > have:
        raise CheckpointError(f"{path} would unpack from {have:,} to {size:,} bytes: do not use this file")


def _damage(path: Path) -> str | None:
    try:
        expected = _digest_of(path).read_text().split()
    except FileNotFoundError:
        return "there is no .sha256 beside it"
    return None if _sha256(path) in expected else "its content does not match its .sha256"


def _digest_of(path: Path) -> Path:
    return path.with_suffix(".sha256")


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _digest(file)


def _digest(file: IO[bytes]) -> str:  # Python 3.10 has no hashlib.file_digest
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()
