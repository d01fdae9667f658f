"""Files that become visible whole, and durable."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import sys
from collections.abc import Iterator
from typing import BinaryIO, Final

from layercache.errors import UsageError

__all__ = ["atomic_file", "sync_directory"]

_FILE_MODE: Final = 0o644


@contextlib.contextmanager
def atomic_file(path: str) -> Iterator[BinaryIO]:
    """A file that takes the name `path`, synced, once the body is done; "-" is standard output.

    A path that is a device or a pipe is written to directly.
    """
    if path == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    where = os.path.dirname(os.path.abspath(path))
    os.makedirs(where, exist_ok=True)
    if os.path.isdir(path):
        raise UsageError(f"the output {path} is a directory; name a file (or give tar=false)")
    if os.path.exists(path) and not stat.S_ISREG(os.stat(path).st_mode):
        with open(path, "wb") as out:
            yield out
        return
    path = os.path.realpath(path)
    temporary = os.path.join(os.path.dirname(path), f".layercache-{secrets.token_hex(8)}")
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


def sync_directory(path: str) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
