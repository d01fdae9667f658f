"""A local store with remote ones behind it: read through, written back while the build runs.

A remote can neither fail a build nor make it wrong: everything that it returns is verified, and
objects that do not arrive in time are misses. Objects that could not be uploaded are uploaded by a
later build of the same target: its trail is written last, and lists the uploaded objects.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, BinaryIO, Final, cast

from layercache._base.classes import evolve
from layercache.errors import CacheError, CorruptObject, NotFound, UsageError
from layercache.model.descriptors import LAYER_TAR, Descriptor
from layercache.model.digests import CacheKey, Digest, Fingerprint
from layercache.model.records import Record
from layercache.store.backend import Backend, Stats
from layercache.store.push import Pusher
from layercache.store.remote import Remote, Transfer
from layercache.store.store import Store
from layercache.store.trails import Fact, Trail
from layercache.store.verified_reader import VerifyingReader

__all__ = ["TieredStore", "tiered"]

DEADLINE: Final = 10.0
LINGER: Final = 60.0

SHARED: Final = ("selectors", "untraced")
"""Derived objects that are read and written at a distance: what steps of other machines looked at.

They choose between records, which are then checked. What is derived from a layer (its index, its
accounts) is not among them: it names paths and decides keys, so it is made from verified bytes."""

_TOGETHER: Final = ("untraced", "selectors")
_LARGEST_DERIVED: Final = 4 << 20
_LARGEST_UNKNOWN: Final = 1 << 30
"""Bytes of content that nothing says the size of: logs, listings."""


class TieredStore(Store):
    """The store over `backend`, with `cache_from` to read and `cache_to` to write behind it.

    Args:
        deadline: seconds that one call may take (content gets more, by its size).
        linger: seconds that `close` waits for what is still being sent.

    `lookup` takes a remote record for a hit without fetching its layer; the layer comes when
    its bytes are needed, and stays.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        cache_from: Sequence[Store] = (),
        cache_to: Sequence[Store] = (),
        deadline: float = DEADLINE,
        linger: float = LINGER,
        **options: Any,
    ) -> None:
        super().__init__(backend, **options)
        self._options = {"deadline": deadline, "linger": linger}
        remotes: dict[tuple[int, str, int], Remote] = {}
        self._sources: list[Remote] = []
        targets: list[Remote] = []
        for stores, into in ((cache_from, self._sources), (cache_to, targets)):
            for store in stores:
                name = (id(store.backend), store.prefix, id(store.authority))
                if name not in remotes:
                    remotes[name] = Remote(store, deadline=deadline, report=self._report)
                into.append(remotes[name])
        self._pushers = [Pusher(self, remote) for remote in targets]
        self._linger = linger
        self._seen: dict[CacheKey, Record] = {}
        self._absent: set[CacheKey] = set()
        self._origins: dict[Digest, tuple[Remote, Descriptor]] = {}
        self._lost: set[Digest] = set()
        self._facts: dict[tuple[str, str], Fingerprint] = {}
        self._used: dict[tuple[str, str], Fingerprint] = {}
        self._trails: dict[str, Trail] = {}
        self._derived: dict[tuple[str, str], bytes | None] = {}
        self._asked: dict[str, Trail | None] = {}
        """What remotes said of the trails that this build asked for; emptied at the end of any."""
        self._announced: tuple[Sequence[str], Callable[[], Sequence[str]]] | None = None
        self._bringing: dict[Digest, threading.Lock] = {}

    def __getstate__(self) -> dict[str, object]:
        return {
            **super().__getstate__(),
            **self._options,
            "cache_from": [remote.store for remote in self._sources],
            "cache_to": [pusher.remote.store for pusher in self._pushers],
        }

    def backends(self) -> tuple[Backend, ...]:
        behind = [*self._sources, *(pusher.remote for pusher in self._pushers)]
        return (self.backend, *(remote.store.backend for remote in behind))

    # -- action cache -------------------------------------------------------------------------

    def lookup(self, keys: Sequence[CacheKey]) -> dict[CacheKey, Record]:
        found = super().lookup(keys)
        missing = []
        for key in keys:
            if key in found:
                continue
            seen = self._seen.get(key)
            if seen is not None and self._usable(seen):
                found[key] = seen
            elif key not in self._absent:
                missing.append(key)
        if missing and self._ask_as_announced():
            return self.lookup(keys)
        for remote in self._sources:
            if not missing:
                break
            try:
                there = remote.records(missing)
            except CacheError:
                continue  # said once by the remote
            for key, record in there.items():
                self._remember(remote, record)
                if self._usable(record):
                    found[key] = record
            missing = [key for key in missing if key not in found]
        else:
            self._absent.update(missing)
        return found

    def _remember(self, remote: Remote, record: Record) -> None:
        """Remember a record of a remote, and that its blobs can be fetched from there."""
        with self._guard:
            self._seen.setdefault(record.key, record)
            if record.layer is not None:
                descriptor = record.layer.descriptor
                self._origins.setdefault(descriptor.digest, (remote, descriptor))

    def _usable(self, record: Record) -> bool:
        if super()._usable(record):
            return True
        layer = record.layer
        return layer is not None and self._obtainable(layer.descriptor.digest)

    def _obtainable(self, digest: Digest) -> bool:
        origin = self._origins.get(digest)
        return origin is not None and origin[0].available and digest not in self._lost

    def put(self, record: Record, *, replace: bool = False) -> Record:
        if replace:
            record = self._above_others(record)
        record = super().put(record, replace=replace)
        for pusher in self._pushers:
            pusher.record(record)
        return record

    def _above_others(self, record: Record) -> Record:
        """`record` with a generation above what the remotes have for its key: theirs would else
        win over it again."""
        for remote in self._sources:
            try:
                other = remote.records([record.key]).get(record.key)
            except CacheError:
                continue  # said once by the remote
            if other is not None and other.generation >= record.generation:
                record = evolve(record, generation=other.generation + 1)
        return record

    # -- CAS ----------------------------------------------------------------------------------

    def has_blob(self, descriptor: Descriptor) -> bool:
        return super().has_blob(descriptor) or self._obtainable(descriptor.digest)

    def publish(self, descriptors: Sequence[Descriptor]) -> None:
        """Send blobs to every remote that is written, before returning."""
        for pusher in self._pushers:
            for descriptor in descriptors:
                pusher.blob(descriptor.digest, descriptor.size)

    def obtain(self, descriptor: Descriptor) -> bool:
        """Whether a blob is here, or could be brought here from a remote."""
        if not self._local(descriptor.digest):
            try:
                self._bring(descriptor.digest)
            except CacheError:
                self._lost.discard(descriptor.digest)  # a worker may send it yet
                return False
        return self.has_blob(descriptor)

    def check_blob(self, descriptor: Descriptor) -> bool:
        # One that was damaged here is made again rather than fetched: whoever asks has met the
        # damage, and takes its hit back only when told that the blob is gone.
        if not self._local(descriptor.digest) and not self.blobs.damaged(descriptor.digest):
            try:
                self._bring(descriptor.digest)
            except CacheError:
                return False
        return super().check_blob(descriptor)

    def open_blob(self, digest: Digest) -> BinaryIO:
        if not self._local(digest):
            self._bring(digest)
        return super().open_blob(digest)

    def read_blob(self, digest: Digest) -> bytes:
        if not self._local(digest):
            self._bring(digest)
        return super().read_blob(digest)

    def verified_path(self, descriptor: Descriptor) -> str:
        if not self._local(descriptor.digest):
            self._bring(descriptor.digest)
        return super().verified_path(descriptor)

    def keep_blob(self, descriptor: Descriptor) -> None:
        if not self._local(descriptor.digest):
            self._bring(descriptor.digest)
        super().keep_blob(descriptor)

    def _local(self, digest: Digest) -> bool:
        """Whether the local backend has, or may have, the blob."""
        if self.blobs.kept_aside(digest) or not isinstance(self.medium, Stats):
            return True
        if self.blobs.damaged(digest):
            return False
        try:
            return self.medium.stat(self.blobs.name(digest)) is not None
        except CacheError:
            return False

    def _bring(self, digest: Digest) -> None:
        """Fetch a blob from where it is; raises `NotFound` or `Unavailable` when nowhere."""
        with self._guard:
            lock = self._bringing.setdefault(digest, threading.Lock())
        with lock:
            if self._local(digest) and not self.blobs.damaged(digest):
                return
            origin = self._origins.get(digest)
            first = [origin[0]] if origin is not None else []
            for remote in [*first, *(r for r in self._sources if r not in first)]:
                try:
                    self._fetch(remote, digest, origin[1] if origin else None)
                except CorruptObject as error:
                    self._report("corrupt", self.blobs.name(digest), f"{remote.name}: {error}")
                except CacheError:
                    continue
                else:
                    return
            self._lost.add(digest)
            for pusher in self._pushers:
                pusher.suspect(digest)
            raise NotFound(
                f"blob {digest} is neither in the cache nor in any of the "
                f"{len(self._sources)} caches behind it"
            )

    def _fetch(self, remote: Remote, digest: Digest, descriptor: Descriptor | None) -> None:
        size = descriptor.size if descriptor else None
        media_type = descriptor.media_type if descriptor else LAYER_TAR
        transfer = Transfer()

        def fetch() -> Descriptor:
            source = remote.store.medium.read(remote.store.blobs.name(digest))
            with VerifyingReader(source, digest, size) as content:
                most = _LARGEST_UNKNOWN if size is None else size
                watched = transfer.watch(cast(BinaryIO, content), most)
                return self.blobs.add(watched, media_type)

        remote.call(fetch, size or 0, transfer=transfer)
        for record in list(self._seen.values()):
            if record.layer is not None and record.layer.descriptor.digest == digest:
                super().put(record)

    # -- trails and facts ---------------------------------------------------------------------

    def get_trail(self, target: str) -> Trail | None:
        trail = super().get_trail(target)
        if trail is not None:
            self._trails.setdefault(target, trail)
            if self._complete(trail):
                return trail
        self._ask_as_announced()
        if target not in self._asked:
            self._ask_for([target])
        return trail or self._asked.pop(target, None)

    def prefetch(
        self, names: Sequence[str], beginnings: Callable[[], Sequence[str]] = tuple
    ) -> None:
        """As `Store.prefetch`, once something is not here: a build that is complete asks nobody."""
        with self._guard:
            self._announced = (tuple(names), beginnings) if self._sources else None

    def _ask_as_announced(self) -> bool:
        """Fetch the trails that `prefetch` named, unless that was done; whether it was now."""
        with self._guard:
            announced, self._announced = self._announced, None
        if announced is None:
            return False
        self._fetch_trails(*announced)
        return True

    def _fetch_trails(self, names: Sequence[str], beginnings: Callable[[], Sequence[str]]) -> None:
        local = super().get_trail
        own = [trail for name in names if (trail := local(name)) is not None]
        here = {trail.target for trail in own if self._complete(trail)}
        wanted = [name for name in names if name not in here]
        self._ask_for(wanted)
        if here or any(self._asked.get(name) is not None for name in wanted):
            return
        starts = beginnings()
        for remote in self._sources:
            try:
                target = remote.beginning(starts)
            except CacheError:
                continue  # said once by the remote
            if target is not None:
                self._ask_for([target])
                return

    def _complete(self, trail: Trail) -> bool:
        """Whether everything that the trail predicts is here."""
        records = trail.records()
        return bool(records) and len(super().lookup(list(records))) == len(records)

    def _ask_for(self, targets: Sequence[str]) -> None:
        """Look for the trails of these targets: one round trip for each remote, until all are
        found."""
        self._asked.update(dict.fromkeys(targets))
        for remote in self._sources:
            missing = [target for target in targets if self._asked.get(target) is None]
            if not missing:
                return
            try:
                found = remote.trails(missing)
            except CacheError:
                continue  # said once by the remote
            for target, (trail, data) in found.items():
                for pusher in self._pushers:
                    if pusher.remote is remote:
                        pusher.knows(target, trail, data)
                if trail is not None:
                    self._asked[target] = trail
                    self._predict(remote, trail)

    def _predict(self, remote: Remote, trail: Trail) -> None:
        for record in trail.records().values():
            self._remember(remote, record)
        for fact in trail.facts:
            self._facts.setdefault((fact.subject, fact.selector), fact.fingerprint)

    def put_trail(self, trail: Trail) -> None:
        super().put_trail(trail)
        self._trails[trail.target] = trail

    def get_fact(self, subject: str, selector: str) -> Fingerprint | None:
        fingerprint = super().get_fact(subject, selector)
        if fingerprint is None:
            self._ask_as_announced()
            fingerprint = self._facts.get((subject, selector))
        if fingerprint is not None:
            self._used[subject, selector] = fingerprint
        return fingerprint

    def believes(self, subject: str, selector: str) -> bool:
        return (subject, selector) in self._facts and super().get_fact(subject, selector) is None

    def put_fact(self, subject: str, selector: str, fingerprint: Fingerprint) -> None:
        super().put_fact(subject, selector, fingerprint)
        self._facts.pop((subject, selector), None)
        self._used[subject, selector] = fingerprint

    def facts_for(self, trail: Trail) -> tuple[Fact, ...]:
        """The facts that this object used about the states of `trail`, in a fixed order."""
        chains = {str(step.chain_id) for step in trail.steps}
        return tuple(
            Fact(subject, selector, fingerprint)
            for (subject, selector), fingerprint in sorted(self._used.items())
            if subject in chains
        )

    # -- derived objects ----------------------------------------------------------------------

    def get_derived(self, kind: str, name: str) -> bytes | None:
        payload = super().get_derived(kind, name)
        if payload is not None or kind not in SHARED:
            return payload
        if (kind, name) not in self._derived:
            # What is always asked for together is fetched together.
            kinds = _TOGETHER if kind in _TOGETHER else (kind,)
            found: dict[str, bytes] = {}
            for remote in self._sources:
                try:
                    found = remote.derived(kinds, name)
                except CacheError:
                    continue
                if found:
                    break
            self._derived.update({(one, name): found.get(one) for one in kinds})
        # Another build over this object may have ended meanwhile, and what it forgets is absent.
        return self._derived.get((kind, name))

    def put_derived(self, kind: str, name: str, payload: bytes) -> None:
        super().put_derived(kind, name, payload)
        if kind in SHARED and len(payload) <= _LARGEST_DERIVED:
            for pusher in self._pushers:
                pusher.derived(kind, name, payload)

    # -- acknowledging ------------------------------------------------------------------------

    def commit(self) -> bool:
        """As `Store.commit`; then what changed is sent to the remotes, in the background."""
        durable = super().commit()
        trails, self._trails = list(self._trails.values()), {}
        self._absent.clear()
        self._asked.clear()
        self._announced = None
        self._derived.clear()
        for pusher in self._pushers:
            for trail in trails:
                pusher.trail(trail)
        return durable

    def flush(self, seconds: float | None = None) -> bool:
        """Wait until all was sent, at most so long; whether it was."""
        limit = self._linger if seconds is None else seconds
        done = [pusher.flush(limit) for pusher in self._pushers]
        return all(done)

    def close(self) -> None:
        """Wait for what is being sent, at most `linger` seconds; a later build sends the rest."""
        for pusher in self._pushers:
            if not pusher.flush(self._linger):
                message = (
                    f"the upload to {pusher.remote.name} is incomplete; a later build uploads "
                    "the rest"
                )
                self._report("degraded", pusher.remote.name, message)
            pusher.stop()
        super().close()


def tiered(
    store: Store,
    *,
    cache_from: Sequence[str | Store | Backend] = (),
    cache_to: Sequence[str | Store | Backend] = (),
    salt: str = "",
    deadline: float = DEADLINE,
    linger: float = LINGER,
) -> TieredStore:
    """`store` with others behind it: by URL, as backends or as stores of their own trust.

    Raises `UsageError` for what can't be a cache.
    """
    known: dict[str, Store] = {}

    def open_one(where: str | Store | Backend) -> Store:
        if isinstance(where, Store):
            return where
        options = {"verifier": store.authority, "namespace": store.namespace}
        if not isinstance(where, str):
            return Store(where, salt=salt or store.salt, **options)  # type: ignore[arg-type]
        if where not in known:
            from layercache.store.backends import open_backend

            backend = open_backend(where)
            known[where] = Store(backend, salt=salt or store.salt, **options)  # type: ignore[arg-type]
        return known[where]

    if isinstance(store, TieredStore):
        raise UsageError("this store has others behind it already")
    return TieredStore(
        store.backend,
        cache_from=[open_one(where) for where in cache_from],
        cache_to=[open_one(where) for where in cache_to],
        deadline=deadline,
        linger=linger,
        verifier=store.authority,
        salt=store.salt,
        namespace=store.namespace,
        on_event=store.on_event,
    )
