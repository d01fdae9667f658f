"""Opening the files of a layer where they lie in a directory: beneath it, through no link."""

from __future__ import annotations

import os
import stat
import weakref
from typing import Final

from layercache._os.names import checked_name, parted
from layercache.errors import CorruptObject

__all__ = ["FilesBeneath"]

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


class FilesBeneath:
    """The files of the directory `root`; a context manager.

    Paths that come depth first are cheap: the directories on the way stay open.
    """

    def __init__(self, root: str) -> None:
        try:
            descriptor = os.open(root, _DIRECTORY)
        except OSError as error:
            raise CorruptObject(f"the files of a layer are gone: {error.strerror}") from error
        self._chain: list[tuple[bytes, int]] = [(b"", descriptor)]
        # Also where nobody closes it: a reader that lives as long as a store.
        self._finish = weakref.finalize(self, _close, self._chain)

    def __enter__(self) -> FilesBeneath:
        return self

    def __exit__(self, *_: object) -> None:
        self._finish()

    def open(self, path: bytes) -> int:
        """A descriptor of the regular file at `path`; `CorruptObject` where there is none."""
        try:
            directory, name = parted(path)
            found = os.open(name, _FILE, dir_fd=self._enter(directory))
        except OSError as error:
            raise CorruptObject(
                f"the file {os.fsdecode(path)!r} of a layer can't be read: {error.strerror}"
            ) from error
        if not stat.S_ISREG(os.fstat(found).st_mode):
            os.close(found)
            raise CorruptObject(f"{os.fsdecode(path)!r} of a layer is no file any more")
        return found

    def _enter(self, directory: bytes) -> int:
        while True:
            path, descriptor = self._chain[-1]
            if path == directory:
                return descriptor
            if not path or directory.startswith(path + b"/"):
                break
            os.close(self._chain.pop()[1])
        rest = directory[len(path) + 1 :] if path else directory
        for name in rest.split(b"/"):
            path = path + b"/" + name if path else name
            descriptor = os.open(checked_name(name), _DIRECTORY, dir_fd=descriptor)
            self._chain.append((path, descriptor))
        return descriptor


def _close(chain: list[tuple[bytes, int]]) -> None:
    while chain:
        os.close(chain.pop()[1])
