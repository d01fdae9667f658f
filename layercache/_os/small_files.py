"""Small text files of a project: regular files of bounded size, read without blocking.

A link may lead elsewhere within the project but never out of it: the content may be shown in
errors, and a checkout may come from anyone.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import Final

__all__ = ["LIMIT", "read_beneath", "read_file"]

LIMIT: Final = 64 << 20
"""The maximum size of a file, in bytes."""

_FILE: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LINKS: Final = 40
_STREAMS: Final = ("/dev/fd/", "/proc/self/fd/", "/dev/stdin")
"""Directory in which a shell provides the pipes of process substitutions."""


def read_file(path: str) -> bytes:
    """The content of the file that a user named by `path`; raises `OSError`."""
    stream = path.startswith(_STREAMS)
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC if stream else _FILE)
    return _content(descriptor, stream)


def read_beneath(root: str, path: str) -> bytes:
    """The content of `path`, relative to the directory `root`; raises `OSError`.

    Links on the way are followed only as long as they stay beneath `root`, even if entries are
    swapped at the same time.
    """
    names = [name for name in reversed(path.split("/")) if name not in ("", ".")]
    if path.startswith("/"):
        raise OSError(errno.EXDEV, "it is an absolute path")
    parents = [os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)]
    links = 0
    try:
        while names:
            name = names.pop()
            if name == "..":
                if len(parents) == 1:
                    raise OSError(errno.EXDEV, "it leads out of the context")
                os.close(parents.pop())
                continue
            kind = os.lstat(name, dir_fd=parents[-1]).st_mode
            if stat.S_ISLNK(kind):
                links += 1
                target = os.readlink(name, dir_fd=parents[-1])
                if links > _LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                if target.startswith("/"):
                    raise OSError(errno.EXDEV, "a link leads out of the context")
                names += [part for part in reversed(target.split("/")) if part not in ("", ".")]
            elif names:
                parents.append(os.open(name, _DIRECTORY, dir_fd=parents[-1]))
            else:
                return _content(os.open(name, _FILE | os.O_NOFOLLOW, dir_fd=parents[-1]), False)
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
    finally:
        for descriptor in parents:
            os.close(descriptor)


def _content(descriptor: int, stream: bool) -> bytes:
    with open(descriptor, "rb") as file:
        kind = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(kind):
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not stat.S_ISREG(kind) and not (stream and not stat.S_ISBLK(kind)):
            raise OSError(errno.EINVAL, "it is not a regular file")
        data = file.read(LIMIT + 1)
    if len(data) > LIMIT:
        raise OSError(errno.EFBIG, f"it has more than {LIMIT >> 20} MiB")
    return data
