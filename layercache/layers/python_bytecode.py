"""Conversion of `.pyc` files that refer to the time of their source into hash-based ones.

Times in a layer are not those at which a command compiled: Python would find a mismatch and compile
everything again at every start, and two runs would give different bytes. So a file that matched
its source when the step ended becomes the file that Python itself writes under SOURCE_DATE_EPOCH:
one with the hash of its source, which is checked (PEP 552).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from typing import Final

__all__ = ["check_by_hash", "source_of"]

_HEADER: Final = 16
_CHECKED_HASH: Final = (3).to_bytes(4, "little")
_FIRST: Final = 3495
"""Python 3.11: since then sources are hashed as this Python does."""
_END: Final = 4000
"""No Python has a greater magic number."""
_MAX_SOURCE: Final = 16 << 20
_DIRECTORY: Final = b"__pycache__"


def source_of(path: bytes) -> bytes | None:
    """The name of the source of a file in `__pycache__`; None for other files."""
    directory, _, name = path.rpartition(b"/")
    if not name.endswith(b".pyc") or directory.rpartition(b"/")[2] != _DIRECTORY:
        return None
    return name.partition(b".")[0] + b".py"


def check_by_hash(
    name: bytes, directory: int, source: bytes, beside: Mapping[bytes, os.stat_result]
) -> bool:
    """Convert the file `name` of the open directory if it matches its source by time and size.

    `beside` is the content of the directory above when the step ended, which holds the source.
    Size and times of the file are unchanged. Returns whether it was converted.
    """
    found = beside.get(source)
    if found is None or not stat.S_ISREG(found.st_mode) or found.st_size > _MAX_SOURCE:
        return False
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(name, flags, dir_fd=directory)
    try:
        head = os.read(descriptor, _HEADER)
        before = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    magic = int.from_bytes(head[:2], "little")
    seconds = (found.st_mtime_ns // 10**9 & 0xFFFFFFFF).to_bytes(4, "little")
    size = (found.st_size & 0xFFFFFFFF).to_bytes(4, "little")
    if len(head) < _HEADER or head[4:] != bytes(4) + seconds + size or not _FIRST <= magic < _END:
        return False
    # The open directory was reached through no link, and neither is the one above it.
    with open(os.open(b"../" + source, flags, dir_fd=directory), "rb") as file:
        text = file.read()
    from _imp import source_hash

    digest = source_hash(int.from_bytes(head[:4], "little"), text)
    descriptor = os.open(name, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        os.pwrite(descriptor, _CHECKED_HASH + digest, 4)
        os.utime(descriptor, ns=(before.st_atime_ns, before.st_mtime_ns))
    finally:
        os.close(descriptor)
    return True
