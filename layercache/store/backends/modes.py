"""Permission modes of a cache directory's files: for the users who may write the directory.

A directory that only its owner may write to is private, and so are its files: layers hold files
that the image protects from other users. A directory that is shared on purpose shows it by its own
mode: group-writable or with the set-group-ID bit for the group; world-writable for all.
"""

from __future__ import annotations

import errno
import os
import stat

from layercache._base.classes import frozen

__all__ = ["PRIVATE", "Modes", "make_shared", "modes_of"]


@frozen
class Modes:
    """The modes of new directories, objects (which never change) and lock files."""

    directory: int
    file: int
    lock: int


PRIVATE = Modes(0o700, 0o400, 0o600)


def modes_of(directory: str) -> Modes:
    """The modes for new files in the cache `directory`; private if it does not exist yet."""
    try:
        mode = os.stat(directory).st_mode
    except OSError:
        return PRIVATE
    shared = 0o070 if mode & (stat.S_IWGRP | stat.S_ISGID) else 0
    shared |= 0o007 if mode & stat.S_IWOTH else 0
    group = stat.S_ISGID if mode & stat.S_ISGID else 0
    return Modes(
        PRIVATE.directory | shared | group,
        PRIVATE.file | shared & 0o044,
        PRIVATE.lock | shared & 0o066,
    )


def make_shared(root: str, path: str) -> list[str]:
    """Make what is missing of `path`, which is `root` or below; those made, the highest first.

    `root` is private when it is made here. Raises `OSError`, also where a link is in the way.
    """
    made = []
    if not os.path.isdir(root):
        os.makedirs(os.path.dirname(root), exist_ok=True)
        if _make(root, PRIVATE.directory):
            made.append(root)
    modes = modes_of(root)
    rest = os.path.relpath(path, root) if path != root else ""
    for part in rest.split(os.sep) if rest else ():
        root = os.path.join(root, part)
        if _make(root, modes.directory):
            made.append(root)
    return made


def _make(path: str, mode: int) -> bool:
    try:
        os.mkdir(path, mode)
    except FileExistsError:
        if not stat.S_ISDIR(os.lstat(path).st_mode):
            said = "a link or a file is in the way"
            raise NotADirectoryError(errno.ENOTDIR, said, path) from None
        return False
    if mode != PRIVATE.directory:
        os.chmod(path, mode)  # whatever the umask is
    return True
