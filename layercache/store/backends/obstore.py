"""Object storage through obstore: S3, Google Cloud Storage, Azure, natively and without fsspec.

A put is all or nothing there, and listings are not cached.
"""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO, Final, NoReturn

from layercache._base.urls import masked
from layercache.errors import CacheError, MissingExtra, NotFound, UsageError
from layercache.store.backend import BatchReader, ObjectInfo, check_name
from layercache.store.backends.buckets import bucket_of, lacks_bucket
from layercache.store.backends.read_each import read_each

__all__ = ["ObstoreBackend"]

_SMALL: Final = 1 << 23
_PIECE: Final = 1 << 18
_THREADS: Final = 16


class ObstoreBackend(BatchReader):
    """Objects below `url` (`s3://bucket/prefix`, `gs://…`, `az://…`, `memory:///`).

    `config` and `client_options` go to `obstore.store.from_url`; credentials come from the
    environment otherwise.
    """

    def __init__(
        self,
        url: str,
        *,
        config: Mapping[str, Any] | None = None,
        client_options: Mapping[str, Any] | None = None,
    ) -> None:
        self.url = url
        self._config = dict(config or {})
        self._client_options = dict(client_options or {})
        self._guard = threading.Lock()
        self._made: tuple[int, Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {
            "url": self.url,
            "config": self._config,
            "client_options": self._client_options,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def __repr__(self) -> str:
        return f"ObstoreBackend({masked(self.url)!r})"

    def _store(self) -> Any:
        made = self._made
        if made is not None and made[0] == os.getpid():
            return made[1]
        with self._guard:
            try:
                from obstore.store import from_url
            except ImportError as error:
                raise MissingExtra(f"the cache {masked(self.url)!r}", "obstore") from error
            options: dict[str, Any] = {}
            if self._config:
                options["config"] = self._config
            if self._client_options:
                options["client_options"] = self._client_options
            try:
                store = from_url(self.url, **options)
            except Exception as error:
                raise UsageError(f"not a cache: {masked(self.url)!r}: {error}") from error
            self._made = (os.getpid(), store)
            return store

    def read(self, name: str) -> BinaryIO:
        import obstore

        store = self._store()
        try:
            # Never by the size that the answer states: all of what comes is counted.
            answer = obstore.get(store, check_name(name))
            return io.BufferedReader(_Chunks(iter(answer.stream(min_chunk_size=_PIECE))))
        except Exception as error:  # noqa: BLE001  (the library has its own hierarchy)
            self._fail("read", name, error)

    def read_many(self, names: Sequence[str]) -> Mapping[str, bytes]:
        self._store()
        return read_each(self.read, names, most=_THREADS, cache=repr(masked(self.url)))

    def write(self, name: str, content: BinaryIO) -> None:
        import tempfile

        import obstore

        store = self._store()
        check_name(name)
        with tempfile.SpooledTemporaryFile(_SMALL) as spool:
            # All of it is here before anything is sent.
            while chunk := content.read(1 << 20):
                spool.write(chunk)
            size = spool.tell()
            spool.seek(0)
            try:
                if size <= _SMALL:
                    obstore.put(store, name, spool.read(), use_multipart=False)
                else:
                    obstore.put(store, name, spool)
            except Exception as error:  # noqa: BLE001
                self._fail("write", name, error)

    def delete(self, name: str) -> None:
        import obstore

        store = self._store()
        try:
            obstore.delete(store, check_name(name))
        except Exception as error:  # noqa: BLE001
            if not _absent(error):
                self._fail("delete", name, error)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        import obstore

        store = self._store()
        folder = prefix.rpartition("/")[0]  # prefixes are whole segments there
        try:
            for batch in obstore.list(store, prefix=folder or None):
                for info in batch:
                    name = str(info["path"])
                    if name.startswith(prefix):
                        stamp = info["last_modified"].timestamp()
                        yield ObjectInfo(name, int(info["size"]), stamp)
        except Exception as error:  # noqa: BLE001
            if not _absent(error) or lacks_bucket(error):
                self._fail("list", prefix, error)

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
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CacheError(
            f"can't {doing} {name} in the cache {masked(self.url)!r}: {text}"
        ) from error


def _absent(error: Exception) -> bool:
    if isinstance(error, FileNotFoundError):
        return True
    from obstore.exceptions import NotFoundError

    return isinstance(error, NotFoundError)


class _Chunks(io.RawIOBase):
    """An iterator of byte chunks as a file."""

    def __init__(self, chunks: Iterator[Any]) -> None:
        super().__init__()
        self._chunks = chunks
        self._left = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._left:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._left = memoryview(bytes(chunk))
        count = min(len(buffer), len(self._left))
        buffer[:count] = self._left[:count]
        self._left = self._left[count:]
        return count
