"""Access to the files of a cache directory that follows no link in it.

Anyone who may write to the directory can put a link there. Its target is never read, written,
listed or removed. The directory itself may be reached through links.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from typing import Final

from layercache.errors import CacheError
from layercache.store.backend import SEGMENT_CHARACTERS

__all__ = ["Folders", "files_below", "replace_beneath", "unlink_beneath"]

_NOFOLLOW: Final[int] = getattr(os, "O_NOFOLLOW", 0)
_MOST_FOLDERS: Final = 4096


class Folders:
    """The directories below `root`, which ends with a separator. Safe for threads."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._plain: set[str] = {""}

    def led_away(self, folder: str) -> bool:
        """Whether a link is among the directories on the way to `folder`, or is it itself.

        What is found to be a directory is looked at once: names change with each object, their
        directories hardly ever, and a reader verifies what it gets.
        """
        if folder in self._plain:
            return False
        above = folder.rpartition("/")[0]
        if above and self.led_away(above):
            return True
        try:
            mode = os.lstat(self._root + folder).st_mode
        except OSError:
            return False  # opening something there fails in the same way
        if stat.S_ISLNK(mode):
            return True
        if len(self._plain) < _MOST_FOLDERS:
            self._plain.add(folder)
        return False


def replace_beneath(temporary: str, root: str, name: str) -> None:
    """Move `temporary` to `name` below `root`, through no link."""
    if os.rename not in os.supports_dir_fd:
        os.replace(temporary, os.path.join(root, name))
        return
    folder, _, last = name.rpartition("/")
    directory = _open_beneath(root, folder)
    try:
        os.replace(temporary, last, dst_dir_fd=directory)
    finally:
        os.close(directory)


def unlink_beneath(root: str, name: str) -> None:
    """Remove the file `name` below `root`, through no link."""
    if os.unlink not in os.supports_dir_fd:
        os.unlink(os.path.join(root, name))
        return
    folder, _, last = name.rpartition("/")
    directory = _open_beneath(root, folder)
    try:
        os.unlink(last, dir_fd=directory)
    finally:
        os.close(directory)


def _open_beneath(root: str, folder: str) -> int:
    """A descriptor of the directory `folder`; a link on the way is `NotADirectoryError`."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    descriptor = os.open(root, flags)
    for part in folder.split("/") if folder else ():
        above = descriptor
        try:
            descriptor = os.open(part, flags | _NOFOLLOW, dir_fd=above)
        finally:
            os.close(above)
    return descriptor


def files_below(
    root: str, folder: str, skip: Sequence[str] = ()
) -> Iterator[tuple[str, os.stat_result]]:
    """Name and status of the files of objects in `folder` below `root`, through no link.

    `skip` names directories of `root` that are left out. Raises `CacheError`.
    """
    parts = folder.split("/") if folder else []
    if any(os.path.islink(root + "/".join(parts[: n + 1])) for n in range(len(parts))):
        return  # what lies elsewhere is not ours
    stack = [folder]
    while stack:
        at = stack.pop()
        try:
            entries = list(os.scandir(root + at))
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise CacheError(f"can't list {root + at!r}: {error.strerror}") from error
        for entry in entries:
            if not at and entry.name in skip:
                continue
            if entry.name.startswith(".") or entry.name.strip(SEGMENT_CHARACTERS):
                continue  # no object's: `lost+found`, what NFS keeps of a file that is open
            name = f"{at}/{entry.name}" if at else entry.name
            try:
                if entry.is_dir(follow_symlinks=False):
                    stack.append(name)
                elif entry.is_file(follow_symlinks=False):
                    yield name, entry.stat(follow_symlinks=False)
            except OSError:
                continue  # gone meanwhile
