"""Redis as a backend, for records, trails and small blobs.

An object is a hash with its bytes and a stamp by the server's clock, below a prefix of its own.
"""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO, Final, NoReturn

from layercache._base.urls import masked
from layercache.errors import CacheError, MissingExtra, NotFound, UsageError
from layercache.store.backend import BatchReader, ObjectInfo, Touches, check_name

__all__ = ["RedisBackend"]

_LARGEST: Final = 64 << 20
"""Redis holds everything in memory, and sends a value whole."""

_LARGEST_ANSWER: Final = _LARGEST + (1 << 20)
"""Bytes of the answer to what is sent at once, whatever sizes the server states."""

_PIECE: Final = 1 << 20
"""The client copies a line anew with each piece of it that comes."""

_SLOWEST: Final = 1 << 16
"""Bytes a second below which an answer is given up."""

_TIMEOUT: Final = 10.0
_BATCH: Final = 500

_TOUCH: Final = """
if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('HSET', KEYS[1], 's', ARGV[1]) end
"""


class RedisBackend(BatchReader, Touches):
    """Objects in the database of `url`, under names that begin with `prefix`.

    A password may stand in the URL, and is never shown.
    """

    def __init__(self, url: str, *, prefix: str = "layercache:") -> None:
        self._url = url
        self._prefix = prefix
        self._guard = threading.Lock()
        self._client: Any = None
        self._ahead = 0.0

    def __getstate__(self) -> dict[str, str]:
        return {"url": self._url, "prefix": self._prefix}

    def __setstate__(self, state: dict[str, str]) -> None:
        self.__init__(state["url"], prefix=state["prefix"])  # type: ignore[misc]

    def __repr__(self) -> str:
        return f"RedisBackend({masked(self._url)!r})"

    def _redis(self) -> Any:
        if self._client is not None:
            return self._client
        with self._guard:
            try:
                from redis import ConnectionPool, Redis
            except ImportError as error:
                raise MissingExtra(f"the cache {self!r}", "redis") from error
            try:
                pool = ConnectionPool.from_url(
                    self._url,
                    socket_timeout=_TIMEOUT,
                    socket_connect_timeout=_TIMEOUT / 2,
                    socket_read_size=_PIECE,
                )
            except ValueError:
                # Its message may quote a part of the password.
                raise UsageError(f"not a cache: {self!r}: not a URL of Redis") from None
            pool.connection_class = _bounded(pool.connection_class)
            client = Redis.from_pool(pool)
            self._client = client
        try:
            seconds, micros = client.time()
            self._ahead = seconds + micros / 1e6 - time.time()
        except Exception as error:  # noqa: BLE001  (the client has its own hierarchy)
            self._client = None
            self._fail("open", "the database", error)
        return client

    def _key(self, name: str) -> str:
        return self._prefix + check_name(name)

    def _stamp(self) -> str:
        return repr(time.time() + self._ahead)

    def read(self, name: str) -> BinaryIO:
        key = self._key(name)
        try:
            data: Any = self._redis().hget(key, "d")
        except Exception as error:  # noqa: BLE001
            self._fail("read", name, error)
        if data is None:
            raise NotFound(f"{name} is not in {self!r}")
        if not isinstance(data, bytes):
            raise CacheError(f"{name} in the cache {self!r} is not a string of bytes")
        return io.BytesIO(data)

    def read_many(self, names: Sequence[str]) -> Mapping[str, bytes]:
        found = {}
        for start in range(0, len(names), _BATCH):
            batch = names[start : start + _BATCH]
            try:
                pipe = self._redis().pipeline(transaction=False)
                for name in batch:
                    pipe.hget(self._key(name), "d")
                results = pipe.execute()
                pairs = list(zip(batch, results, strict=True))
            except Exception as error:  # noqa: BLE001
                self._fail("read", batch[0], error)
            found.update({name: data for name, data in pairs if isinstance(data, bytes)})
        return found

    def write(self, name: str, content: BinaryIO) -> None:
        key = self._key(name)
        parts = []
        size = 0
        while chunk := content.read(1 << 20):
            size += len(chunk)
            if size > _LARGEST:
                raise CacheError(f"{name} is too large for {self!r}: over {_LARGEST >> 20} MiB")
            parts.append(chunk)
        try:
            values: dict[str, Any] = {"d": b"".join(parts), "s": self._stamp()}
            self._redis().hset(key, mapping=values)
        except Exception as error:  # noqa: BLE001
            self._fail("write", name, error)

    def delete(self, name: str) -> None:
        key = self._key(name)
        try:
            self._redis().delete(key)
        except Exception as error:  # noqa: BLE001
            self._fail("delete", name, error)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        pattern = "".join("\\" + c if c in "*?[]\\^" else c for c in self._prefix + prefix) + "*"
        try:
            client = self._redis()
            keys = sorted(set(client.scan_iter(match=pattern, count=_BATCH)))
            for start in range(0, len(keys), _BATCH):
                batch = keys[start : start + _BATCH]
                pipe = client.pipeline(transaction=False)
                for key in batch:
                    pipe.hstrlen(key, "d")
                    pipe.hget(key, "s")
                answers = pipe.execute()
                for key, size, stamp in zip(batch, answers[::2], answers[1::2], strict=True):
                    if stamp is not None:
                        name = key.decode().removeprefix(self._prefix)
                        yield ObjectInfo(name, size, float(stamp))
        except Exception as error:  # noqa: BLE001
            self._fail("list", prefix, error)

    def touch(self, names: Iterable[str]) -> None:
        try:
            pipe = self._redis().pipeline(transaction=False)
            for name in names:
                pipe.eval(_TOUCH, 1, self._key(name), self._stamp())
            pipe.execute()
        except Exception as error:  # noqa: BLE001
            self._fail("touch", "objects", error)

    def _fail(self, doing: str, name: str, error: Exception) -> NoReturn:
        if isinstance(error, CacheError | UsageError):
            raise error
        raise CacheError(f"can't {doing} {name} in the cache {self!r}: {error}") from error


def _bounded(kind: Any) -> Any:
    """That class of connections, with bounds on what is read."""

    class Bounded(kind):  # type: ignore[misc]
        def _connect(self) -> Any:
            return _Answers(super()._connect())

    return Bounded


class _Answers:
    """A connected socket; the answer to each thing sent has bounded size and time.

    The client believes every length that the server states, and has a limit for each single
    wait only.
    """

    def __init__(self, socket: Any) -> None:
        self._socket = socket
        self._begin()

    def _begin(self) -> None:
        self._came = 0
        self._since = time.monotonic()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)

    def sendall(self, data: Any) -> None:
        self._socket.sendall(data)
        self._begin()

    def recv(self, size: int) -> bytes:
        data: bytes = self._socket.recv(size)
        self._count(len(data))
        return data

    def recv_into(self, buffer: Any, *size: int) -> int:
        count: int = self._socket.recv_into(buffer, *size)
        self._count(count)
        return count

    def _count(self, came: int) -> None:
        self._came += came
        if self._came > _LARGEST_ANSWER:
            raise CacheError(f"an answer has more than {_LARGEST_ANSWER >> 20} MiB")
        if time.monotonic() - self._since > _TIMEOUT + self._came / _SLOWEST:
            raise CacheError("an answer comes too slowly")
