"""Detection of changes to an unpacked layer since it was made.

The seal is a digest of the `lstat` data of every path: type, mode, owner, size, change time. Only
the kernel sets the change time, so every edit, deletion or addition breaks the seal.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator
from typing import Final

from blake3 import blake3

__all__ = ["damaged_copies", "is_sealed", "seal_of", "write_seal"]

_CONTEXT: Final = "layercache 2026-11 seal of an unpacked layer 1"
_ROW: Final = struct.Struct("<IIIQqqQ")


def seal_of(directory: str) -> bytes:
    """The seal of a directory in its present state. Raises `OSError`.

    Below a directory that this user may not list (another user's in a user namespace), only the
    directory itself counts.
    """
    hasher = blake3(derive_key_context=_CONTEXT)
    todo = [directory]
    hasher.update(_row(os.lstat(directory)))
    while todo:
        here = todo.pop()
        parts = []
        for name, status in _entries(here):
            parts.append(_row(status) + os.fsencode(name) + b"\0")
            if stat.S_ISDIR(status.st_mode):
                todo.append(os.path.join(here, name))
        hasher.update(struct.pack("<Q", len(parts)) + b"".join(parts))
    return hasher.digest()


def _entries(directory: str) -> Iterator[tuple[str, os.stat_result]]:
    try:
        with os.scandir(directory) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
            for entry in found:
                yield entry.name, entry.stat(follow_symlinks=False)
    except PermissionError:
        return


def _row(status: os.stat_result) -> bytes:
    return _ROW.pack(
        status.st_mode,
        status.st_uid,
        status.st_gid,
        0 if stat.S_ISDIR(status.st_mode) else status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
        status.st_rdev,
    )


def write_seal(path: str) -> None:
    """Seal the complete copy at `path`/fs; raises `OSError`."""
    with open(os.path.join(path, "seal"), "wb") as file:
        file.write(seal_of(os.path.join(path, "fs")))


def is_sealed(path: str) -> bool:
    """Whether `path`/fs is unchanged since it was sealed."""
    try:
        with open(os.path.join(path, "seal"), "rb") as file:
            said = file.read(64)
        return said == seal_of(os.path.join(path, "fs"))
    except OSError:
        return False


def damaged_copies(scratch: str) -> list[str]:
    """The paths of unpacked copies in a scratch directory that are marked complete but have
    changed.
    """
    place = os.path.join(scratch, "unpacked")
    try:
        names = sorted(os.listdir(place))
    except (FileNotFoundError, NotADirectoryError):
        return []
    paths = [os.path.join(place, name) for name in names]
    claims = [path for path in paths if os.path.isfile(os.path.join(path, "state"))]
    return [path for path in claims if not is_sealed(path)]
