"""Backends that fail on purpose, or that count what is asked of them."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO, Final

from layercache.errors import CacheError, NotFound, UsageError
from layercache.store.backend import (
    Adopts,
    Backend,
    BatchReader,
    LocalFiles,
    Locks,
    ObjectInfo,
    Stages,
    Stats,
    Syncs,
    Touches,
)

__all__ = ["FAULTS", "CountingBackend", "FaultyBackend", "SloppyBackend"]

FAULTS: Final = (
    "missing",
    "truncated",
    "flipped",
    "stale",
    "EIO",
    "ENOSPC",
    "EACCES",
    "timeout",
    "duplicate",
    "out of order",
)


class CountingBackend(BatchReader):
    """Counts calls and bytes, and can take a while for each: `latency` in seconds.

    `calls` lists (method, name); a batch counts once in `round_trips` and once for each name
    in `requests`.
    """

    def __init__(self, inner: Backend, latency: float = 0.0) -> None:
        self.inner = inner
        self.latency = latency
        self.calls: list[tuple[str, str]] = []
        self.requests = 0
        self.round_trips = 0
        self.bytes_read = 0
        self.bytes_written = 0

    def _count(self, method: str, names: Sequence[str]) -> None:
        self.calls.extend((method, name) for name in names)
        self.requests += len(names)
        self.round_trips += 1
        if self.latency:
            time.sleep(self.latency)

    def read(self, name: str) -> BinaryIO:
        self._count("read", [name])
        with self.inner.read(name) as content:
            data = content.read()
        self.bytes_read += len(data)
        return io.BytesIO(data)

    def read_many(self, names: Sequence[str]) -> Mapping[str, bytes]:
        self._count("read", names)
        found = {}
        for name in names:
            try:
                with self.inner.read(name) as content:
                    found[name] = content.read()
            except NotFound:
                continue
        self.bytes_read += sum(map(len, found.values()))
        return found

    def write(self, name: str, content: BinaryIO) -> None:
        self._count("write", [name])
        data = content.read()
        self.bytes_written += len(data)
        self.inner.write(name, io.BytesIO(data))

    def delete(self, name: str) -> None:
        self._count("delete", [name])
        self.inner.delete(name)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        self._count("list", [prefix])
        return iter(list(self.inner.list(prefix)))


class _Faulty:
    """The faults themselves; `FaultyBackend` gives it the methods that the inner backend has."""

    def __init__(self, inner: Any, fault: str, strikes: Callable[[int], bool]) -> None:
        if fault not in FAULTS:
            raise UsageError(f"no such fault: {fault!r}; there are {', '.join(FAULTS)}")
        self.inner = inner
        self.fault = fault
        self.calls = 0
        self.struck = 0
        self._strikes = strikes
        self._older: dict[str, bytes | None] = {}
        self._late: list[tuple[str, bytes]] = []
        self._guard = threading.RLock()

    def _strike(self) -> bool:
        """Whether this call fails; raises at once for what fails without an effect."""
        with self._guard:
            number, self.calls = self.calls, self.calls + 1
            late, self._late = self._late, []
            for name, data in late:
                self.inner.write(name, io.BytesIO(data))
            if not self._strikes(number):
                return False
            self.struck += 1
        number_of = {"EIO": 5, "ENOSPC": 28, "EACCES": 13}
        if self.fault in number_of:
            cause: OSError = OSError(number_of[self.fault], self.fault)
        elif self.fault == "timeout":
            cause = TimeoutError("timed out")
        else:
            return True
        raise CacheError(f"injected: {self.fault}") from cause

    def _spoil(self, name: str, data: bytes | None) -> bytes | None:
        if self.fault == "missing":
            return None
        if self.fault == "stale":
            return self._older.get(name)
        if data and self.fault == "truncated":
            return data[: len(data) // 2]
        if data and self.fault == "flipped":
            at = len(data) // 2
            return data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]
        return data

    def _get(self, name: str) -> bytes | None:
        try:
            with self.inner.read(name) as content:
                data: bytes = content.read()
                return data
        except NotFound:
            return None

    def read(self, name: str) -> BinaryIO:
        strike = self._strike()
        data = self._get(name)
        if strike:
            data = self._spoil(name, data)
        if data is None:
            raise NotFound(f"{name} is not there")
        return io.BytesIO(data)

    def write(self, name: str, content: BinaryIO) -> None:
        data = content.read()
        self._store(name, data, self.inner.write)

    def _store(self, name: str, data: bytes, write: Callable[[str, BinaryIO], None]) -> None:
        strike = self._strike()
        self._older.setdefault(name, self._get(name))
        if not strike:
            write(name, io.BytesIO(data))
        elif self.fault == "out of order":
            with self._guard:
                self._late.append((name, data))
        elif self.fault == "duplicate":
            write(name, io.BytesIO(data))
            write(name, io.BytesIO(data))
        elif self.fault in ("truncated", "flipped"):
            write(name, io.BytesIO(self._spoil(name, data) or b""))
        # missing and stale: the write is lost

    def delete(self, name: str) -> None:
        if not self._strike() or self.fault in ("duplicate", "truncated", "flipped"):
            self.inner.delete(name)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        strike = self._strike()
        rows = list(self.inner.list(prefix))
        if strike and self.fault in ("missing", "stale", "truncated"):
            rows = rows[: len(rows) // 2]
        elif strike and self.fault == "duplicate":
            rows += rows
        elif strike and self.fault == "out of order":
            rows.reverse()
        return iter(rows)


class _Capabilities:
    """The further methods of a local backend; each call can fail like the others."""

    inner: Any
    fault: str
    _strike: Callable[[], bool]
    _spoil: Callable[[str, bytes | None], bytes | None]
    _store: Callable[..., None]

    def read_many(self, names: Sequence[str]) -> Mapping[str, bytes]:
        strike = self._strike()
        found = dict(self.inner.read_many(names))
        if strike:
            for name in names:
                data = self._spoil(name, found.pop(name, None))
                if data is not None:
                    found[name] = data
        return found

    def stat(self, name: str) -> ObjectInfo | None:
        if self._strike() and self.fault in ("missing", "stale"):
            return None
        info: ObjectInfo | None = self.inner.stat(name)
        return info

    def sync(self) -> None:
        self._strike()
        self.inner.sync()

    def stage(self, name: str, content: bytes) -> None:
        self._store(name, content, lambda name, data: self.inner.stage(name, data.read()))

    def staged(self, name: str) -> bytes | None:
        strike = self._strike()
        data: bytes | None = self.inner.staged(name)
        return self._spoil(name, data) if strike else data

    def publish(self, names: Iterable[str]) -> None:
        names = list(names)
        if self._strike() and self.fault in ("missing", "stale", "truncated"):
            names = names[: len(names) // 2]
        self.inner.publish(names)

    def list_staged(self, prefix: str) -> Iterator[ObjectInfo]:
        return iter(list(self.inner.list_staged(prefix)))

    def touch(self, names: Iterable[str]) -> None:
        self._strike()
        self.inner.touch(names)

    def path(self, name: str) -> str:
        path: str = self.inner.path(name)
        return path

    def lock(self, name: str, give_up: Callable[[], bool] | None = None) -> Any:
        return self.inner.lock(name, give_up)

    def spool(self) -> str:
        self._strike()
        path: str = self.inner.spool()
        return path

    def adopt(self, path: str, name: str) -> bool:
        if self._strike() and self.fault in ("missing", "stale"):
            import os

            os.unlink(path)
            return True  # reported as present, and lost
        if self.fault in ("truncated", "flipped"):
            return False  # so that `write` stores it, where it can be damaged
        done: bool = self.inner.adopt(path, name)
        return done


def FaultyBackend(inner: Backend, fault: str, *, every: int = 0, at: int = -1) -> Any:
    """`inner`, failing in the way named by `fault` (one of `FAULTS`).

    Every `every`-th call fails, or just the one number `at` (from 0). `.calls` counts calls,
    `.struck` those that failed.
    """
    known = (BatchReader, Stats, Syncs, Stages, Touches, LocalFiles, Locks, Adopts)
    capabilities = tuple(one for one in known if isinstance(inner, one))
    methods = {
        name: getattr(_Capabilities, name)
        for one in capabilities
        for name in vars(one)
        if not name.startswith("_")
    }

    def strikes(number: int) -> bool:
        return number == at or (every > 0 and number % every == every - 1)

    return type("FaultyBackend", (_Faulty, *capabilities), methods)(inner, fault, strikes)


class SloppyBackend:
    """A backend with the mistakes that real ones made; `BackendSuite` must catch it.

    It shows partial content, keeps it when the write fails, lists from a cache, and believes
    any name.
    """

    def __init__(self) -> None:
        self._objects: dict[str, bytes] = {}
        self._listing: list[ObjectInfo] | None = None

    def read(self, name: str) -> BinaryIO:
        if name not in self._objects:
            raise NotFound(name)
        return io.BytesIO(self._objects[name])

    def write(self, name: str, content: BinaryIO) -> None:
        self._objects[name] = b""
        while chunk := content.read(65_536):
            self._objects[name] += chunk
            time.sleep(0)

    def delete(self, name: str) -> None:
        del self._objects[name]

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        if self._listing is None:
            self._listing = [ObjectInfo(n, len(d), 1.0) for n, d in self._objects.items()]
        return iter([info for info in self._listing if info.name.startswith(prefix)])
