"""A directory of this machine as a backend, by plain operating system calls.

Every object is one file, written to a temporary name and renamed into place. Readers never see a
partial one. `durability` determines when a written object survives a power cut:

- `full`: when the write returns (the file and its directory are synced);
- `batch`: when `sync` returns (one `syncfs` for everything written);
- `none`: when the operating system has written it back.
"""

from __future__ import annotations

import errno
import io
import os
import stat
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import BinaryIO, Final, NoReturn

from layercache.errors import CacheError, NotFound, UsageError
from layercache.store.backend import (
    Adopts,
    BatchReader,
    Cleans,
    Holds,
    InDirectory,
    LocalFiles,
    Locks,
    ObjectInfo,
    Releases,
    Stages,
    Stats,
    Syncs,
    Touches,
    check_name,
)
from layercache.store.backends.beneath import (
    Folders,
    files_below,
    replace_beneath,
    unlink_beneath,
)
from layercache.store.backends.modes import Modes, make_shared, modes_of
from layercache.store.backends.range_locks import RangeHolds, RangeLocks

__all__ = ["LocalBackend"]

DURABILITIES: Final = ("full", "batch", "none")
_COPY_SIZE: Final = 1 << 18
_SMALL: Final = 1 << 16
_LARGEST: Final = 1 << 30
"""Bytes: no object that is read at once comes near; what is longer is damaged."""
_BINARY: Final[int] = getattr(os, "O_BINARY", 0)
_NONBLOCK: Final[int] = getattr(os, "O_NONBLOCK", 0)
"""Opens a FIFO in the place of an object without waiting for a writer; it is then refused."""
_NOFOLLOW: Final[int] = getattr(os, "O_NOFOLLOW", 0)
_UNFINISHED: Final = 3600.0
_STAGED: Final = 7 * 86_400.0
_APART: Final = ("tmp", "staged", "locks")
"""Directories of the backend itself; no object is there."""


class LocalBackend(
    Adopts,
    BatchReader,
    Cleans,
    Holds,
    InDirectory,
    LocalFiles,
    Locks,
    Releases,
    Stages,
    Stats,
    Syncs,
    Touches,
):
    """Objects as files below `directory`, which is created at the first write.

    Any number of threads and processes may use one directory. It may be read-only or another
    user's: then reading works, and writing raises a `CacheError` with the reason.
    """

    def __init__(self, directory: str | os.PathLike[str], *, durability: str = "batch") -> None:
        if durability not in DURABILITIES:
            raise UsageError(f"durability is one of {', '.join(DURABILITIES)}, not {durability!r}")
        self.directory = os.path.abspath(os.path.expanduser(os.fspath(directory)))
        if os.path.exists(self.directory) and not os.path.isdir(self.directory):
            raise UsageError(f"the cache {self.directory!r} is not a directory")
        self.durability = durability
        self._root = self.directory + os.sep
        self._guard = threading.Lock()
        self._count = 0
        self._unsynced: list[str] = []
        self._folders = Folders(self._root)
        self._root_fd = -1
        self._closer: Callable[[], object] | None = None
        self._locks = RangeLocks(os.path.join(self.directory, "locks"), self._modes)
        self._holds = RangeHolds(os.path.join(self.directory, "locks"), self._modes)

    def __getstate__(self) -> dict[str, object]:
        return {"directory": self.directory, "durability": self.durability}

    def __setstate__(self, state: dict[str, str]) -> None:
        self.__init__(state["directory"], durability=state["durability"])  # type: ignore[misc]

    def __repr__(self) -> str:
        return f"LocalBackend({self.directory!r}, durability={self.durability!r})"

    def path(self, name: str) -> str:
        return self._root + check_name(name)

    def _modes(self) -> Modes:
        """What is made in the directory is for those whom its own mode lets in to write."""
        return modes_of(self.directory)

    # -- reading ------------------------------------------------------------------------------

    def read(self, name: str) -> BinaryIO:
        try:
            path = self.path(name)
            if self._folders.led_away(name.rpartition("/")[0]):
                raise NotADirectoryError(errno.ENOTDIR, "a link in the cache", path)
            return open(path, "rb", opener=_regular)
        except OSError as error:
            self._fail("read", name, error)

    def read_many(self, names: Sequence[str]) -> Mapping[str, bytes]:
        found = {}
        root, flags = self._root, os.O_RDONLY | _BINARY | _NONBLOCK | _NOFOLLOW
        for name in names:
            try:
                if self._folders.led_away(check_name(name).rpartition("/")[0]):
                    continue
                fd = os.open(root + name, flags)
            except OSError:
                continue
            try:
                data = os.read(fd, _SMALL)
                if len(data) == _SMALL:
                    data = _read_rest(fd, data)
            except OSError:
                continue
            finally:
                os.close(fd)
            found[name] = data
        return found

    def stat(self, name: str) -> ObjectInfo | None:
        try:
            status = os.lstat(self._root + check_name(name))
        except OSError:
            return None
        if stat.S_ISLNK(status.st_mode) or self._folders.led_away(name.rpartition("/")[0]):
            return None
        return ObjectInfo(name, status.st_size, status.st_mtime)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        folder = prefix.rpartition("/")[0]
        if folder:
            check_name(folder)
        for name, status in files_below(self._root, folder, skip=() if folder else _APART):
            if name.startswith(prefix):
                yield ObjectInfo(name, status.st_size, status.st_mtime)

    # -- writing ------------------------------------------------------------------------------

    def write(self, name: str, content: BinaryIO) -> None:
        check_name(name)
        temporary = os.path.join(self.spool(), self._unique())
        try:
            mode = self._modes().file
            with open(temporary, "xb", buffering=0, opener=_read_only_file) as out:
                _share(out.fileno(), mode)
                while chunk := content.read(_COPY_SIZE):
                    _write_all(out.fileno(), chunk)
            self._install(temporary, name)
        except OSError as error:
            _discard(temporary)
            self._fail("write", name, error)
        except BaseException:
            _discard(temporary)
            raise

    def delete(self, name: str) -> None:
        try:
            unlink_beneath(self.directory, check_name(name))
        except (FileNotFoundError, NotADirectoryError):
            pass
        except OSError as error:
            self._fail("delete", name, error)

    def touch(self, names: Iterable[str]) -> None:
        for name in names:
            if self._folders.led_away(name.rpartition("/")[0]):
                continue
            try:
                os.utime(self.path(name), follow_symlinks=False)
            except (FileNotFoundError, NotADirectoryError):
                continue
            except PermissionError:
                return  # another user's or read-only: its owner keeps it alive
            except OSError as error:
                self._fail("touch", name, error)

    def spool(self) -> str:
        directory = os.path.join(self.directory, "tmp")
        if self._root_fd < 0 or not os.path.isdir(directory):
            self._begin_writing(directory)
        return directory

    def adopt(self, path: str, name: str) -> bool:
        try:
            status = os.lstat(path)
            if status.st_dev != os.stat(self.spool()).st_dev or status.st_nlink != 1:
                return False
            os.chmod(path, self._modes().file)
            self._install(path, check_name(name))
        except OSError as error:
            if error.errno == errno.EXDEV:
                return False  # two mounts of one file system: its number says nothing
            self._fail("write", name, error)
        return True

    def _unique(self) -> str:
        """A file name that nobody else uses."""
        with self._guard:
            self._count += 1
            count = self._count
        return f"{os.getpid():x}-{count:x}-{os.urandom(6).hex()}"

    def release(self) -> None:
        """Give up what is held open, where nothing is left to sync; the next write opens it."""
        with self._guard:
            if self._root_fd > 0 and self._closer is not None and not self._unsynced:
                self._closer()
                self._root_fd = -1

    def _begin_writing(self, spool: str) -> None:
        """Make the directory, anew where somebody removed it under us, and hold it open."""
        with self._guard:
            try:
                make_shared(self.directory, spool)
                if os.name != "posix":
                    self._root_fd = 0
                    return
                # Held open from before the first write: syncfs reports only later failures.
                if self._root_fd > 0 and self._closer is not None:
                    if os.path.samestat(os.fstat(self._root_fd), os.stat(self.directory)):
                        return
                    self._closer()
                    self._root_fd = -1
                self._root_fd = os.open(self.directory, os.O_RDONLY)
                self._closer = weakref.finalize(self, os.close, self._root_fd)
            except OSError as error:
                self._fail("create", "tmp", error)

    def _install(self, temporary: str, name: str) -> None:
        full = self.durability == "full"
        if full:
            from layercache._os.durability import sync_directory, sync_file

            sync_file(temporary)
        target = self._root + name
        try:
            replace_beneath(temporary, self.directory, name)
        except FileNotFoundError:
            made = make_shared(self.directory, os.path.dirname(target))
            replace_beneath(temporary, self.directory, name)
            if full:
                for directory in made:
                    sync_directory(os.path.dirname(directory))
        if full:
            sync_directory(os.path.dirname(target))
        elif self.durability == "batch":
            with self._guard:
                self._unsynced.append(name)

    # -- durability ---------------------------------------------------------------------------

    def sync(self) -> None:
        with self._guard:
            names, self._unsynced = self._unsynced, []
        if not names:
            return
        from layercache._os.durability import sync_filesystem

        try:
            sync_filesystem(self._root_fd, [self._root + name for name in names])
        except OSError as error:
            self._fail("sync", names[-1], error)

    def _staged_path(self, name: str) -> str | None:
        from layercache._os.durability import boot_id

        boot = boot_id()
        if self.durability != "batch" or boot is None:
            return None
        return f"{self._root}staged/{boot}/{check_name(name)}"

    def stage(self, name: str, content: bytes) -> None:
        path = self._staged_path(name)
        target = name if path is None else path[len(self._root) :]
        self.write(target, io.BytesIO(content))

    def staged(self, name: str) -> bytes | None:
        path = self._staged_path(name)
        if path is None or self._folders.led_away(os.path.dirname(path[len(self._root) :])):
            return None
        try:
            fd = os.open(path, os.O_RDONLY | _BINARY | _NONBLOCK | _NOFOLLOW)
        except OSError:
            return None
        try:
            return _read_rest(fd, b"")
        except OSError:
            return None
        finally:
            os.close(fd)

    def publish(self, names: Iterable[str]) -> None:
        for name in names:
            path = self._staged_path(name)
            if path is None:
                return
            if self._folders.led_away(os.path.dirname(path[len(self._root) :])):
                continue
            try:
                if os.path.exists(path):
                    self._install(path, name)  # a link is moved, and read by nobody
            except FileNotFoundError:
                continue  # a twin published it first
            except OSError as error:
                self._fail("write", name, error)

    def list_staged(self, prefix: str) -> Iterator[ObjectInfo]:
        from layercache._os.durability import boot_id

        boot = boot_id()
        if boot is not None:
            folder = f"staged/{boot}"
            for path, status in files_below(self._root, folder):
                name = path[len(folder) + 1 :]
                if name.startswith(prefix):
                    yield ObjectInfo(name, status.st_size, status.st_mtime)

    # -- locks --------------------------------------------------------------------------------

    def lock(
        self, name: str, give_up: Callable[[], bool] | None = None
    ) -> AbstractContextManager[bool]:
        try:
            self.spool()
        except CacheError:
            pass  # nothing can be stored here, so nobody needs to wait
        return self._locks.lock(name, give_up)

    def hold(self, names: Iterable[str]) -> None:
        self._holds.hold(names)

    def unhold(self) -> None:
        self._holds.unhold()

    def seize(self, names: Sequence[str]) -> AbstractContextManager[Sequence[str]]:
        return self._holds.seize(names)

    # -- debris -------------------------------------------------------------------------------

    def clean(self, dry_run: bool = False) -> int:
        """Remove unfinished files of dead processes, and staged objects that were lost."""
        from layercache._os.durability import boot_id

        freed = 0
        boot = boot_id()
        try:
            now = os.stat(self.directory if dry_run else self._touched()).st_mtime
        except OSError:
            return 0  # nothing is there, or nothing may be written: nothing was left behind
        for name, status in [*files_below(self._root, "tmp"), *files_below(self._root, "staged")]:
            parts = name.split("/")
            if parts[0] == "tmp":
                old = now - status.st_mtime > _UNFINISHED and not _alive(parts[-1])
            else:
                # Another boot's may be another machine's, where the directory is shared.
                old = parts[1] != boot and now - status.st_mtime > _STAGED
            if old:
                freed += status.st_size
                if not dry_run:
                    try:
                        unlink_beneath(self.directory, name)
                    except OSError:
                        pass  # gone, or another user's
        return freed

    def _touched(self) -> str:
        """A file with the file system's own idea of now."""
        path = os.path.join(self.directory, "locks", "clock")
        if os.path.islink(os.path.dirname(path)):
            raise NotADirectoryError(errno.ENOTDIR, "a link in the cache", path)
        make_shared(self.directory, os.path.dirname(path))
        flags = os.O_WRONLY | os.O_CREAT | _NOFOLLOW | _NONBLOCK
        fd = os.open(path, flags, self._modes().lock)
        try:
            os.utime(fd if os.utime in os.supports_fd else path)
        finally:
            os.close(fd)
        return path

    def _fail(self, doing: str, name: str, error: OSError) -> NoReturn:
        absent = isinstance(error, FileNotFoundError | NotADirectoryError)
        if doing == "read" and (absent or error.errno == errno.ELOOP):
            raise NotFound(f"{name} is not in {self.directory!r}") from error
        hint = ""
        if isinstance(error, PermissionError):
            hint = "; the directory belongs to somebody else or is read-only"
        raise CacheError(
            f"can't {doing} {name} in the cache {self.directory!r}: {error.strerror}{hint}"
        ) from error


def _alive(unique: str) -> bool:
    """Whether the process that a temporary file is named after may still run here."""
    try:
        pid = int(unique.partition("-")[0], 16)
        os.kill(pid, 0)
    except (ValueError, ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True


def _read_rest(fd: int, data: bytes) -> bytes:
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode) or status.st_size > _LARGEST:
        return data  # no object; cut short it is seen to be damaged
    parts = [data]
    while chunk := os.read(fd, _COPY_SIZE):
        parts.append(chunk)
    return b"".join(parts)


def _regular(path: str, flags: int) -> int:
    """Open a regular file; anything else (a FIFO, a device) counts as absent."""
    fd = os.open(path, flags | _NONBLOCK | _NOFOLLOW)
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    raise FileNotFoundError(errno.ENOENT, "no regular file", path)


def _read_only_file(path: str, flags: int) -> int:
    return os.open(path, flags | _BINARY | _NOFOLLOW, 0o400)


def _share(fd: int, mode: int) -> None:
    if mode != 0o400 and hasattr(os, "fchmod"):
        os.fchmod(fd, mode)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _discard(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass  # collected later as debris
