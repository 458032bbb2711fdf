"""What lies in a folder of data: regular files and folders, and no link that leads out of it."""

from pathlib import Path

from .errors import DataError


def check_entry(root: Path, path: Path, *, folder: bool = False, follow_links: bool = False) -> None:
    """Whether an entry may be read: an archive of data can hold links to anywhere, pipes and devices.

    Args:
        root: the folder that was given.
        path: an entry of it or below it.
        folder: whether it must be a folder, not a file.
        follow_links: links out of `root` were asked for.

    Raises:
        DataError: another kind of entry, or a link that leads out of `root` unasked.
    """
    if path.is_symlink() and not follow_links:
        target = path.resolve()
        if not target.is_relative_to(root.resolve()):
            remedy = "give the folder that holds the data, or --follow-links if you made this link"
            raise DataError(path, f"a link to {target}, out of {root}", remedy)
    if not (path.is_dir() if folder else path.is_file()):
        raise DataError(path, f"no {'folder' if folder else 'regular file'}", "remove it")
