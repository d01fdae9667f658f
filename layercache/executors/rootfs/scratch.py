"""The scratch directory: its contents, their owners, and its clean-up.

    unpacked/   layers as directories, for all builds    owners/   a lock for each running build
    caches/     contents of cache mounts                 work/     one directory for each step
    inputs/     contexts that are mounted                trash/    entries to be deleted

A build holds the lock of one owner number, and so do its helper process and every step, so a
free lock means that nothing of that build is left. Names in `work`, `inputs` and `trash` begin
with the owner's number; whoever finds a lock free may delete the entries with its number. Lock
files are never deleted; there are as many as builds have run at once.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import threading
from collections.abc import Callable, Iterator

from layercache._os.filelock import locked
from layercache.errors import BuildError

__all__ = ["Scratch"]

_OWNED = ("work", "inputs", "trash")
_MAX_OWNERS = 4096


class Scratch:
    """One build's hold on a scratch directory. Safe for threads.

    Leftovers of killed builds are deleted on opening. Raises `BuildError` if the directory can't be
    used.
    """

    def __init__(self, directory: str) -> None:
        self.directory = os.path.realpath(directory)
        self._lock = threading.Lock()
        self._count = 0
        self.discarded: Callable[[str], None] | None = None
        """Told the path of everything that is put away."""
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
                if os.path.islink(self.path(name)):
                    raise BuildError(
                        f"{self.path(name)} is a symbolic link, and clearing it would clear what "
                        "it points to: remove the link"
                    )
                if os.stat(self.path(name)).st_uid != os.geteuid():
                    raise BuildError(
                        f"{self.path(name)} belongs to another user, who could change what "
                        "commands run on: remove it, or name a scratch directory of your own"
                    )
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
        """Leftovers of builds that are over: those with this build's own number, and with unused
        numbers.

        `places` are the directories to search, all by default.
        """
        found: dict[int, list[str]] = {}
        for place in places or _OWNED:
            for name in os.listdir(self.path(place)):
                number = name.partition("-")[0]
                if number.isascii() and number.isdigit():
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
        """Whether no other build uses the directory; none can start while the context lasts."""
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
        """A unique path in `place`, not created yet."""
        with self._lock:
            self._count += 1
            return self.path(place, f"{self.owner}-{self._count}")

    def new(self, place: str = "work") -> str:
        """A new directory of this build's own."""
        path = self.name(place)
        os.mkdir(path, 0o700)
        return path

    def discard(self, path: str, *, unless: Callable[[], bool] | None = None) -> None:
        """Move `path` to the trash, to be deleted at the latest when the build ends.

        With `unless`, which is called while no other build discards, only if it returns False, so
        that the decision and the move refer to the same state.
        """
        trash = self.name("trash")
        try:
            if unless is None:
                os.rename(path, trash)
            else:
                with locked(self.path("owners", "discard")):
                    if unless():
                        return
                    os.rename(path, trash)
        except FileNotFoundError:
            return
        if self.discarded is not None:
            self.discarded(trash)

    def close(self) -> None:
        """Release the directory; this build's entries must be deleted before."""
        os.close(self._use)
        os.close(self.held)
