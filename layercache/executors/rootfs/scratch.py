"""The scratch directory: what is below it, whose it is, and how it gets empty again.

    unpacked/   layers as directories, for all builds    owners/   a lock for each build that runs
    caches/     contents of cache mounts                 work/     one directory for each step
    inputs/     contexts that are mounted                trash/    what is to be deleted

A build holds the lock of one owner number, and so do its helper process and every step, so a
free lock tells that nothing of that build is left. Names in `work`, `inputs` and `trash` begin
with the owner's number; whoever finds a lock free may delete what bears its number. Lock files
are never deleted; there are as many as builds have run at once.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import threading
from collections.abc import Callable, Iterator

from layercache.errors import BuildError
from layercache.locks import locked

__all__ = ["Scratch", "delete_tree"]

_OWNED = ("work", "inputs", "trash")
_MAX_OWNERS = 4096


class Scratch:
    """One build's hold on a scratch directory. Safe for threads.

    What builds that were killed left behind is deleted on opening. Raises `BuildError` when the
    directory can't be used.
    """

    def __init__(self, directory: str) -> None:
        self.directory = os.path.realpath(directory)
        self._lock = threading.Lock()
        self._count = 0
        try:
            os.makedirs(self.directory, exist_ok=True)
            if os.stat(self.directory).st_uid != os.geteuid():
                raise BuildError(
                    f"the scratch directory {self.directory} belongs to another user: name one "
                    "of your own"
                )
            for name in ("owners", "unpacked", "caches", *_OWNED):
                # Unpacked images hold setuid programs and other users' files: ours alone.
                os.makedirs(self.path(name), mode=0o700, exist_ok=True)
            self.owner, self.held = self._take()
            self._use = self._open_lock("use")
            fcntl.flock(self._use, fcntl.LOCK_SH)
        except OSError as error:
            raise BuildError(
                f"the scratch directory {self.directory} can't be used: {error.strerror}"
            ) from error

    def path(self, *names: str) -> str:
        """A path below the directory."""
        return os.path.join(self.directory, *names)

    # -- owners -----------------------------------------------------------------------------

    def _take(self) -> tuple[int, int]:
        """The first free owner number, and its lock."""
        for number in range(_MAX_OWNERS):
            fd = self._try(number)
            if fd is not None:
                return number, fd
        raise BuildError(f"more than {_MAX_OWNERS} builds use {self.directory} at once")

    def _open_lock(self, name: str) -> int:
        return os.open(self.path("owners", name), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def _try(self, number: int) -> int | None:
        fd = self._open_lock(str(number))
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(fd)
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                return None
            raise
        return fd

    def leftovers(self, *places: str) -> Iterator[str]:
        """What builds left that are over: of this build's own number, and numbers not in use.

        `places` are the directories to look in, all by default.
        """
        found: dict[int, list[str]] = {}
        for place in places or _OWNED:
            for name in os.listdir(self.path(place)):
                number = name.partition("-")[0]
                if number.isdigit():
                    found.setdefault(int(number), []).append(self.path(place, name))
        for owner, paths in found.items():
            fd = None
            if owner != self.owner:
                fd = self._try(owner)
                if fd is None:
                    continue
            yield from paths
            if fd is not None:
                os.close(fd)

    @contextlib.contextmanager
    def alone(self) -> Iterator[bool]:
        """Whether no other build uses the directory; none begins to while the context lasts."""
        try:
            fcntl.flock(self._use, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            # A failed change of a lock may have given it up (flock(2)).
            fcntl.flock(self._use, fcntl.LOCK_SH)
            yield False
            return
        try:
            yield True
        finally:
            fcntl.flock(self._use, fcntl.LOCK_SH)

    # -- directories ------------------------------------------------------------------------

    def name(self, place: str) -> str:
        """A path in `place` that nobody has, not made yet."""
        with self._lock:
            self._count += 1
            return self.path(place, f"{self.owner}-{self._count}")

    def new(self, place: str = "work") -> str:
        """A new directory of this build's own."""
        path = self.name(place)
        os.mkdir(path, 0o700)
        return path

    def discard(self, path: str, *, unless: Callable[[], bool] | None = None) -> None:
        """Put what is at `path` away, to be deleted when the build ends.

        With `unless`, which is asked while no other build discards, only when it is false: what
        is judged and what is put away are then the same.
        """
        try:
            if unless is None:
                os.rename(path, self.name("trash"))
                return
            with locked(self.path("owners", "discard")):
                if not unless():
                    os.rename(path, self.name("trash"))
        except FileNotFoundError:
            pass

    def close(self) -> None:
        """Let go of the directory; what was this build's must be deleted before."""
        os.close(self._use)
        os.close(self.held)


def delete_tree(path: str) -> None:
    """Delete `path` with everything in it; following no link, however deep it is.

    Raises `OSError` at the first thing that stays.
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
    """Delete what is no directory; the name of a directory in it, None when there is none."""
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
