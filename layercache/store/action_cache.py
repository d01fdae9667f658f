"""The action cache of a store: records by key, verified, staged until they are acknowledged."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext

from layercache._base.classes import evolve
from layercache.errors import CacheError, CorruptObject
from layercache.model.digests import CacheKey, Digest
from layercache.model.records import Record
from layercache.store.backend import Locks
from layercache.store.blobs import is_old
from layercache.store.codec import decode_record, encode_record
from layercache.store.layer_blobs import LayerBlobs
from layercache.store.sealed_objects import SealedObjects

__all__ = ["Elsewhere", "Records"]

Elsewhere = Callable[[Digest], bool]
"""Says of a blob that is not in the store whether it can be brought there."""


def _nowhere(_: Digest) -> bool:
    return False


class Records:
    """Records by key (`layercache.store.parts.ActionCache`). Safe for threads.

    A record whose blob is missing counts as absent, unless the blob is `elsewhere`.
    """

    def __init__(self, objects: SealedObjects, blobs: LayerBlobs) -> None:
        self._objects = objects
        self._blobs = blobs
        self._own: dict[CacheKey, Record] = {}
        self._failed: set[CacheKey] = set()
        # What looking records up saw of their blobs, until somebody relies on them.
        self._stamps: dict[Digest, float] = {}

    def name(self, key: CacheKey) -> str:
        """The object name of the record of `key`."""
        return f"{self._objects.prefix}ac/{key[:2]}/{key}"

    def lookup(
        self, keys: Sequence[CacheKey], elsewhere: Elsewhere = _nowhere
    ) -> dict[CacheKey, Record]:
        """The records of those keys that have one, verified.

        Where looking is cheap, a record whose blob is not there counts as absent; so does one
        that the backend can't read.
        """
        found: dict[CacheKey, Record] = {}
        ask: list[CacheKey] = []
        for key in keys:
            own = self._own.get(key)
            if own is not None and self.usable(own, elsewhere):
                found[key] = own
            elif key not in found:
                ask.append(key)
        if not ask:
            return found
        try:
            there = self._published(ask)
        except CacheError as error:
            self._objects.events.failed(self.name(ask[0]), error)
            return found
        missing: list[CacheKey] = []
        for key in ask:
            record = there.get(key)
            if record is None and self._objects.stages is not None:
                record = self._staged_record(key, elsewhere)
                if record is not None:
                    found[key] = record
                elif key not in there:
                    missing.append(key)
            elif record is not None and self.usable(record, elsewhere):
                found[key] = record
        for key, record in self._just_published(missing).items():
            if self.usable(record, elsewhere):
                found[key] = record
        return found

    def _published(self, keys: Sequence[CacheKey]) -> dict[CacheKey, Record | None]:
        """What lies under those keys that have something, None where it is damaged. Raises
        `CacheError`."""
        names = {key: self.name(key) for key in keys}
        data = self._objects.read_many(list(names.values()))
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
            self._objects.events.failed(self.name(keys[0]), error)
            return {}
        return {key: record for key, record in there.items() if record is not None}

    def rely_on(self, records: Iterable[Record]) -> None:
        """A build relies on these: renew stamps older than half the grace period of collections.

        Costs a look or two for each where looking is cheap, nothing elsewhere. A cache that
        can't be written is read as it is.
        """
        stats, touches = self._objects.stats, self._objects.touches
        if stats is None or touches is None:
            return
        names, old = [], []
        for record in records:
            names.append(self.name(record.key))
            if record.layer is not None:
                digest = record.layer.descriptor.digest
                seen = self._stamps.pop(digest, None)
                if record.layer.is_open:
                    if seen is not None and is_old(seen):
                        self._blobs.renew(digest)
                elif seen is None:
                    names.append(self._blobs.name(digest))
                elif is_old(seen):
                    old.append(self._blobs.name(digest))
        try:
            old += [n for n in names if (info := stats.stat(n)) and is_old(info.stamp)]
            if old:
                touches.touch(old)
        except CacheError as error:
            self._objects.events.failed(names[0], error)

    def all(self, limit: int) -> list[Record] | None:
        """Every record that is there; None when there are more than `limit`, or when looking
        through them is not cheap (a backend at a distance)."""
        if self._objects.stats is None:
            return None
        names = []
        for info in self._objects.medium.list(f"{self._objects.prefix}ac/"):
            names.append(info.name)
            if len(names) > limit:
                return None
        found = {}
        for name, data in self._objects.read_many(names).items():
            key = CacheKey(name.rpartition("/")[2])
            record = self._decode(key, name, data)
            if record is not None:
                found[key] = record
        found.update(self._own)
        return list(found.values())

    def _staged_record(self, key: CacheKey, elsewhere: Elsewhere) -> Record | None:
        """What another build of this boot made and has not acknowledged yet, with its layer."""
        name, stages = self.name(key), self._objects.stages
        if stages is None:
            return None
        try:
            record = self._decode(key, name, stages.staged(name))
        except CacheError as error:
            self._objects.events.failed(name, error)
            return None
        if record is None or not self.usable(record, elsewhere):
            return None  # left by a build that died: published, the record would lack its layer
        self._objects.publish_too(name)
        return record

    def _decode(self, key: CacheKey, name: str, data: bytes | None) -> Record | None:
        if data is None:
            return None
        try:
            return decode_record(key, data, self._objects.verifier)
        except CorruptObject as error:
            self._objects.events.damaged(name, error)
            return None

    def usable(self, record: Record, elsewhere: Elsewhere = _nowhere) -> bool:
        """Whether the record's blob may be there."""
        if record.layer is None:
            return True
        descriptor = record.layer.descriptor
        # Held before it is looked for: what is there then stays until this build is over.
        self._blobs.hold(descriptor.digest)
        if self._objects.stats is None and not self._blobs.kept_aside(descriptor.digest):
            return not self._blobs.damaged(descriptor.digest) or elsewhere(descriptor.digest)
        stamp = self._blobs.stamp(descriptor) if self._objects.stats is not None else None
        if stamp is not None:
            self._stamps[descriptor.digest] = stamp
            return True
        return self._blobs.has(descriptor) or elsewhere(descriptor.digest)

    def put(
        self, record: Record, *, replace: bool = False, elsewhere: Elsewhere = _nowhere
    ) -> Record:
        """Store `record`; returns the one that now stands for its key.

        A usable record that is there already stays unless ours has the higher (generation,
        digest). With `replace` ours gets a generation above it. Never raises for a failing
        backend: the record then serves this object only.
        """
        key, name = record.key, self.name(record.key)
        with self._objects.guard:
            present = self._present(key, elsewhere)
            if present is not None:
                if replace:
                    generation = max(record.generation, present.generation + 1)
                    record = evolve(record, generation=generation)
                elif (
                    key not in self._failed
                    and self.usable(present, elsewhere)
                    and _order(present) >= _order(record)
                ):
                    return present
            self._failed.discard(key)
            stored = encode_record(record, self._objects.verifier)
            record = decode_record(key, stored, self._objects.verifier)
            self._own[key] = record
            if not self._aside(record):
                self._objects.write(name, stored, staged=True, reread=False)
            return record

    def _present(self, key: CacheKey, elsewhere: Elsewhere) -> Record | None:
        own = self._own.get(key)
        if own is not None:
            return own
        name = self.name(key)
        try:
            record = self._published((key,)).get(key)
        except CacheError as error:
            self._objects.events.failed(name, error)
            return None
        if record is None and self._objects.stages is not None:
            return self._staged_record(key, elsewhere) or self._just_published((key,)).get(key)
        return record

    def lock(
        self, key: CacheKey, give_up: Callable[[], bool] | None = None
    ) -> AbstractContextManager[bool]:
        """Let one of many racers execute the step of `key` while the others wait.

        Saves work only. Gives False at once where the backend has no locks. A holder that dies
        lets go. `give_up` is asked while waiting; True ends the wait.
        """
        if not isinstance(self._objects.medium, Locks):
            return nullcontext(False)
        return self._objects.medium.lock(self.name(key), give_up)

    def acknowledged(self, *, durable: bool) -> None:
        """Drop what this object needs no more, now that the backend has it, or failed to."""
        with self._objects.guard:
            if not durable:
                self._failed.update(self._own)
            self._own = {
                key: record
                for key, record in self._own.items()
                if key in self._failed or self._aside(record)
            }

    def forget(self) -> None:
        """Drop what this object remembers of the backend."""
        with self._objects.guard:
            self._own.clear()

    def _aside(self, record: Record) -> bool:
        """Whether the record's blob is with this object only."""
        return record.layer is not None and self._blobs.kept_aside(record.layer.descriptor.digest)


def _order(record: Record) -> tuple[int, bytes]:
    from blake3 import blake3

    return record.generation, blake3(encode_record(record)).digest()
