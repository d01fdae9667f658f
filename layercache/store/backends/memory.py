"""A backend in this process's memory: for tests, and for builds that leave nothing behind."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import BinaryIO

from layercache.errors import NotFound
from layercache.store.backend import BatchReader, Locks, ObjectInfo, Stats, Touches, check_name

__all__ = ["MemoryBackend", "shared_memory"]

_POLL_SECONDS = 0.05


class MemoryBackend(BatchReader, Locks, Stats, Touches):
    """Named objects in a dictionary; safe for threads. Pickled, its content is copied."""

    def __init__(self) -> None:
        self._objects: dict[str, tuple[bytes, float]] = {}
        self._guard = threading.Lock()
        self._holders: dict[str, tuple[threading.Lock, int]] = {}

    def __getstate__(self) -> dict[str, object]:
        with self._guard:
            return {"_objects": dict(self._objects)}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__init__()  # type: ignore[misc]
        self.__dict__.update(state)

    def __repr__(self) -> str:
        return f"MemoryBackend({len(self._objects)} objects)"

    def read(self, name: str) -> BinaryIO:
        found = self._objects.get(name)
        if found is None:
            raise NotFound(f"{check_name(name)} is not in memory")
        return io.BytesIO(found[0])

    def read_many(self, names: Sequence[str]) -> Mapping[str, bytes]:
        objects = self._objects
        return {name: objects[name][0] for name in names if name in objects}

    def write(self, name: str, content: BinaryIO) -> None:
        data = content.read()
        with self._guard:
            self._objects[check_name(name)] = (data, time.time())

    def delete(self, name: str) -> None:
        with self._guard:
            self._objects.pop(check_name(name), None)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        with self._guard:
            rows = list(self._objects.items())
        for name, (data, stamp) in rows:
            if name.startswith(prefix):
                yield ObjectInfo(name, len(data), stamp)

    def stat(self, name: str) -> ObjectInfo | None:
        found = self._objects.get(name)
        return None if found is None else ObjectInfo(name, len(found[0]), found[1])

    def touch(self, names: Iterable[str]) -> None:
        with self._guard:
            for name in names:
                if name in self._objects:
                    self._objects[name] = (self._objects[name][0], time.time())

    @contextmanager
    def lock(self, name: str, give_up: Callable[[], bool] | None = None) -> Iterator[bool]:
        with self._guard:
            lock, users = self._holders.get(name, (threading.Lock(), 0))
            self._holders[name] = (lock, users + 1)
        got = False
        try:
            while not (got := lock.acquire(timeout=_POLL_SECONDS if give_up else -1)):
                if give_up is not None and give_up():
                    break
            yield got
        finally:
            if got:
                lock.release()
            with self._guard:
                lock, users = self._holders[name]
                if users == 1:
                    del self._holders[name]
                else:
                    self._holders[name] = (lock, users - 1)


_shared: dict[str, MemoryBackend] = {}
_shared_guard = threading.Lock()


def shared_memory(name: str) -> MemoryBackend:
    """The one backend of this process called `name`."""
    with _shared_guard:
        return _shared.setdefault(name, MemoryBackend())
