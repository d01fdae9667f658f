"""Deletion of directories that commands left: any depth, any permissions, no link followed.

Removing a directory mostly waits for the file system, so it runs in the background.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections import deque

__all__ = ["Deleter", "delete_tree"]

_IDLE_SECONDS = 5.0


class Deleter:
    """Deletes directories in a thread of its own, which ends when there is nothing to do."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._paths: deque[str] = deque()
        self._busy = 0
        self._thread: threading.Thread | None = None
        self._error: OSError | None = None

    def delete(self, path: str) -> None:
        """Schedule the deletion of `path`."""
        with self._changed:
            self._paths.append(path)
            self._changed.notify_all()
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="layercache-delete", daemon=True
                )
                try:
                    self._thread.start()
                except RuntimeError:
                    self._thread = None  # the interpreter is ending: `drain` does it

    def drain(self) -> None:
        """Return when everything is deleted; raises the first `OSError` that occurred."""
        while self._take():
            pass
        with self._changed:
            self._changed.wait_for(lambda: not self._busy)
            error, self._error = self._error, None
        if error is not None:
            raise error

    def _take(self) -> bool:
        """Delete one directory; False if there is none."""
        with self._changed:
            if not self._paths:
                return False
            path = self._paths.popleft()
            self._busy += 1
        try:
            delete_tree(path)
        except OSError as error:
            with self._changed:
                self._error = self._error or error
        finally:
            with self._changed:
                self._busy -= 1
                self._changed.notify_all()
        return True

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._changed.wait_for(lambda: bool(self._paths), _IDLE_SECONDS):
                    self._thread = None
                    return
            self._take()


def delete_tree(path: str) -> None:
    """Delete `path` with everything in it, at any depth, following no link.

    Raises `OSError` at the first entry that can't be deleted.
    """
    try:
        parent = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        _delete(parent, os.path.basename(path))
    finally:
        os.close(parent)


def _delete(parent: int, name: str) -> None:
    try:
        os.unlink(name, dir_fd=parent)
        return
    except FileNotFoundError:
        return
    except (IsADirectoryError, PermissionError):
        if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
            raise
    # A stack of open directories, not recursion: a command may nest as deep as it likes. The
    # descriptors of the upper ones are given up and found again through "..".
    stack = [name]
    here = _open_directory(parent, name)
    try:
        while stack:
            inner = _clear(here)
            if inner is not None:
                stack.append(inner)
                below = _open_directory(here, inner)
                os.close(here)
                here = below
                continue
            done = stack.pop()
            above = os.open("..", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=here)
            os.close(here)
            here = above
            os.rmdir(done, dir_fd=here)
    finally:
        os.close(here)


def _open_directory(parent: int, name: str) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(name, flags, dir_fd=parent)
    except PermissionError:
        os.chmod(name, 0o700, dir_fd=parent)
        fd = os.open(name, flags, dir_fd=parent)
    if os.fstat(fd).st_mode & 0o700 != 0o700:
        os.fchmod(fd, 0o700)  # without root, entries can't be deleted otherwise
    return fd


def _clear(directory: int) -> str | None:
    """Delete everything but directories; returns the name of one directory in it, or None."""
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                try:
                    os.rmdir(entry.name, dir_fd=directory)
                except OSError as error:
                    if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.EACCES):
                        raise
                    return entry.name
            else:
                os.unlink(entry.name, dir_fd=directory)
    return None
