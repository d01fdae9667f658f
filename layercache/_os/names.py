"""Names of directory entries, checked by the functions that open them.

Names come from layers, caches and contexts. Every name is checked here before it is passed to
the system with the descriptor of a directory, so that no name leads out of that directory.
"""

from __future__ import annotations

import errno

from layercache._base.paths import NOWHERE, stays_below

__all__ = ["checked_name", "checked_path", "parted"]


def checked_name(name: bytes) -> bytes:
    """`name`, if it is a valid name of one entry of a directory.

    Raises `OSError` (EINVAL) for an empty name, `.`, `..`, and names with a slash or NUL.
    """
    if name in NOWHERE or b"/" in name or b"\0" in name:
        raise OSError(errno.EINVAL, f"{name!r} is not the name of an entry of a directory")
    return name


def parted(path: bytes) -> tuple[bytes, bytes]:
    """The directory part of `path` and its last, checked name; the directory is "" for the top.

    Raises `OSError` (EINVAL) for an absolute path, and under the conditions of `checked_name`.
    """
    parent, slash, name = path.rpartition(b"/")
    if slash and not parent:
        raise OSError(errno.EINVAL, f"{path!r} is not the name of an entry of a directory")
    return parent, checked_name(name)


def checked_path(path: bytes) -> bytes:
    """`path`, if it is relative and each of its components is a valid name of an entry.

    For paths that are joined to a directory to which nobody else writes; code that opens by
    descriptor checks name by name. Raises `OSError` (EINVAL).
    """
    if not stays_below(path):
        raise OSError(errno.EINVAL, f"{path!r} does not stay below a directory")
    return path
