"""Locks between threads and processes of one machine, which the kernel releases with their holder.

On Linux one file with open-file-description locks on single bytes, so that any number of names
needs one file and two names hardly ever collide; elsewhere `flock` on a bounded set of files. No
lock file is ever removed: that would let two holders in.
"""

from __future__ import annotations

import errno
import os
import struct
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from layercache.errors import CacheError
from layercache.store.backends.modes import PRIVATE, Modes, make_shared

__all__ = ["RangeHolds", "RangeLocks", "offset_of"]

_LAST: Final = (1 << 62) - 1
_STRIPES: Final = 64
_FLOCK: Final = struct.Struct("hhqqi4x")  # l_type, l_whence, l_start, l_len, l_pid (64-bit Linux)
_MOST_HOLDS: Final = 2048
"""The kernel walks a list of them; from here on one hold on everything serves better."""

_NOFOLLOW: Final[int] = getattr(os, "O_NOFOLLOW", 0)
_LONGEST_HOLD: Final = 60.0
"""Seconds that a build waits for a collection before it says so and goes on."""

_FIRST_WAIT: Final = 0.001
_LONGEST_WAIT: Final = 0.05


def offset_of(name: str) -> int:
    """The byte that stands for `name`: a digest, so that names spread evenly."""
    from blake3 import blake3

    return int.from_bytes(blake3(name.encode()).digest(8), "little") & _LAST


class RangeLocks:
    """Exclusive locks by name, kept in `directory`, which is made when it can be."""

    def __init__(self, directory: str, modes: Callable[[], Modes] = lambda: PRIVATE) -> None:
        self._directory = directory
        self._modes = modes

    @contextmanager
    def lock(self, name: str, give_up: Callable[[], bool] | None = None) -> Iterator[bool]:
        """Hold `name`; gives False, at once, where locks don't work (read-only, no support)."""
        offset = offset_of(name)
        fd = self._open(offset)
        try:
            yield fd >= 0 and _wait(fd, offset, give_up)
        finally:
            if fd >= 0:
                # Unlocked by name: a child that was forked meanwhile shares the description.
                _unlock(fd, offset)
                os.close(fd)

    def _open(self, offset: int) -> int:
        name = "steps" if _ranges() else f"steps-{offset % _STRIPES:02d}"
        return _open_or_make(self._directory, name, self._modes())


class RangeHolds:
    """Shared locks by name, which keep a collection from removing objects that running builds use.

    Only with open-file-description locks; elsewhere holding has no effect, and a collection goes by
    age alone.
    """

    def __init__(self, directory: str, modes: Callable[[], Modes] = lambda: PRIVATE) -> None:
        self._directory = directory
        self._modes = modes
        self._guard = threading.Lock()
        self._owner = (0, -1)
        self._closer: Callable[[], object] | None = None
        self._held: set[str] = set()

    def hold(self, names: Iterable[str]) -> None:
        """Keep `names` from being seized; waits for a collection that has just seized one."""
        if not _ranges():
            return
        import fcntl

        with self._guard:
            fd = self._descriptor()
            for name in names:
                if fd < 0 or name in self._held:
                    continue
                everything = len(self._held) >= _MOST_HOLDS
                start, length = (0, 0) if everything else (offset_of(name), 1)
                if not everything or "" not in self._held:
                    block = _FLOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, start, length, 0)
                    try:
                        held = _within(fd, block, _LONGEST_HOLD)
                    except OSError:
                        return  # no locks on this file system: collections go by age
                    if not held:
                        raise CacheError(
                            f"a collection has {name} locked for {_LONGEST_HOLD:.0f} s in "
                            f"{os.path.dirname(self._directory)!r}; the build goes on without "
                            "holding it"
                        )
                if everything:
                    self._held.add("")
                self._held.add(name)

    def _descriptor(self) -> int:
        pid, fd = self._owner
        if pid == os.getpid():
            return fd
        # A forked child shares the parent's description: it must have one of its own.
        if self._closer is not None:
            self._closer()
        self._held.clear()
        path = os.path.join(self._directory, "holds")
        fd = _open_or_make(self._directory, "holds", self._modes())
        if fd < 0:
            try:
                fd = os.open(path, os.O_RDONLY | _NOFOLLOW)
            except OSError:
                fd = -1
        self._owner = (os.getpid(), fd)
        self._closer = weakref.finalize(self, os.close, fd) if fd >= 0 else None
        return fd

    def unhold(self) -> None:
        """End every hold of this object."""
        with self._guard:
            pid, fd = self._owner
            if pid == os.getpid() and fd >= 0:
                if self._held:
                    _unlock(fd, 0, 0)
                if self._closer is not None:
                    self._closer()
            self._owner = (0, -1)
            self._held.clear()

    @contextmanager
    def seize(self, names: Sequence[str]) -> Iterator[Sequence[str]]:
        """Those of `names` that nobody holds; nobody gets a hold on them meanwhile."""
        fd = _open_or_make(self._directory, "holds", self._modes())
        if fd < 0 or not _ranges():
            yield names
            return
        try:
            # The system goes through all locks for each new one: thousands take minutes. Where
            # nobody holds anything one lock does, and who begins meanwhile waits.
            if len(names) > _MOST_HOLDS and _seize(fd, 0, 0):
                yield names
            else:
                yield [name for name in names if _seize(fd, offset_of(name), 1)]
        finally:
            _unlock(fd, 0, 0)
            os.close(fd)


def _within(fd: int, block: bytes, seconds: float) -> bool:
    """Whether the lock was had within `seconds`; raises `OSError` where there are none."""
    import fcntl

    end = time.monotonic() + seconds
    pause = _FIRST_WAIT
    while True:
        try:
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, block)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
        else:
            return True
        if time.monotonic() >= end:
            return False
        time.sleep(pause)
        pause = min(pause * 2, _LONGEST_WAIT)


def _seize(fd: int, start: int, length: int) -> bool:
    """Whether nobody holds any of these bytes; then they are ours. `length` 0 is all from there."""
    import fcntl

    try:
        fcntl.fcntl(
            fd, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, start, length, 0)
        )
    except OSError as error:
        return error.errno not in (errno.EAGAIN, errno.EACCES)
    return True


def _open_or_make(directory: str, name: str, modes: Modes) -> int:
    path = os.path.join(directory, name)
    if os.path.islink(directory):
        return -1  # nothing is made elsewhere; without locks work is done twice at worst
    try:
        return _open_lock(path, modes)
    except FileNotFoundError:
        try:
            make_shared(os.path.dirname(directory), directory)
            return _open_lock(path, modes)
        except OSError:
            return -1
    except OSError:
        return -1


def _open_lock(path: str, modes: Modes) -> int:
    """A descriptor for locking. Whoever may open the file may make builds wait: it is for those
    who may write the cache anyway."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | _NOFOLLOW, modes.lock)
    if hasattr(os, "fchmod"):
        found = os.fstat(fd)
        if found.st_uid == os.geteuid() and found.st_mode & 0o777 != modes.lock:
            os.fchmod(fd, modes.lock)  # whatever the umask is, or an earlier version made it
    return fd


def _ranges() -> bool:
    if os.name != "posix":
        return False
    import fcntl

    return hasattr(fcntl, "F_OFD_SETLK") and sys.maxsize > 1 << 32


def _wait(fd: int, offset: int, give_up: Callable[[], bool] | None) -> bool:
    pause = _FIRST_WAIT
    while True:
        try:
            if _try(fd, offset, block=give_up is None):
                return True
        except OSError:
            return False  # the file system has no locks: work is done twice at worst
        if give_up is not None and give_up():
            return False
        time.sleep(pause)
        pause = min(pause * 2, _LONGEST_WAIT)


def _try(fd: int, offset: int, *, block: bool) -> bool:
    try:
        if os.name != "posix":
            import msvcrt

            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
            return True
        import fcntl

        if _ranges():
            command = fcntl.F_OFD_SETLKW if block else fcntl.F_OFD_SETLK
            fcntl.fcntl(fd, command, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, offset, 1, 0))
        else:
            fcntl.flock(fd, fcntl.LOCK_EX | (0 if block else fcntl.LOCK_NB))
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES, errno.EDEADLK):
            return False
        raise
    return True


def _unlock(fd: int, offset: int, length: int = 1) -> None:
    try:
        if os.name != "posix":
            import msvcrt

            msvcrt.locking(fd, msvcrt.LK_UNLCK, 1)  # type: ignore[attr-defined,unused-ignore]
        else:
            import fcntl

            if _ranges():
                fcntl.fcntl(
                    fd,
                    fcntl.F_OFD_SETLK,
                    _FLOCK.pack(fcntl.F_UNLCK, os.SEEK_SET, offset, length, 0),
                )
            else:
                fcntl.flock(fd, fcntl.LOCK_UN)
    except OSError:
        pass  # closing the file lets go as well
