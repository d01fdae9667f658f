"""A lock on a file. The system releases it when its holder dies; the file is never removed."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

__all__ = ["locked"]


@contextlib.contextmanager
def locked(path: str, *, wait: bool = True) -> Iterator[bool]:
    """Hold the exclusive lock of `path`, also against other threads of this process.

    Yields whether the lock is held: without `wait`, it is not held if another holder has it.
    """
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
    # Anyone who can open the file can make others wait.
    descriptor = os.open(path, flags, 0o600)
    try:
        if sys.platform == "win32":
            import msvcrt

            held = False
            while not held:
                try:
                    msvcrt.locking(descriptor, msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)
                    held = True
                except OSError:
                    if not wait:
                        break
                    continue  # LK_LOCK gives up after ten seconds, but the caller wants to wait
        else:
            import fcntl

            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
                held = True
            except BlockingIOError:
                held = False
        yield held
    finally:
        os.close(descriptor)
