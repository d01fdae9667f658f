"""Any file system of fsspec as a backend.

Content is read as a stream and counted, if the file system supports that; otherwise a range is
requested that is no longer than an object may be. Only whole, complete objects are sent
(`pipe_file`, `put_file`): a handle opened for writing commits its partial content if its body
fails. Listing caches are off, `exists` decides nothing, and a forked process makes its own
instance.
"""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO, Final, NoReturn

from layercache._base.urls import masked
from layercache.errors import CacheError, MissingExtra, NotFound, UsageError
from layercache.store.backend import (
    LARGEST_SMALL,
    BatchReader,
    ObjectInfo,
    check_name,
)
from layercache.store.backends.buckets import bucket_of, lacks_bucket
from layercache.store.backends.read_each import read_each

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

__all__ = ["FsspecBackend"]

_SMALL: Final = 1 << 23
_PIECE: Final = 1 << 18
_THREADS: Final = 16
_EXTRAS: Final = {
    "s3": "s3",
    "s3a": "s3",
    "gs": "gcs",
    "gcs": "gcs",
    "az": "azure",
    "abfs": "azure",
}
_ABSENT: Final = (FileNotFoundError, NotADirectoryError, KeyError)


class FsspecBackend(BatchReader):
    """Objects below `url`. Chained URLs are refused; `options` are passed to the file system.

    Nothing is contacted before the first call.
    """

    def __init__(self, url: str, **options: Any) -> None:
        if "::" in url:
            raise UsageError(f"a chained URL can't be a cache: {masked(url)!r}")
        self.url = url
        self._options = options
        self._guard = threading.Lock()
        self._made: tuple[int, AbstractFileSystem, str] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"url": self.url, "options": self._options}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["url"], **state["options"])  # type: ignore[misc]

    def __repr__(self) -> str:
        return f"FsspecBackend({masked(self.url)!r})"

    def check(self) -> FsspecBackend:
        """This backend, if the packages for the URL are installed; raises `UsageError` or
        `MissingExtra`.
        """
        self._class()
        return self

    def _class(self) -> None:
        scheme = self.url.partition("://")[0]
        try:
            from fsspec import get_filesystem_class

            get_filesystem_class(scheme)
        except ImportError as error:
            if scheme in _EXTRAS:
                raise MissingExtra(f"the cache {masked(self.url)!r}", _EXTRAS[scheme]) from error
            raise UsageError(f"the cache {masked(self.url)!r} needs a package: {error}") from error
        except ValueError as error:
            raise UsageError(f"not a cache: {masked(self.url)!r}: {error}") from error

    def _file_system(self) -> tuple[AbstractFileSystem, str]:
        made = self._made
        if made is not None and made[0] == os.getpid():
            return made[1], made[2]
        with self._guard:
            self._class()
            from fsspec.core import url_to_fs

            try:
                system, root = url_to_fs(
                    self.url,
                    skip_instance_cache=True,
                    use_listings_cache=False,
                    **self._options,
                )
            except (ValueError, TypeError) as error:
                raise UsageError(f"not a cache: {masked(self.url)!r}: {error}") from error
            except Exception as error:
                raise CacheError(f"can't open the cache {masked(self.url)!r}: {error}") from error
            self._made = (os.getpid(), system, str(root).rstrip("/") + "/")
            return self._made[1], self._made[2]

    # -- reading ------------------------------------------------------------------------------

    def read(self, name: str) -> BinaryIO:
        system, root = self._file_system()
        path = root + check_name(name)
        try:
            streamed = _streamed(system, path)
            if streamed is not None:
                return streamed
            if name.startswith("blobs/") or "/blobs/" in name:
                handle: BinaryIO = system.open(path, "rb")
                return handle
            return io.BytesIO(_small(system, path, name))
        except Exception as error:  # noqa: BLE001  (file systems raise what they like)
            self._fail("read", name, error)

    def read_many(self, names: Sequence[str]) -> Mapping[str, bytes]:
        system, _ = self._file_system()
        most = _THREADS if system.async_impl else 1
        return read_each(self.read, names, most=most, cache=repr(masked(self.url)))

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        system, root = self._file_system()
        folder = prefix.rpartition("/")[0]
        try:
            system.invalidate_cache()
            found = system.find(root + folder if folder else root.rstrip("/"), detail=True)
        except Exception as error:  # noqa: BLE001
            if _absent(error) and not lacks_bucket(error):
                return
            self._fail("list", prefix, error)
        for path, info in found.items():
            if path.startswith(root):
                name = path[len(root) :]
                if name.startswith(prefix):
                    yield ObjectInfo(name, int(info.get("size") or 0), _stamp(info))

    # -- writing ------------------------------------------------------------------------------

    def write(self, name: str, content: BinaryIO) -> None:
        system, root = self._file_system()
        path = root + check_name(name)
        parts = []
        size = 0
        # A short read is not the end: only an empty one is.
        while size <= _SMALL and (chunk := content.read(_SMALL + 1 - size)):
            parts.append(chunk)
            size += len(chunk)
        data = b"".join(parts)
        try:
            if size <= _SMALL:
                self._send(system, path, lambda: system.pipe_file(path, data))
            else:
                self._send_large(system, path, data, content)
        except Exception as error:  # noqa: BLE001
            self._fail("write", name, error)

    def _send_large(
        self, system: AbstractFileSystem, path: str, start: bytes, content: BinaryIO
    ) -> None:
        import shutil
        import tempfile

        fd, local = tempfile.mkstemp(prefix="layercache-")
        try:
            with open(fd, "wb") as out:
                out.write(start)
                shutil.copyfileobj(content, out, _SMALL)
            self._send(system, path, lambda: system.put_file(local, path))
        finally:
            os.unlink(local)

    def _send(self, system: AbstractFileSystem, path: str, send: Any) -> None:
        try:
            send()
        except FileNotFoundError:
            # Only file systems with real directories lack one. What object storage lacks is the
            # bucket, which is nobody's to make here.
            if system.async_impl or self.url.partition("://")[0] in _EXTRAS:
                raise
            system.makedirs(path.rpartition("/")[0], exist_ok=True)
            send()

    def delete(self, name: str) -> None:
        system, root = self._file_system()
        try:
            system.rm_file(root + check_name(name))
        except Exception as error:  # noqa: BLE001
            if not _absent(error):
                self._fail("delete", name, error)

    def _fail(self, doing: str, name: str, error: Exception) -> NoReturn:
        if isinstance(error, UsageError):
            raise error
        if lacks_bucket(error):
            raise CacheError(
                f"can't {doing} {name} in the cache {masked(self.url)!r}: there is no bucket "
                f"{bucket_of(self.url)!r}; none is made: correct the name, or create it"
            ) from error
        if doing == "read" and _absent(error):
            raise NotFound(f"{name} is not in {masked(self.url)!r}") from error
        text = str(error) or type(error).__name__
        raise CacheError(
            f"can't {doing} {name} in the cache {masked(self.url)!r}: {text}"
        ) from error


def _absent(error: Exception) -> bool:
    return isinstance(error, _ABSENT)


def _small(system: AbstractFileSystem, path: str, name: str) -> bytes:
    """A small object where nothing can be read as it comes: at most so much is asked for."""
    data: bytes = system.cat_file(path, start=0, end=LARGEST_SMALL + 1)
    if len(data) > LARGEST_SMALL:
        raise CacheError(
            f"{name} has more than {LARGEST_SMALL >> 20} MiB: layercache writes no "
            "object of that size"
        )
    return data


def _streamed(system: AbstractFileSystem, path: str) -> BinaryIO | None:
    """The object as it comes, in one request; None where the file system can't do that."""
    if not system.async_impl:
        return None
    from fsspec.asyn import sync

    try:
        file = sync(system.loop, system.open_async, path, "rb")
    except NotImplementedError:
        return None
    try:
        first = sync(system.loop, file.read, _PIECE)
    except BaseException:
        _let_go(system, file)
        raise
    return io.BufferedReader(_Coming(system, file, first), _PIECE)


def _let_go(system: AbstractFileSystem, file: Any) -> None:
    """End an asynchronous file. What was not read to its end is not waited for."""
    end = getattr(getattr(file, "r", None), "close", None)
    if end is not None:
        system.loop.call_soon_threadsafe(end)
    file.closed = True  # else its finalizer makes a coroutine that nobody runs


class _Coming(io.RawIOBase):
    """What an asynchronous file gives; `first` is its beginning."""

    def __init__(self, system: AbstractFileSystem, file: Any, first: bytes) -> None:
        super().__init__()
        self._system = system
        self._file = file
        self._left = memoryview(first)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        from fsspec.asyn import sync

        if not self._left:
            self._left = memoryview(sync(self._system.loop, self._file.read, len(buffer)))
        count = min(len(buffer), len(self._left))
        buffer[:count] = self._left[:count]
        self._left = self._left[count:]
        return count

    def close(self) -> None:
        if not self.closed:
            _let_go(self._system, self._file)
        super().close()


def _stamp(info: Mapping[str, Any]) -> float:
    """The backend's own time of the object; each file system calls it something else."""
    for label in ("LastModified", "last_modified", "mtime", "updated", "modified", "created"):
        value: Any = info.get(label)
        if isinstance(value, int | float):
            return float(value)
        if hasattr(value, "timestamp"):
            if value.tzinfo is None:
                from datetime import UTC

                value = value.replace(tzinfo=UTC)
            return float(value.timestamp())
        if isinstance(value, str) and value:
            from datetime import datetime

            try:
                return datetime.fromisoformat(value).timestamp()
            except ValueError:
                continue
    return 0.0
