"""Contents of cache mounts: directories that outlive builds and never count in keys.

    caches/<digest of trust, id, owner, mode, start>/<n>        a directory that is mounted
    caches/<digest ...>/<n>.lock                                the lock of its user

As in BuildKit, mounts that differ in owner, mode or initial content have different caches, because
they could not use each other's. `shared`: all use number 0 at once. `locked`: number 0, one after
the other. `private`: the first number that is not in use.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import threading
import time
from collections.abc import Callable
from typing import Protocol, runtime_checkable
from weakref import WeakKeyDictionary

from blake3 import blake3

from layercache._base.classes import frozen
from layercache.errors import BuildError, Cancelled
from layercache.executors.rootfs.cache_listing import KeptCacheMount, describe
from layercache.executors.rootfs.scratch import Scratch
from layercache.model.digests import Fingerprint
from layercache.model.framing import frame
from layercache.model.operations import Mount

__all__ = ["CacheDirectory", "Caches"]

_WAIT_SECONDS = 0.05
_MAX_PRIVATE = 1000


@frozen
class CacheDirectory:
    """A mounted directory, and the lock that a step holds on it."""

    path: str
    lock: int
    new: bool = False
    """Whether it was made just now."""

    @property
    def times(self) -> str:
        """The file with the times that steps were shown for this cache (`mount_times`)."""
        return self.path + ".times"


@runtime_checkable
class KnowsBuild(Protocol):
    """Optional for a `Blobs`: tells the steps of one build from those of others."""

    @property
    def build(self) -> object:
        """One object for all steps of one build."""


class Caches:
    """The cache directories of a scratch directory, for one trust domain."""

    def __init__(self, scratch: Scratch, trust: str) -> None:
        self._scratch = scratch
        self._trust = trust
        self._guard = threading.Lock()
        self._emptied: WeakKeyDictionary[object, dict[str, int]] = WeakKeyDictionary()
        """Build → place → the number that it emptied there."""

    def place(self, mount: Mount, start: Fingerprint | None) -> str:
        """The directory that holds the numbered ones; `start` is the digest of the initial
        content.
        """
        identity = (
            self._trust, mount.id or mount.target, mount.mode, mount.uid, mount.gid, start,
        )  # fmt: skip
        return self._scratch.path("caches", blake3(frame(identity)).hexdigest()[:40])

    def acquire(
        self,
        mount: Mount,
        start: Fingerprint | None,
        *,
        empty: bool,
        build: object = None,
        fill: Callable[[str], None],
        cancelled: Callable[[], bool],
    ) -> CacheDirectory:
        """The directory for one mount, locked; waits if another step must end first.

        `fill` puts the initial content into a new, empty directory. `empty` requests a new
        directory in place of the existing one; among the steps of one `build`, only the first such
        request gets a new directory, and the others get the directory that it left. Raises
        `Cancelled`. The caller closes the lock.
        """
        place = self.place(mount, start)
        os.makedirs(place, mode=0o700, exist_ok=True)
        emptied = None
        with self._guard:
            if build is not None and mount.sharing != "private":
                emptied = self._emptied.get(build, {}).get(place)
            if emptied is None and (empty or mount.sharing == "private"):
                number, lock = self._first_free(place)
                if empty and build is not None:
                    self._emptied.setdefault(build, {})[place] = number
                emptied = -1
        if emptied == -1:
            pass
        else:
            empty = False
            number = emptied or 0
            lock = self._wait_for(place, number, mount.sharing, cancelled)
        path = os.path.join(place, str(number))
        try:
            describe(place, mount.id or mount.target)
            os.utime(lock)  # says when it was used last
            if empty:
                self._scratch.discard(path)
            new = self._make(path, fill)
            if mount.sharing == "shared" and not empty:
                fcntl.flock(lock, fcntl.LOCK_SH)
        except BaseException:
            os.close(lock)
            raise
        return CacheDirectory(path, lock, new)

    def prune(self) -> int:
        """Discard all caches of every trust domain; returns their number.

        Only while no step runs and no other build uses the directory.
        """
        names = os.listdir(self._scratch.path("caches"))
        for name in names:
            self._scratch.discard(self._scratch.path("caches", name))
        return len(names)

    def discard(self, cache: KeptCacheMount) -> bool:
        """Discard one cache with all that is known of it; False if a step uses it."""
        place = self._scratch.path("caches", cache.place)
        try:
            lock = self._open(place, cache.number)
        except FileNotFoundError:
            return False  # gone already
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        else:
            path = os.path.join(place, str(cache.number))
            self._scratch.discard(path)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path + ".times")
            return True
        finally:
            os.close(lock)

    def alone(self, found: CacheDirectory) -> tuple[int, bool]:
        """A further lock, and whether no other step uses the directory; the caller holds the lock
        as long as the directory is used, and closes it.
        """
        lock = os.open(found.path + ".use", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fcntl.flock(lock, fcntl.LOCK_SH)
            return lock, False
        return lock, True

    def _make(self, path: str, fill: Callable[[str], None]) -> bool:
        """Create the directory if it is missing, completely or not at all; returns whether it
        was created.
        """
        if os.path.isdir(path):
            return False
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path + ".times")
        work = self._scratch.new()
        try:
            fill(work)
            os.rename(work, path)
        except OSError as error:
            self._scratch.discard(work)
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST) and os.path.isdir(path):
                return False
            raise BuildError(f"a cache mount can't be made: {error.strerror}") from error
        except BaseException:
            self._scratch.discard(work)
            raise
        return True

    def _open(self, place: str, number: int) -> int:
        path = os.path.join(place, f"{number}.lock")
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def _first_free(self, place: str) -> tuple[int, int]:
        for number in range(_MAX_PRIVATE):
            lock = self._open(place, number)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return number, lock
            except BlockingIOError:
                os.close(lock)
        raise BuildError(f"more than {_MAX_PRIVATE} steps use one cache mount at once")

    def _wait_for(
        self, place: str, number: int, sharing: str, cancelled: Callable[[], bool]
    ) -> int:
        lock = self._open(place, number)
        try:
            while True:
                # The first step creates the directory, and holds it exclusively until then.
                alone = sharing == "locked" or not os.path.isdir(os.path.join(place, str(number)))
                kind = fcntl.LOCK_EX if alone else fcntl.LOCK_SH
                try:
                    fcntl.flock(lock, kind | fcntl.LOCK_NB)
                    return lock
                except BlockingIOError:
                    if cancelled():
                        raise Cancelled("cancelled while waiting for a cache mount") from None
                    time.sleep(_WAIT_SECONDS)
        except BaseException:
            os.close(lock)
            raise
