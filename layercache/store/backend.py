"""The storage backend interface: named, opaque, immutable objects.

A backend is deliberately simple. The store (`layercache.store.store`) adds meaning (records, blobs,
trails), verification and repair, so that one rule holds for every backend. Four methods are enough.
A backend declares further capabilities by deriving from the abstract classes here, or by
registering with them (`Stats.register(MyBackend)`). A method with a matching name alone declares
nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import BinaryIO, Final, Protocol, runtime_checkable

from layercache._base.classes import frozen
from layercache.errors import CacheError, UsageError

__all__ = [
    "CAPABILITIES",
    "SEGMENT_CHARACTERS",
    "Adopts",
    "Allowance",
    "Backend",
    "BatchReader",
    "Cleans",
    "Holds",
    "InDirectory",
    "LocalFiles",
    "Locks",
    "ObjectInfo",
    "Releases",
    "Stages",
    "Stats",
    "Syncs",
    "Touches",
    "check_name",
    "read_bounded",
]

SEGMENT_CHARACTERS: Final = "abcdefghijklmnopqrstuvwxyz0123456789._-"
"""The characters allowed in one segment of an object name."""

LARGEST_SMALL: Final = 1 << 26
"""Bytes: no record, trail, fact, tag or derived object comes near."""

LARGEST_BATCH: Final = 1 << 28
"""Bytes that the small objects of one batch have together at most."""

_CHUNK: Final = 1 << 20
_CHARACTERS: Final = SEGMENT_CHARACTERS + "/"
_NO_SEGMENTS: Final = ("", ".", "..")
_NO_BEGINNINGS: Final = ("", "/", ".")
_LONGEST_NAME: Final = 900  # S3 takes 1,024 bytes, a part of which is the prefix's


def check_name(name: str) -> str:
    """`name`, or `UsageError` unless it is segments of `[a-z0-9._-]` joined by `/`.

    No segment is `.` or `..`, or longer than 255: such a name can't leave a directory.
    """
    if (  # most names; the whole rule takes three times as long
        len(name) <= 255
        and not name.strip(_CHARACTERS)
        and "//" not in name
        and "/." not in name
        and name[:1] not in _NO_BEGINNINGS
        and name[-1] != "/"
    ):
        return name
    if (
        len(name) > _LONGEST_NAME
        or name.strip(_CHARACTERS)
        or any(part in _NO_SEGMENTS or len(part) > 255 for part in name.split("/"))
    ):
        raise UsageError(f"not an object name: {name[:100]!r}")
    return name


class Allowance:
    """Bytes that one batch may still transfer, shared by the threads that fetch it."""

    __slots__ = ("_left",)

    def __init__(self, size: int = LARGEST_BATCH) -> None:
        self._left = size

    def take(self, count: int, name: str) -> None:
        """Count received bytes; raises `CacheError` if they exceed the limit."""
        self._left -= count  # a lost update of another thread's costs a chunk, not the bound
        if self._left < 0:
            raise CacheError(f"{name} and what was asked for with it have too many bytes")


def read_bounded(content: BinaryIO, name: str, allowance: Allowance | None = None) -> bytes:
    """All bytes of a small object; raises `CacheError` if they exceed the limit for one.

    So a medium that sends without end costs bounded memory and time. `allowance` bounds the total
    of several reads.
    """
    parts = []
    size = 0
    while chunk := content.read(_CHUNK):
        size += len(chunk)
        if size > LARGEST_SMALL:
            raise CacheError(
                f"{name} has more than {LARGEST_SMALL >> 20} MiB: layercache writes no "
                "object of that size"
            )
        if allowance is not None:
            allowance.take(len(chunk), name)
        parts.append(chunk)
    return b"".join(parts)


@frozen
class ObjectInfo:
    """Name, size in bytes and the backend's own stamp (seconds since 1970) of an object."""

    name: str
    size: int
    stamp: float


@runtime_checkable
class Backend(Protocol):
    """Named objects; a write is all or nothing and may replace an object.

    Names are relative, of `[a-z0-9._-]` segments joined by `/`. Methods may be called from several
    threads and processes at once. Failures of the medium are `CacheError`; for a missing name,
    `read` raises `NotFound` and `delete` does nothing.
    """

    def read(self, name: str) -> BinaryIO:
        """The object's bytes; raises `NotFound`."""

    def write(self, name: str, content: BinaryIO) -> None:
        """Store all of `content` under `name`, visible only when complete."""

    def delete(self, name: str) -> None:
        """Remove the object; a missing one is ignored."""

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Objects whose name begins with `prefix`, in no given order, never from a cached
        listing.
        """


class BatchReader(ABC):
    """Optional: many small objects in one round trip."""

    __slots__ = ()

    @abstractmethod
    def read_many(self, names: Sequence[str]) -> Mapping[str, bytes]:
        """The bytes of the existing objects among these.

        An object that can't be read is left out, like a missing one; `CacheError` if the medium as
        a whole fails.
        """


class Stats(ABC):
    """Optional: a cheap look at one object. A backend for which it costs a request lacks it."""

    __slots__ = ()

    @abstractmethod
    def stat(self, name: str) -> ObjectInfo | None:
        """The facts about the object without reading it; None if it is missing."""


class Syncs(ABC):
    """Optional: a backend whose writes become durable at `sync` only."""

    __slots__ = ()

    @abstractmethod
    def sync(self) -> None:
        """Return when everything written before is durable.

        Costs nothing if nothing was written. After a `CacheError`, none of it may be relied on,
        even if it can be read: the caller removes it and writes it again.
        """


class Stages(ABC):
    """Optional: small objects that others may see before their blobs are durable.

    A staged object is gone after a restart of the machine unless it was published. So a record can
    be shared at once, and still never survives a power cut that its blob did not survive.
    """

    __slots__ = ()

    @abstractmethod
    def stage(self, name: str, content: bytes) -> None:
        """Store `content` under `name` in the staging area, visible to `staged` of every process
        here.
        """

    @abstractmethod
    def staged(self, name: str) -> bytes | None:
        """The content staged under `name` since the machine started; None if nothing is staged."""

    @abstractmethod
    def publish(self, names: Iterable[str]) -> None:
        """Move staged objects into place; call it between two `sync`. Missing ones are skipped."""

    @abstractmethod
    def list_staged(self, prefix: str) -> Iterator[ObjectInfo]:
        """Like `list`, for staged objects."""


class Releases(ABC):
    """Optional: a backend that holds resources open between calls."""

    __slots__ = ()

    @abstractmethod
    def release(self) -> None:
        """Close them for now; the next call opens them again."""


class Touches(ABC):
    """Optional: renew an object's stamp without sending its bytes again."""

    __slots__ = ()

    @abstractmethod
    def touch(self, names: Iterable[str]) -> None:
        """Renew the stamps of the existing objects among these."""


class LocalFiles(ABC):
    """Optional: objects are plain files of this machine."""

    __slots__ = ()

    @abstractmethod
    def path(self, name: str) -> str:
        """The path of the object, existing or not; the file must be opened for reading only."""


class Adopts(ABC):
    """Optional: takes a complete file of this machine without copying it."""

    __slots__ = ()

    @abstractmethod
    def spool(self) -> str:
        """An existing directory from which `adopt` is a rename; raises `CacheError`."""

    @abstractmethod
    def adopt(self, path: str, name: str) -> bool:
        """Move the file at `path` to `name`; False, without any effect, if it can't be moved."""


class Locks(ABC):
    """Optional: mutual exclusion. A lock saves work and never carries correctness."""

    __slots__ = ()

    @abstractmethod
    def lock(
        self, name: str, give_up: Callable[[], bool] | None = None
    ) -> AbstractContextManager[bool]:
        """Wait until nobody else holds `name`; yields False if locks don't work here.

        The lock of a dead holder is released. `give_up` is called now and then while waiting; once
        it returns True, the wait ends with False.
        """


class Holds(ABC):
    """Optional: marks objects that running builds rely on, so that collection spares them."""

    __slots__ = ()

    @abstractmethod
    def hold(self, names: Iterable[str]) -> None:
        """Protect these from being seized until `unhold`; waits for a running seizure to finish."""

    @abstractmethod
    def unhold(self) -> None:
        """End every hold of this object."""

    @abstractmethod
    def seize(self, names: Sequence[str]) -> AbstractContextManager[Sequence[str]]:
        """Those of `names` that nobody holds; meanwhile nobody can hold them."""


class InDirectory(ABC):
    """Optional: everything is below one directory of this machine."""

    __slots__ = ()

    directory: str
    """Its path."""

    durability: str = "batch"
    """When what is written survives a power cut: `full`, `batch` (at `sync`), or `none`."""


class Cleans(ABC):
    """Optional: a backend that may keep debris of dead processes."""

    __slots__ = ()

    @abstractmethod
    def clean(self, dry_run: bool = False) -> int:
        """Remove files that no living process is writing; returns the number of bytes freed."""


CAPABILITIES: Final[tuple[type, ...]] = (
    Adopts,
    BatchReader,
    Cleans,
    Holds,
    LocalFiles,
    Locks,
    Releases,
    Stages,
    Stats,
    Syncs,
    Touches,
)
"""All that have methods."""
