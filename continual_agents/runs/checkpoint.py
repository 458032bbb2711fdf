"""Checkpoints that are either whole or not there, and that load without running code."""

from __future__ import annotations

import hashlib
import os
import warnings
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

    def load(self) -> dict[str, Any] | None:
        """The newest good checkpoint's content (`step`, `state`), or None when there is none at all.

        Damaged ones are passed over with a warning that names the file and what was used instead.

        Raises:
            CheckpointError: there are checkpoints but none is good, or one is of another format version.
        """
        paths = self.paths()
        for path in reversed(paths):
            problem = _damage(path)
            if problem is None:
                return read_checkpoint(path)
            warnings.warn(f"{path}: {problem}; falling back to the checkpoint before it", stacklevel=2)
        if paths:
            raise CheckpointError(
                f"none of the {len(paths)} checkpoints in {self.folder} is whole: start in a new folder"
            )
        return None


def read_checkpoint(path: Path, *, map_location: str = "cpu") -> dict[str, Any]:
    """Load one checkpoint file; no code in it is ever run (`weights_only=True`).

    Raises:
        CheckpointError: not a checkpoint, needs code to load, or of another version.
    """
    try:
        content = torch.load(path, map_location=map_location, weights_only=True)
    except Exception as error:  # torch raises a dozen types here
        raise CheckpointError(
            f"{path} is not a checkpoint of this project (or is damaged): {_first_line(error)}"
        ) from error
    if not isinstance(content, dict) or "format" not in content:
        raise CheckpointError(f"{path} is not a checkpoint of this project")
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


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
