"""Records and blobs of a local store with remote ones behind it.

A record of a remote counts as soon as it was read; its blob is fetched when its bytes are needed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import BinaryIO, Final, Protocol, cast

from layercache._base.classes import evolve
from layercache.errors import CacheError, CorruptObject, NotFound
from layercache.model.descriptors import LAYER_TAR, Descriptor, Layer
from layercache.model.digests import CacheKey, Digest, TreeDigest, is_tree_digest
from layercache.model.layer_index import LayerIndex
from layercache.model.records import Record
from layercache.store.backend import Stats
from layercache.store.push import Pusher
from layercache.store.remote import Remote, Transfer
from layercache.store.store import Store
from layercache.store.verified_reader import VerifyingReader

__all__ = ["Origins", "TieredBlobs", "TieredRecords"]

_LARGEST_UNKNOWN: Final = 1 << 30
"""Bytes of content that nothing says the size of: logs, listings."""


class Origins:
    """The records that remotes were seen to have, and where their blobs can be fetched from."""

    def __init__(self, local: Store, sources: Sequence[Remote]) -> None:
        self.sources = sources
        self._local = local
        self._guard = threading.Lock()
        self._seen: dict[CacheKey, Record] = {}
        self._origins: dict[Digest, tuple[Remote, Descriptor]] = {}
        self._lost: set[Digest] = set()

    def remember(self, remote: Remote, record: Record) -> None:
        """Remember a record of a remote, and that its blobs can be fetched from there."""
        with self._guard:
            self._seen.setdefault(record.key, record)
            if record.layer is not None:
                descriptor = record.layer.descriptor
                self._origins.setdefault(descriptor.digest, (remote, descriptor))

    def seen(self, key: CacheKey) -> Record | None:
        """The record of `key`, if a remote was seen to have one that is usable now."""
        record = self._seen.get(key)
        return record if record is not None and self.usable(record) else None

    def records_with(self, digest: Digest) -> list[Record]:
        """The seen records whose layer is this blob."""
        seen = list(self._seen.values())
        return [r for r in seen if r.layer is not None and r.layer.descriptor.digest == digest]

    def usable(self, record: Record) -> bool:
        """Whether the record's blob is here or can be fetched."""
        return self._local.records.usable(record, self.obtainable)

    def obtainable(self, digest: Digest) -> bool:
        """Whether the blob can be fetched."""
        origin = self._origins.get(digest)
        return origin is not None and origin[0].available and digest not in self._lost

    def in_order(self, digest: Digest) -> list[Remote]:
        """The remotes to ask for a blob, the one that was seen to have it first."""
        origin = self._origins.get(digest)
        first = [origin[0]] if origin is not None else []
        return [*first, *(remote for remote in self.sources if remote not in first)]

    def descriptor(self, digest: Digest) -> Descriptor | None:
        """The descriptor under which a remote was seen to have the blob; None if none was."""
        origin = self._origins.get(digest)
        return origin[1] if origin is not None else None

    def lost(self, digest: Digest) -> None:
        """Remember that no remote gave the blob."""
        self._lost.add(digest)

    def not_lost(self, digest: Digest) -> None:
        """Ask for the blob again: a worker may send it yet."""
        self._lost.discard(digest)


class _Announced(Protocol):
    def ask_as_announced(self) -> bool:
        """Fetch the announced trails once; returns whether this call did it."""


class TieredRecords:
    """Records of the local store and of remotes (`layercache.store.parts.ActionCache`)."""

    def __init__(
        self, local: Store, origins: Origins, announced: _Announced, pushers: Sequence[Pusher]
    ) -> None:
        self._local = local.records
        self._origins = origins
        self._announced = announced
        self._pushers = pushers
        self._absent: set[CacheKey] = set()

    def lookup(self, keys: Sequence[CacheKey]) -> dict[CacheKey, Record]:
        """The records of those keys that have one, here or in a remote."""
        found = self._local.lookup(keys, self._origins.obtainable)
        missing = []
        for key in keys:
            if key in found:
                continue
            seen = self._origins.seen(key)
            if seen is not None:
                found[key] = seen
            elif key not in self._absent:
                missing.append(key)
        if missing and self._announced.ask_as_announced():
            return self.lookup(keys)
        for remote in self._origins.sources:
            if not missing:
                break
            try:
                there = remote.records(missing)
            except CacheError:
                continue  # said once by the remote
            for key, record in there.items():
                self._origins.remember(remote, record)
                if self._origins.usable(record):
                    found[key] = record
            missing = [key for key in missing if key not in found]
        else:
            self._absent.update(missing)
        return found

    def put(self, record: Record, *, replace: bool = False) -> Record:
        """Store `record` here, and send it to the remotes that are written."""
        if replace:
            record = self._above_others(record)
        obtainable = self._origins.obtainable
        record = self._local.put(record, replace=replace, elsewhere=obtainable)
        for pusher in self._pushers:
            pusher.record(record)
        return record

    def _above_others(self, record: Record) -> Record:
        """`record` with a generation above what the remotes have for its key: theirs would else
        win over it again."""
        for remote in self._origins.sources:
            try:
                other = remote.records([record.key]).get(record.key)
            except CacheError:
                continue  # said once by the remote
            if other is not None and other.generation >= record.generation:
                record = evolve(record, generation=other.generation + 1)
        return record

    def rely_on(self, records: Iterable[Record]) -> None:
        """Renew the stamps of what is here."""
        self._local.rely_on(records)

    def all(self, limit: int) -> list[Record] | None:
        """Every record that is here."""
        return self._local.all(limit)

    def lock(
        self, key: CacheKey, give_up: Callable[[], bool] | None = None
    ) -> AbstractContextManager[bool]:
        """The lock of the local store."""
        return self._local.lock(key, give_up)

    def forget(self) -> None:
        """Ask again for what no remote had."""
        self._absent.clear()


class TieredBlobs:
    """Blobs of the local store, fetched from remotes (`layercache.store.parts.ContentStore`)."""

    def __init__(self, local: Store, origins: Origins, pushers: Sequence[Pusher]) -> None:
        self._store = local
        self._local = local.blobs
        self._origins = origins
        self._pushers = pushers
        self._guard = threading.Lock()
        self._bringing: dict[Digest, threading.Lock] = {}

    def has(self, descriptor: Descriptor) -> bool:
        """Whether the blob is here or can be fetched."""
        return self._local.has(descriptor) or self._origins.obtainable(descriptor.digest)

    def publish(self, descriptors: Sequence[Descriptor]) -> None:
        """Send blobs to every remote that is written, before returning."""
        for pusher in self._pushers:
            for descriptor in descriptors:
                if is_tree_digest(descriptor.digest):
                    descriptor = self._local.seal(TreeDigest(descriptor.digest))
                pusher.blob(descriptor.digest, descriptor.size)

    def obtain(self, descriptor: Descriptor) -> bool:
        """Whether a blob is here, or could be brought here from a remote."""
        try:
            self._bring_unless_here(descriptor.digest)
        except CacheError:
            self._origins.not_lost(descriptor.digest)
            return False
        return self.has(descriptor)

    def intact(self, descriptor: Descriptor) -> bool:
        """Whether the blob is here, or was brought here, and verifies."""
        # One that was damaged here is made again rather than fetched: whoever asks has met the
        # damage, and takes its hit back only when told that the blob is gone.
        if not self._local.damaged(descriptor.digest):
            try:
                self._bring_unless_here(descriptor.digest)
            except CacheError:
                return False
        return self._local.intact(descriptor)

    def distrust(self, digest: Digest) -> None:
        """Treat the blob as absent until it is written again: no remote has a better one."""
        self._local.distrust(digest)
        self._origins.lost(digest)

    def keep(self, descriptor: Descriptor) -> None:
        """Bring the blob here, for a reference that outlives this object."""
        self._bring_unless_here(descriptor.digest)
        self._local.keep(descriptor)

    def open(self, digest: Digest) -> BinaryIO:
        """The blob's bytes, once they are here."""
        self._bring_unless_here(digest)
        return self._local.open(digest)

    def read(self, digest: Digest) -> bytes:
        """All bytes of a small blob, verified."""
        self._bring_unless_here(digest)
        return self._local.read(digest)

    def verified_path(self, descriptor: Descriptor) -> str:
        """A file with the verified bytes."""
        self._bring_unless_here(descriptor.digest)
        return self._local.verified_path(descriptor)

    def open_range(self, descriptor: Descriptor, offset: int, size: int) -> BinaryIO:
        """`size` bytes of the verified blob from `offset` on."""
        self._bring_unless_here(descriptor.digest)
        return self._local.open_range(descriptor, offset, size)

    @property
    def open_layers(self) -> str | None:
        """That of the local store."""
        return self._local.open_layers

    def keep_open(self, layer: Layer, index: LayerIndex, name: str) -> None:
        """Take an open layer here."""
        self._local.keep_open(layer, index, name)

    def sealed(self, layer: Layer) -> Layer:
        """`layer` with its archive, made here: an open layer is nowhere else."""
        return self._local.sealed(layer)

    def add(self, content: BinaryIO, media_type: str) -> Descriptor:
        """Store all of `content` here."""
        return self._local.add(content, media_type)

    def add_file(self, path: str, media_type: str, digest: Digest, size: int) -> Descriptor:
        """Store the complete file at `path` here."""
        return self._local.add_file(path, media_type, digest, size)

    def _here(self, digest: Digest) -> bool:
        """Whether the local backend has, or may have, the blob."""
        if is_tree_digest(digest):
            return True  # an open layer is nowhere else
        medium = self._store.objects.medium
        if self._local.kept_aside(digest) or not isinstance(medium, Stats):
            return True
        if self._local.damaged(digest):
            return False
        try:
            return medium.stat(self._local.name(digest)) is not None
        except CacheError:
            return False

    def _bring_unless_here(self, digest: Digest) -> None:
        """Fetch a blob from where it is; raises `NotFound` or `Unavailable` when nowhere."""
        if self._here(digest):
            return
        with self._guard:
            lock = self._bringing.setdefault(digest, threading.Lock())
        with lock:
            if self._here(digest) and not self._local.damaged(digest):
                return
            for remote in self._origins.in_order(digest):
                try:
                    self._fetch(remote, digest)
                except CorruptObject as error:
                    report = self._store.events.report
                    report("corrupt", self._local.name(digest), f"{remote.name}: {error}")
                except CacheError:
                    continue
                else:
                    return
            self._origins.lost(digest)
            for pusher in self._pushers:
                pusher.suspect(digest)
            raise NotFound(
                f"blob {digest} is neither in the cache nor in any of the "
                f"{len(self._origins.sources)} caches behind it"
            )

    def _fetch(self, remote: Remote, digest: Digest) -> None:
        descriptor = self._origins.descriptor(digest)
        size = descriptor.size if descriptor else None
        media_type = descriptor.media_type if descriptor else LAYER_TAR
        transfer = Transfer()

        def fetch() -> Descriptor:
            with VerifyingReader(remote.open(digest), digest, size) as content:
                most = _LARGEST_UNKNOWN if size is None else size
                watched = transfer.watch(cast(BinaryIO, content), most)
                return self._local.add(watched, media_type)

        remote.call(fetch, size or 0, transfer=transfer)
        for record in self._origins.records_with(digest):
            self._store.records.put(record, elsewhere=self._origins.obtainable)
