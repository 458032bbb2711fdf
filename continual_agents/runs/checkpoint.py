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
      learner                networks, optimizer, operations, generator, gradient_steps, and its own: targets, memory
      updates, probed        updates done; names of the diagnostics, for rows in which nobody looked
    of a stream (supervised/train.py, _state)
      rows                   rows done
      groups [stack]         stream (position), learner (steps, stack, optimizer, operations), bin (the row so far)
```
"""

import contextlib
import hashlib
import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from .files import StrangeFileError, open_file, read_file
from .unpacking import CodeError, UnpackingError, check_solid, check_unpacking

FORMAT = 2
"""Version of the checkpoint layout; a file of another version is refused."""

LARGEST_DIGEST = 4096
"""Bytes; a file of digests has two of 64 letters."""

OLD_FORMAT = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""How files of torch before 1.6 begin: no archives, so nothing says beforehand what they make."""


class CheckpointError(RuntimeError):
    """No usable checkpoint, or a state that cannot be stored."""


class VersionError(CheckpointError):
    """A checkpoint of another version: not damaged, and nothing older takes its place."""


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
    temporary.unlink(missing_ok=True)  # of a killed process with our number; or a link that somebody laid there
    try:
        with open(temporary, "xb") as file:
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


def write_bytes(path: Path, content: bytes) -> None:
    """`write_atomically` of what is known already. A link of that name is replaced, not followed."""
    write_atomically(path, lambda file: file.write(content))


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
        for name in (path, _digest_of(path)):
            if name.is_dir() and not name.is_symlink():
                _remove(name)  # no file can take its place
        content = {"format": FORMAT, "step": step, "state": plain(state)}

        def note_digest(temporary: Path) -> None:
            digests = [_sha256(temporary)]
            if _is_file(path):
                with contextlib.suppress(UnpackingError):  # damaged, as it was when we passed it over
                    digests.append(_sha256(path))
            write_atomically(_digest_of(path), lambda file: file.write("\n".join(digests).encode()))

        write_atomically(path, lambda file: _store(content, file), before_rename=note_digest)
        self._clean(path)
        return path

    def _clean(self, newest: Path) -> None:
        """Remove old checkpoints, those of a later step that a damaged one made us leave, and what kills left."""
        paths = self.paths()
        here = paths.index(newest)
        for path in paths[: max(0, here + 1 - self.keep)] + paths[here + 1 :]:
            _remove(path)
        for digest in self.folder.glob("step_*.sha256"):
            if not os.path.lexists(digest.with_suffix(".pt")):
                _remove(digest)
        for temporary in self.folder.glob(".step_*.tmp"):  # ours are gone: the folder has one writer
            _remove(temporary)

    def paths(self) -> list[Path]:
        """Checkpoint files, oldest first."""
        return sorted(self.folder.glob("step_*.pt"))

    @classmethod
    def check(cls, folder: Path) -> dict[str, Any] | None:
        """What `load` would find in a folder, with its tensors left in the file; writes nothing, says nothing.

        Raises:
            CheckpointError: as `load`.
        """
        if not Path(folder).is_dir():
            return None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return cls(folder).load(mmap=True, damage=damage_of_run)

    def load(
        self, *, mmap: bool = False, damage: Callable[[dict[str, Any]], str | None] | None = None
    ) -> dict[str, Any] | None:
        """The newest good checkpoint's content (`step`, `state`), or None when there is none at all.

        Damaged ones are passed over with a warning that names the file and what was used instead.

        Args:
            mmap: leave the tensors in the file until they are looked at.
            damage: says what is wrong with a content that is not what it should be, as `damage_of_run`; None if nothing.

        Raises:
            CheckpointError: there are checkpoints but none is good, or one is of another format version.
        """
        paths = self.paths()
        damaged: list[tuple[Path, str]] = []
        refusal: CheckpointError | None = None
        for path in reversed(paths):
            problem = _damage(path)
            if problem is None:
                try:
                    content = read_checkpoint(path, mmap=mmap)
                    problem = damage(content) if damage is not None else None
                except VersionError:
                    raise
                except CheckpointError as error:
                    refusal = refusal or error
                    problem = str(error).removeprefix(f"{path} ")
            if problem is None:
                for one, what in damaged:
                    warnings.warn(f"{one}: {what}; falling back to {path.name}", stacklevel=2)
                return content
            damaged.append((path, problem))
        if refusal is not None:
            raise refusal
        if paths:
            raise CheckpointError(
                f"none of the {len(paths)} checkpoints in {self.folder} is whole ({damaged[0][0].name}: {damaged[0][1]}): "
                "start in a new folder"
            )
        return None


def _is_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _remove(path: Path) -> None:
    """Take a checkpoint's name away; a folder that is not empty, in a file's place, gets another one."""
    try:
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)
    except OSError:
        path.rename(path.with_name(f"not_a_checkpoint.{time.time_ns()}"))


def read_checkpoint(path: Path, *, map_location: str = "cpu", mmap: bool = False) -> dict[str, Any]:
    """Load one checkpoint file; no code in it is ever run (`weights_only=True`).

    Raises:
        CheckpointError: not a checkpoint, needs code to load, or of another version.
    """
    content = load_data(path, map_location=map_location, mmap=mmap)
    if not isinstance(content, dict) or not {"format", "step", "state"} <= content.keys():
        raise CheckpointError(f"{path} is not a checkpoint of this project: give a file of RUN_FOLDER/checkpoints")
    version = content["format"]
    if not isinstance(version, int):
        raise CheckpointError(f"{path} is not a checkpoint of this project: its format is no number")
    if version != FORMAT:
        raise VersionError(
            f"{path} has checkpoint format {version}, this version reads {FORMAT}: "
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
        with open_file(path, follow=True) as file:
            start = file.read(len(OLD_FORMAT))
        if start == OLD_FORMAT:
            raise CheckpointError(f"{path} is in the format of torch before 1.6: load it with torch and save it again")
        if start[:4] != b"PK\x03\x04":  # as torch tells its archives from other files
            raise CheckpointError(f"{path} is not a file of torch.save, or is damaged")
        check_unpacking(path)
        return torch.load(path, map_location=map_location, weights_only=True, mmap=mmap)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror})") from error
    except (CheckpointError, StrangeFileError) as error:
        raise CheckpointError(str(error)) from error
    except CodeError as error:
        raise CheckpointError(f"{path} asks for code to be run: do not use this file") from error
    except UnpackingError as error:
        raise CheckpointError(f"{path} {error}: do not use this file") from error
    except Exception as error:  # torch, zipfile and pickle raise a dozen types here
        raise CheckpointError(f"{path} is not a file of torch.save, or is damaged") from error


def _damage(path: Path) -> str | None:
    """What is wrong with a checkpoint file, as far as its digest tells; None if nothing is."""
    try:
        expected = read_file(_digest_of(path), most=LARGEST_DIGEST).decode("ascii").split()
    except FileNotFoundError:
        return "there is no .sha256 beside it"
    except (OSError, ValueError):  # no file, no text, too large
        return "its .sha256 cannot be read"
    try:
        return None if _sha256(path) in expected else "its content does not match its .sha256"
    except StrangeFileError:
        return "it is no file"
    except UnpackingError as error:
        return f"it {error}"
    except OSError as error:
        return f"it cannot be read ({error.strerror})"


def damage_of_run(content: dict[str, Any]) -> str | None:
    """What a checkpoint of the right digest lacks of the tree that this module's docstring draws; None if nothing."""
    step, state = content["step"], content["state"]
    if not _is_count(step):
        return "its step is no count"
    if not isinstance(state, dict):
        return "its state is no mapping"
    if not isinstance(state.get("run"), dict) or not isinstance(state.get("finished"), bool):
        return "its state is not that of a run"
    rows = state.get("rows")
    if not isinstance(rows, dict) or not all(isinstance(name, str) and _is_count(rows[name]) for name in rows):
        return "its rows are no counts"
    if not _is_count(state.get("logged", 0)):
        return "its last logged step is no count"
    for part in ("latest", "glance"):
        known = state.get(part, {})
        if not isinstance(known, dict) or not all(isinstance(value, int | float) for value in known.values()):
            return f"its {part} values are no numbers"
    return None


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _digest_of(path: Path) -> Path:
    return path.with_suffix(".sha256")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open_file(path) as file:
        check_solid(os.fstat(file.fileno()))
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
