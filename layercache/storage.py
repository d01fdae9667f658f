"""The storage backend interface: named, opaque, immutable objects.

A backend is dumb on purpose. Meaning (records, blobs, trails), verification and healing are the
store's (`layercache.store`), so that one rule holds for every backend.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import BinaryIO, Protocol, runtime_checkable

import attrs

__all__ = ["Backend", "BatchReader", "LocalFiles", "ObjectInfo", "Syncs", "Touches"]


@attrs.frozen
class ObjectInfo:
    """Name, size in bytes and the backend's own stamp (seconds since 1970) of an object."""

    name: str
    size: int
    stamp: float


@runtime_checkable
class Backend(Protocol):
    """Named objects; a write is all or nothing and may replace.

    Names are relative, of `[a-z0-9._-]` segments joined by `/`. Methods may be called from
    several threads and processes at once. Failures of the medium are `CacheError`; a name that
    is not there is `NotFound` (from `read`), and no error for `delete`.
    """

    def read(self, name: str) -> BinaryIO:
        """The object's bytes; raises `NotFound`."""

    def write(self, name: str, content: BinaryIO) -> None:
        """Store all of `content` under `name`, visible only when complete."""

    def delete(self, name: str) -> None:
        """Remove; nothing happens when it is not there."""

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Objects whose name begins with `prefix`, in no given order, never from a cache."""


@runtime_checkable
class BatchReader(Protocol):
    """Optional: many small objects in one round trip."""

    def read_many(self, names: Sequence[str]) -> Mapping[str, bytes]:
        """The bytes of those that are there."""


@runtime_checkable
class Syncs(Protocol):
    """Optional: a backend whose writes become durable at `sync` only."""

    def sync(self) -> None:
        """Return when everything written before is durable."""


@runtime_checkable
class Touches(Protocol):
    """Optional: renew an object's stamp without sending its bytes again."""

    def touch(self, names: Iterable[str]) -> None:
        """Renew the stamps of those that are there."""


@runtime_checkable
class LocalFiles(Protocol):
    """Optional: objects are plain files of this machine."""

    def path(self, name: str) -> str:
        """Where the object is, or would be; the file must be opened for reading only."""
