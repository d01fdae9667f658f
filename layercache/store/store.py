"""The store: an action cache (key → record) and a CAS (digest → blob) over one backend.

The reader verifies: every record by a checksum bound to its key, every blob by size and digest. An
object that is missing, damaged or stored under another key is a miss and an event, and is replaced
by the next write. A failure of the backend never fails a build: objects that it does not accept are
kept for the life of this object.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, BinaryIO, cast

from layercache._base.classes import evolve
from layercache.errors import CacheError, CorruptObject, NotFound
from layercache.model.descriptors import Descriptor
from layercache.model.digests import CacheKey, Digest
from layercache.model.records import Record
from layercache.store.backend import Backend, Holds, Locks, Releases, Stages, Syncs
from layercache.store.blobs import GRACE, BlobStore, is_old
from layercache.store.codec import Verifier, decode_record, encode_record
from layercache.store.small_objects import Objects, StoreEvent

__all__ = ["GRACE", "Store", "StoreEvent"]


class Store(Objects):
    """The two caches over `backend`. Safe for threads; any number may share a backend.

    `verifier` authenticates what is read and signs what is written. `salt` disowns everything
    written under another salt, `namespace` keeps writers apart. `on_event` is called from the
    thread that noticed.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        verifier: Verifier | None = None,
        salt: str = "",
        namespace: str = "",
        on_event: Callable[[StoreEvent], None] | None = None,
    ) -> None:
        super().__init__(
            backend, verifier=verifier, salt=salt, namespace=namespace, on_event=on_event
        )
        self._own: dict[CacheKey, Record] = {}
        self._failed: set[CacheKey] = set()
        self._under_way = 0
        # What looking records up saw of their blobs, until somebody relies on them.
        self._stamps: dict[Digest, float] = {}
        self.blobs = BlobStore(self.medium, self._prefix, self._report, self._trouble)

    def __repr__(self) -> str:
        return f"Store({self.backend!r})"

    def __getstate__(self) -> dict[str, object]:
        return {
            "backend": self.backend,
            "verifier": self.authority,
            "salt": self.salt,
            "namespace": self.namespace,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def backends(self) -> tuple[Backend, ...]:
        """Where objects are kept: its own backend, then those behind it."""
        return (self.backend,)

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- action cache -------------------------------------------------------------------------

    def lookup(self, keys: Sequence[CacheKey]) -> dict[CacheKey, Record]:
        """The records of those keys that have one, verified.

        Where looking is cheap, a record whose blob is not there counts as absent; so does one
        that the backend can't read.
        """
        found: dict[CacheKey, Record] = {}
        ask: list[CacheKey] = []
        for key in keys:
            own = self._own.get(key)
            if own is not None and self._usable(own):
                found[key] = own
            elif key not in found:
                ask.append(key)
        if not ask:
            return found
        try:
            there = self._published(ask)
        except CacheError as error:
            self._trouble(self.record_name(ask[0]), error)
            return found
        missing: list[CacheKey] = []
        for key in ask:
            record = there.get(key)
            if record is None and self._stages is not None:
                record = self._staged_record(key, self.record_name(key))
                if record is not None:
                    found[key] = record
                elif key not in there:
                    missing.append(key)
            elif record is not None and self._usable(record):
                found[key] = record
        for key, record in self._just_published(missing).items():
            if self._usable(record):
                found[key] = record
        return found

    def _published(self, keys: Sequence[CacheKey]) -> dict[CacheKey, Record | None]:
        """What lies under those keys that have something, None where it is damaged. Raises
        `CacheError`."""
        names = {key: self.record_name(key) for key in keys}
        data = self.read_small(list(names.values()))
        return {
            key: self._decode(key, name, data[name]) for key, name in names.items() if name in data
        }

    def _just_published(self, keys: Sequence[CacheKey]) -> dict[CacheKey, Record]:
        """The records that a twin acknowledged between a look at their place and one at where
        they were staged."""
        if not keys:
            return {}
        try:
            there = self._published(keys)
        except CacheError as error:
            self._trouble(self.record_name(keys[0]), error)
            return {}
        return {key: record for key, record in there.items() if record is not None}

    def rely_on(self, records: Iterable[Record]) -> None:
        """A build relies on these: renew stamps older than half the grace period of collections.

        Costs a look or two for each where looking is cheap, nothing elsewhere. A cache that
        can't be written is read as it is.
        """
        if self._stats is None or self._touches is None:
            return
        names, old = [], []
        for record in records:
            names.append(self.record_name(record.key))
            if record.layer is not None:
                digest = record.layer.descriptor.digest
                seen = self._stamps.pop(digest, None)
                if seen is None:
                    names.append(self.blobs.name(digest))
                elif is_old(seen):
                    old.append(self.blobs.name(digest))
        try:
            old += [n for n in names if (info := self._stats.stat(n)) and is_old(info.stamp)]
            if old:
                self._touches.touch(old)
        except CacheError as error:
            self._trouble(names[0], error)

    def all_records(self, limit: int) -> list[Record] | None:
        """Every record that is there; None when there are more than `limit`, or when looking
        through them is not cheap (a backend at a distance)."""
        if self._stats is None:
            return None
        names = []
        for info in self.medium.list(f"{self._prefix}ac/"):
            names.append(info.name)
            if len(names) > limit:
                return None
        found = {}
        for name, data in self.read_small(names).items():
            key = CacheKey(name.rpartition("/")[2])
            record = self._decode(key, name, data)
            if record is not None:
                found[key] = record
        found.update(self._own)
        return list(found.values())

    def _staged_record(self, key: CacheKey, name: str) -> Record | None:
        """What another build of this boot made and has not acknowledged yet, with its layer."""
        assert self._stages is not None
        try:
            record = self._decode(key, name, self._stages.staged(name))
        except CacheError as error:
            self._trouble(name, error)
            return None
        if record is None or not self._usable(record):
            return None  # left by a build that died: published, the record would lack its layer
        with self._guard:
            self._staged[name] = None  # this build relies on it now, so it publishes it too
        return record

    def _decode(self, key: CacheKey, name: str, data: bytes | None) -> Record | None:
        if data is None:
            return None
        try:
            return decode_record(key, data, self._verifier)
        except CorruptObject as error:
            self._damage(name, error)
            return None

    def _usable(self, record: Record) -> bool:
        """Whether the record's blob may be there."""
        if record.layer is None:
            return True
        descriptor = record.layer.descriptor
        # Held before it is looked for: what is there then stays until this build is over.
        self.blobs.hold(descriptor.digest)
        if self._stats is None and not self.blobs.kept_aside(descriptor.digest):
            return not self.blobs.damaged(descriptor.digest)
        stamp = self.blobs.stamp(descriptor) if self._stats is not None else None
        if stamp is not None:
            self._stamps[descriptor.digest] = stamp
            return True
        return self.has_blob(descriptor)

    def put(self, record: Record, *, replace: bool = False) -> Record:
        """Store `record`; returns the one that now stands for its key.

        A usable record that is there already stays unless ours has the higher (generation,
        digest). With `replace` ours gets a generation above it. Never raises for a failing
        backend: the record then serves this object only.
        """
        key, name = record.key, self.record_name(record.key)
        with self._guard:
            present = self._present(key)
            if present is not None:
                if replace:
                    generation = max(record.generation, present.generation + 1)
                    record = evolve(record, generation=generation)
                elif (
                    key not in self._failed
                    and self._usable(present)
                    and _order(present) >= _order(record)
                ):
                    return present
            self._failed.discard(key)
            stored = encode_record(record, self._verifier)
            record = decode_record(key, stored, self._verifier)
            self._own[key] = record
            if not self._aside(record):
                self._write_small(name, stored, staged=True)
            return record

    def _present(self, key: CacheKey) -> Record | None:
        own = self._own.get(key)
        if own is not None:
            return own
        name = self.record_name(key)
        try:
            record = self._published((key,)).get(key)
        except CacheError as error:
            self._trouble(name, error)
            return None
        if record is None and self._stages is not None:
            record = self._staged_record(key, name)
            if record is None:
                record = self._just_published((key,)).get(key)
        return record

    def lock(
        self, key: CacheKey, give_up: Callable[[], bool] | None = None
    ) -> AbstractContextManager[bool]:
        """Let one of many racers execute the step of `key` while the others wait.

        Saves work only. Gives False at once where the backend has no locks. A holder that dies
        lets go. `give_up` is asked while waiting; True ends the wait.
        """
        if not isinstance(self.medium, Locks):
            return nullcontext(False)
        return self.medium.lock(self.record_name(key), give_up)

    # -- CAS ----------------------------------------------------------------------------------

    def has_blob(self, descriptor: Descriptor) -> bool:
        """Whether the blob is there, by name and size; reads nothing."""
        return self.blobs.has(descriptor)

    def publish(self, descriptors: Sequence[Descriptor]) -> None:
        """Make these blobs known wherever others of a shared store look; here is where. Raises
        `CacheError` when they can't be."""

    def obtain(self, descriptor: Descriptor) -> bool:
        """Whether a blob is here, or could be brought here from where others store theirs."""
        return self.has_blob(descriptor)

    def check_blob(self, descriptor: Descriptor) -> bool:
        """Whether the blob is there and intact; reads all of it."""
        try:
            self.blobs.check(descriptor)
        except CacheError as error:
            if not isinstance(error, NotFound | CorruptObject):
                self._trouble(self.blobs.name(descriptor.digest), error)
            return False
        return True

    def distrust(self, descriptor: Descriptor) -> None:
        """Treat the blob as absent until it is written again: it is not what it was taken for."""
        self.blobs.distrust(descriptor.digest)

    def open_blob(self, digest: Digest) -> BinaryIO:
        """The blob's bytes; reading to the end raises `CorruptObject` when they are not right.

        Raises `NotFound`, or `CacheError` when the backend fails.
        """
        return cast(BinaryIO, self.blobs.open(digest))

    def read_blob(self, digest: Digest) -> bytes:
        """All bytes of a small blob, verified."""
        with self.blobs.open(digest) as content:
            return content.readall()

    def verified_path(self, descriptor: Descriptor) -> str:
        """A file with the verified bytes, for reading by offset while this store is open.

        Verified once as long as the file stays the same; a remote blob is fetched. Raises
        `NotFound`, `CorruptObject` or `CacheError`.
        """
        return self.blobs.verified_path(descriptor)

    def open_range(self, descriptor: Descriptor, offset: int, size: int) -> BinaryIO:
        """`size` bytes of the verified blob from `offset` on."""
        path = self.verified_path(descriptor)
        try:
            with open(path, "rb", buffering=0) as source:
                source.seek(offset)
                return io.BytesIO(_read_exactly(source, size))
        except OSError as error:
            raise CacheError(f"blob {descriptor.digest} can't be read: {error}") from error

    def add_blob(self, content: BinaryIO, media_type: str) -> Descriptor:
        """Store all of `content`.

        Content that the backend does not accept is kept for the life of this object. Raises
        `CacheError` only if that fails, too.
        """
        self._mark_format()
        return self.blobs.add(content, media_type)

    def add_file(self, path: str, media_type: str, digest: Digest, size: int) -> Descriptor:
        """Store the complete file at `path`, whose digest the caller computed while writing.

        It is moved into place where that is possible, else copied and removed.
        """
        self._mark_format()
        return self.blobs.add_file(path, media_type, digest, size)

    def keep_blob(self, descriptor: Descriptor) -> None:
        """Make sure that the blob is in the backend itself, for a reference that outlives us.

        Raises `CacheError` where it is not: one that the backend did not take is with this
        object only, and gone with it.
        """
        digest = descriptor.digest
        self.blobs.hold(digest)
        if self.blobs.kept_aside(digest) or self.blobs.stamp(descriptor) is None:
            raise CacheError(f"the cache {self.backend!r} does not hold the layer {digest}")

    # -- acknowledging ------------------------------------------------------------------------

    def commit(self) -> bool:
        """Return when all that was put is durable: blobs first, then what refers to them.

        Nothing is synced when no blob, record or reference was put; two syncs otherwise. A
        failure is an event, not an error: what was put then serves this object only. Whether
        all that the backend took is durable.
        """
        durable = True
        with self._guard:
            names, self._staged = list(self._staged), {}
            if names or self.blobs.written:
                try:
                    self._acknowledge(names)
                except CacheError as error:
                    durable = False
                    self._trouble("commit", error)
                    self.blobs.rescue()
                    self._failed.update(self._own)
                else:
                    self.blobs.written.clear()
            self._own = {
                key: record
                for key, record in self._own.items()
                if key in self._failed or self._aside(record)
            }
            self._small.clear()
            if not self._under_way:
                self._unhold()
        return durable

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """A build or a plan is under way: what it relies on is held until the last one ends,
        also when another acknowledges before it."""
        with self._guard:
            self._under_way += 1
        try:
            yield
        finally:
            with self._guard:
                self._under_way -= 1
                if not self._under_way:
                    self._unhold()

    def _unhold(self) -> None:
        if isinstance(self.medium, Holds):
            try:
                self.medium.unhold()
            except CacheError as error:
                self._trouble("holds", error)

    def _acknowledge(self, names: Sequence[str]) -> None:
        if self._stats is not None and self._stats.stat("format") is None:
            self._marked = False  # somebody removed the directory under us
            self._mark_format()
        if isinstance(self.medium, Syncs):
            self.medium.sync()
        if names and isinstance(self.medium, Stages):
            self.medium.publish(names)
            if isinstance(self.medium, Syncs):
                self.medium.sync()

    def _aside(self, record: Record) -> bool:
        """Whether the record's blob is with this object only."""
        return record.layer is not None and self.blobs.kept_aside(record.layer.descriptor.digest)

    def forget(self) -> None:
        """Drop what this object remembers of the backend, after something was removed there."""
        with self._guard:
            self._own.clear()
            self._small.clear()

    def close(self) -> None:
        """End the use of this object; what was not committed is not acknowledged."""
        self._unhold()
        self.blobs.close()
        if isinstance(self.medium, Releases):
            try:
                self.medium.release()
            except CacheError as error:
                self._trouble("close", error)


def _order(record: Record) -> tuple[int, bytes]:
    from blake3 import blake3

    return record.generation, blake3(encode_record(record)).digest()


def _read_exactly(source: io.FileIO, size: int) -> bytes:
    parts = []
    while size > 0 and (chunk := source.read(size)):
        parts.append(chunk)
        size -= len(chunk)
    return b"".join(parts)
