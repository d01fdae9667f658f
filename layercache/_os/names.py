"""Names of entries, checked by the functions that open them.

Names come from layers, caches and contexts. Wherever one is handed to the system with the
descriptor of a directory, this is asked first: no name leads out of that directory.
"""

from __future__ import annotations

import errno

__all__ = ["checked_name", "checked_path", "parted"]

_NOWHERE = frozenset({b"", b".", b".."})


def checked_name(name: bytes) -> bytes:
    """`name`, if it is the name of one entry of a directory.

    Raises `OSError` (EINVAL) for an empty name, `.`, `..`, and what holds a slash or NUL.
    """
    if name in _NOWHERE or b"/" in name or b"\0" in name:
        raise OSError(errno.EINVAL, f"{name!r} is not the name of an entry of a directory")
    return name


def parted(path: bytes) -> tuple[bytes, bytes]:
    """The directory above `path` and the checked name in it; the directory is "" for the top.

    Raises `OSError` (EINVAL) for an absolute path and as `checked_name`.
    """
    parent, slash, name = path.rpartition(b"/")
    if slash and not parent:
        raise OSError(errno.EINVAL, f"{path!r} is not the name of an entry of a directory")
    return parent, checked_name(name)


def checked_path(path: bytes) -> bytes:
    """`path`, if it is relative and each of its parts is the name of one entry.

    For paths that are joined to a directory that nobody else writes to; what is opened by
    descriptor checks name by name. Raises `OSError` (EINVAL).
    """
    if b"\0" in path or not _NOWHERE.isdisjoint(path.split(b"/")):
        raise OSError(errno.EINVAL, f"{path!r} does not stay below a directory")
    return path
