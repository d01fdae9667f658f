"""Files that become visible only when complete and durable."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import sys
from collections.abc import Iterator
from typing import BinaryIO, Final

from layercache._os.durability import sync_directory
from layercache.errors import UsageError

__all__ = ["UNFINISHED", "atomic_file"]

UNFINISHED: Final = ".layercache-"
"""Prefix of the names of unfinished files, including those that a killed process left."""

_FILE_MODE: Final = 0o644


@contextlib.contextmanager
def atomic_file(path: str, *, follow: bool = True) -> Iterator[BinaryIO]:
    """A file that gets the name `path`, synced, when the body ends; "-" is standard output.

    A path that is a device or a pipe is written to directly.
    """
    if path == "-" and follow:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    where = os.path.dirname(os.path.abspath(path))
    os.makedirs(where, exist_ok=True)
    if os.path.isdir(path) and (follow or not os.path.islink(path)):
        raise UsageError(f"the output {path} is a directory; name a file (or give tar=false)")
    if follow and os.path.exists(path) and not stat.S_ISREG(os.stat(path).st_mode):
        with open(path, "wb") as out:
            yield out
        return
    path = os.path.realpath(path) if follow else os.path.abspath(path)
    temporary = os.path.join(os.path.dirname(path), UNFINISHED + secrets.token_hex(8))
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, _FILE_MODE)
    try:
        with open(descriptor, "wb") as out:
            yield out
            out.flush()
            os.fsync(out.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    sync_directory(os.path.dirname(path))
