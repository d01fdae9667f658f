"""Mount points that had to be made in the image's tree: removed again, as BuildKit does."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence

__all__ = ["remove_stubs"]


def remove_stubs(upper: str, made: Sequence[str]) -> None:
    """Remove from the upper directory what is left of mount points, where nothing was put in.

    `made` are paths in the image, each after the directory it is in. The command may have put
    anything in their place: no link is followed.
    """
    for path in reversed(made):
        parent = _open_beneath(upper, os.path.dirname(path))
        if parent is None:
            continue
        name = os.path.basename(path)
        try:
            info = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if stat.S_ISDIR(info.st_mode):
                os.rmdir(name, dir_fd=parent)
            elif stat.S_ISREG(info.st_mode) and not info.st_size:
                os.unlink(name, dir_fd=parent)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST):
                raise
        finally:
            os.close(parent)


def _open_beneath(root: str, path: str) -> int | None:
    """The directory `path` beneath `root`, None when a component is no directory."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(root, flags)
    for part in path.split("/"):
        if not part:
            continue
        try:
            inner = os.open(part, flags, dir_fd=fd)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                return None
            raise
        finally:
            os.close(fd)
        fd = inner
    return fd
