"""Opening files beneath a directory without ever following a symbolic link.

Each component is opened from its parent's file descriptor with O_NOFOLLOW, so a directory that is
swapped for a link in the meantime leads nowhere else.
"""

from __future__ import annotations

import errno
import io
import os
from typing import Any, BinaryIO, Final, cast

from blake3 import blake3

from layercache._base.paths import shown_below
from layercache._os.names import checked_name, parted
from layercache.errors import ContextChanged, SourceError

__all__ = ["ReadBeneath", "VerifiedReader", "changed", "unreadable", "verified"]

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

# O_NONBLOCK: a file may have become a FIFO since it was listed; opening it must not hang.
FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY

_REPLACED: Final = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENXIO)

_KEPT: Final = 64
"""Open parents at most, far below the usual limit of 1024 descriptors."""


class ReadBeneath:
    """Directories below `root`, opened one from another; neighbours share their parents.

    Not safe for threads. Raises `SourceError` if `root` is not a directory.
    """

    def __init__(self, root: str | bytes) -> None:
        # A scan should not change access times, and not writing them is faster. Only an owner
        # may ask for that, so the first refusal turns it off.
        self.flags = FILE | getattr(os, "O_NOATIME", 0)
        self._names: list[bytes] = []
        self._opened: list[int] = []  # -1 where it was closed to keep few open
        try:
            self.root = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise SourceError(
                f"{os.fsdecode(root)} can't be used as a build context: {error.strerror}"
            ) from error

    def directory(self, path: bytes) -> int:
        """A descriptor of the directory, valid until the next call; raises `OSError`."""
        if not path:
            return self.root
        names = path.split(b"/")
        common = 0
        for known, name in zip(self._names, names, strict=False):
            if known != name:
                break
            common += 1
        while common and self._opened[common - 1] < 0:
            common -= 1
        self._close(common)
        parent = self._opened[-1] if common else self.root
        for name in names[common:]:
            parent = os.open(checked_name(name), _DIRECTORY, dir_fd=parent)
            self._names.append(name)
            self._opened.append(parent)
            if len(self._opened) > _KEPT:
                oldest = len(self._opened) - _KEPT - 1
                if self._opened[oldest] >= 0:
                    os.close(self._opened[oldest])
                    self._opened[oldest] = -1
        return parent

    def open(self, path: bytes) -> int:
        """A new descriptor for reading the file at `path`; raises `OSError`."""
        parent, name = parted(path)
        return self.open_at(self.directory(parent), name)

    def open_at(self, parent: int, name: bytes) -> int:
        """A new descriptor for reading the file `name` in the directory open at `parent`."""
        checked_name(name)
        try:
            return os.open(name, self.flags, dir_fd=parent)
        except PermissionError as error:
            if error.errno != errno.EPERM or self.flags == FILE:
                raise
        self.flags = FILE
        return os.open(name, FILE, dir_fd=parent)

    def readlink(self, path: bytes) -> bytes:
        """The target of the link at `path`; raises `OSError`."""
        parent, name = parted(path)
        return os.readlink(name, dir_fd=self.directory(parent))

    def _close(self, keep: int) -> None:
        for number in self._opened[keep:]:
            if number >= 0:
                os.close(number)
        del self._opened[keep:], self._names[keep:]

    def close(self) -> None:
        """Close everything; may be called twice."""
        self._close(0)
        if self.root >= 0:
            os.close(self.root)
            self.root = -1

    def __del__(self) -> None:
        if getattr(self, "root", -1) >= 0:
            self.close()

    def __enter__(self) -> ReadBeneath:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def changed(path: bytes, why: str) -> ContextChanged:
    """The error for a file that changed since it was fingerprinted."""
    return ContextChanged(
        f"{shown_below(path)} changed while it was being copied ({why}); nothing was stored. "
        "Build again when nothing writes to it"
    )


def unreadable(path: bytes, error: OSError) -> SourceError:
    """The error for a selected file that can't be read."""
    if error.errno in _REPLACED:
        return changed(path, "it is gone or was replaced")
    return SourceError(f"{shown_below(path)} can't be read: {error.strerror}")


_AT_ONCE: Final = 1 << 18
"""Bytes: smaller files are read and verified before the first byte is handed out."""


def verified(descriptor: int, path: bytes, size: int, content: bytes) -> BinaryIO:
    """A reader of the file open at `descriptor`, which it takes over; see `VerifiedReader`.

    Raises `ContextChanged` at once if the change is visible at once.
    """
    if size > _AT_ONCE:
        return cast(BinaryIO, VerifiedReader(descriptor, path, size, content))
    data = b""
    if size:
        try:
            data = os.read(descriptor, size + 1)
        except OSError as error:
            raise unreadable(path, error) from error
        finally:
            os.close(descriptor)
    if len(data) != size:
        raise changed(path, "another size")
    if blake3(data).digest() != content:
        raise changed(path, "other bytes")
    return io.BytesIO(data)


class VerifiedReader(io.RawIOBase):
    """The bytes of a file, hashed while they are read.

    A caller that reads `size` bytes or reaches the end knows that the bytes match `content`:
    otherwise that read raises `ContextChanged`.
    """

    def __init__(self, descriptor: int, path: bytes, size: int, content: bytes) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._path = path
        self._size = size
        self._content = content
        self._hasher = blake3()
        self._seen = 0
        self._verified = False
        try:
            if os.fstat(descriptor).st_size != size:
                raise changed(path, "another size")
        except BaseException:
            self.close()
            raise

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer`; raises `ContextChanged` if the bytes are not the expected ones."""
        view = memoryview(buffer).cast("B")
        if not len(view):
            return 0
        try:
            count = os.readv(self._descriptor, [view])
        except OSError as error:
            raise unreadable(self._path, error) from error
        self._seen += count
        if self._seen > self._size or (not count and self._seen < self._size):
            raise changed(self._path, "another size")
        if count:
            self._hasher.update(view[:count])
            if self._seen == self._size:
                self._verify()
        return count

    def _verify(self) -> None:
        if not self._verified and self._hasher.digest() != self._content:
            raise changed(self._path, "other bytes")
        self._verified = True

    def close(self) -> None:
        if not self.closed and self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        super().close()
