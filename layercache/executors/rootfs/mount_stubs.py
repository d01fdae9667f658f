"""Removal of mount points that were created in the image's tree, as in BuildKit."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from typing import Final, TypeAlias

from layercache.executors.rootfs.inside import syscalls as sys_

__all__ = ["Stub", "remove_stubs"]

Stub: TypeAlias = tuple[str, int]
"""A path in the image, and the inode that the upper directory had there when it was made."""

_BENEATH: Final = (
    sys_.RESOLVE_BENEATH
    | sys_.RESOLVE_NO_SYMLINKS
    | sys_.RESOLVE_NO_MAGICLINKS
    | sys_.RESOLVE_NO_XDEV
)
_OTHER: Final = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EXDEV)
"""What opening says where the command put something else, or a path leads out."""


def remove_stubs(upper: str, made: Sequence[Stub]) -> None:
    """Remove empty mount points from the upper directory.

    `made` lists each after its parent directory. The command may have put anything in their place:
    no link is followed, nothing outside `upper` is opened, and only entries that were created as
    mount points are removed. The times of their parent directories are preserved.
    """
    root = os.open(upper, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        for path, inode in reversed(made):
            above, _, name = path.strip("/").rpartition("/")
            if name in ("", ".", ".."):
                continue
            try:
                parent = sys_.openat2(root, above or ".", os.O_PATH | os.O_DIRECTORY, _BENEATH)
            except OSError as error:
                if error.errno in _OTHER:
                    continue
                raise
            try:
                _remove(parent, name, inode)
            finally:
                os.close(parent)
    finally:
        os.close(root)


def _remove(parent: int, name: str, inode: int) -> None:
    """Remove the stub `name`, if it is the one that was created, and empty."""
    try:
        info = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if info.st_ino != inode:
            return
        times = os.fstat(parent)
        if stat.S_ISDIR(info.st_mode):
            os.rmdir(name, dir_fd=parent)
        elif stat.S_ISREG(info.st_mode) and not info.st_size:
            os.unlink(name, dir_fd=parent)
        else:
            return
        os.utime(".", ns=(times.st_atime_ns, times.st_mtime_ns), dir_fd=parent)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST):
            raise
