"""Making written files survive a power cut, with the calls of each platform."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Sequence

__all__ = ["boot_id", "sync_directory", "sync_file", "sync_filesystem"]


def sync_file(path: str) -> None:
    """Return once the bytes of the file are on the medium."""
    fd = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        _sync(fd)
    finally:
        os.close(fd)


def sync_directory(path: str) -> None:
    """Return once the names in the directory are on the medium."""
    if os.name != "posix":
        return  # Windows has no such call; its file systems journal names
    fd = os.open(path, os.O_RDONLY)
    try:
        _sync(fd)
    finally:
        os.close(fd)


def sync_filesystem(root_fd: int, written: Sequence[str]) -> None:
    """Return once everything written to the file system of `root_fd` is on the medium.

    One call on Linux (`syncfs`); on other systems each file of `written` and its directory.
    Raises `OSError` if anything written since `root_fd` was opened could not be stored
    (Linux 5.8 and later).
    """
    call = _syncfs()
    if call is not None:
        call(root_fd)
        return
    for path in written:
        if os.path.exists(path):
            sync_file(path)
    for directory in {os.path.dirname(path) for path in written}:
        sync_directory(directory)


def _sync(fd: int) -> None:
    if sys.platform == "darwin":
        import fcntl

        # On macOS fsync leaves the bytes in the drive's own cache (its manual says so).
        fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
    else:
        os.fsync(fd)


@functools.cache
def _syncfs():  # type: ignore[no-untyped-def]
    if not sys.platform.startswith("linux"):
        return None
    import ctypes

    try:
        function = ctypes.CDLL(None, use_errno=True).syncfs
    except (AttributeError, OSError):
        return None

    def call(fd: int) -> None:
        if function(fd) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    return call


@functools.cache
def boot_id() -> str | None:
    """An identifier of this start of this machine; None if the system provides none."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as source:
            text = source.read().strip().lower()
    except (OSError, ValueError):
        return None
    return text if text and set(text) <= set("0123456789abcdef-") else None
