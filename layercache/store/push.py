"""Uploads to a remote cache while the build runs.

The queue is bounded by dropping entries: a dropped record is found again when the trail of its
target is uploaded, which compares it with the remote's trail. The trail goes last, so everything
that it names is there, and an unchanged trail costs one request.
"""

from __future__ import annotations

import atexit
import threading
import time
import weakref
from collections import deque
from typing import Final, Protocol

from layercache._base.classes import evolve, frozen
from layercache.errors import CacheError, NotFound
from layercache.model.digests import CacheKey, Digest
from layercache.model.records import Record
from layercache.store.backend import Syncs
from layercache.store.blobs import is_old
from layercache.store.codec import encode_record
from layercache.store.parts import ContentStore
from layercache.store.remote import Remote, Transfer, Unavailable
from layercache.store.selectors_seen import merge_selectors
from layercache.store.store_events import StoreEvents
from layercache.store.trails import (
    Fact,
    Trail,
    TrailStep,
    beginnings_of,
    definition_of,
    encode_trail,
)

__all__ = ["Pusher"]

_MOST_WAITING: Final = 256
_ASK_FIRST: Final = 1 << 16
"""From this size on a blob is looked for before it is sent."""


@frozen
class _Derived:
    """A derived object that is to be sent."""

    kind: str
    name: str
    payload: bytes


class UsedFacts(Protocol):
    """Remembers which facts were used."""

    def used_for(self, trail: Trail) -> tuple[Fact, ...]:
        """The facts that were used about the states of `trail`, in a fixed order."""


class Local(Protocol):
    """The cache whose objects a pusher sends."""

    @property
    def blobs(self) -> ContentStore: ...

    @property
    def facts(self) -> UsedFacts: ...

    @property
    def events(self) -> StoreEvents: ...


class Pusher:
    """One remote that is written to by one background thread."""

    def __init__(self, store: Local, remote: Remote) -> None:
        self.remote = remote
        self._store = weakref.ref(store)
        self._wake = threading.Condition()
        self._jobs: deque[Record | Trail | _Derived] = deque()
        self._busy = False
        self._stopped = False
        self._thread: threading.Thread | None = None
        self._failed = False
        self._said = False
        self._sent: set[CacheKey] = set()
        self._blobs: set[Digest] = set()
        self._suspects: set[Digest] = set()
        self._there: dict[str, tuple[Trail | None, bytes]] = {}

    # -- from the build -----------------------------------------------------------------------

    def record(self, record: Record) -> None:
        """Schedule the upload of a record that was just made."""
        self._add(record)

    def derived(self, kind: str, name: str, payload: bytes) -> None:
        """Schedule the upload of a derived object, after the records that were made before it."""
        self._add(_Derived(kind, name, payload))

    def trail(self, trail: Trail) -> None:
        """Upload everything of `trail` that the remote lacks, then the trail itself."""
        self._add(trail)

    def knows(self, target: str, trail: Trail | None, data: bytes) -> None:
        """Report that the remote's trail was just read, so that it need not be read again."""
        self._there[target] = (trail, data)

    def blob(self, digest: Digest, size: int) -> None:
        """Upload a blob now unless the remote has it; raises `CacheError` on failure."""
        self._send_blob(digest, size, ask=True)

    def suspect(self, digest: Digest) -> None:
        """A blob could not be read from the remote: upload it even if the remote claims to have
        it.
        """
        self._suspects.add(digest)
        self._blobs.discard(digest)

    def flush(self, seconds: float) -> bool:
        """Wait until the queue is empty, at most this long; returns whether everything was
        uploaded.
        """
        end = time.monotonic() + seconds
        with self._wake:
            while self._jobs or self._busy:
                left = end - time.monotonic()
                if left <= 0 or not self.remote.writable:
                    return False
                self._wake.wait(min(left, 0.2))
            return not self._failed

    def stop(self) -> None:
        """Stop all uploads."""
        with self._wake:
            self._stopped = True
            self._jobs.clear()
            self._wake.notify_all()

    def _add(self, job: Record | Trail | _Derived) -> None:
        with self._wake:
            if self._stopped:
                return
            if isinstance(job, Trail) or len(self._jobs) < _MOST_WAITING:
                self._jobs.append(job)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="layercache-push", daemon=True
                )
                self._thread.start()
                atexit.register(_at_exit, weakref.ref(self))
            self._wake.notify_all()

    # -- in the background --------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._wake:
                while not self._jobs and not self._stopped:
                    self._wake.wait()
                if self._stopped:
                    return
                job = self._jobs.popleft()
                self._busy = True
            try:
                self._send(job)
                if isinstance(job, Trail):
                    self._failed = False
            except CacheError:
                self._failed = True  # said once by the remote; the trail there stays the old one
            except Exception as error:  # noqa: BLE001  (a thread has no caller to raise to)
                self._failed = True
                store = self._store()
                known, self._said = self._said, True
                if store is not None and not known:
                    store.events.report("degraded", self.remote.name, f"sending failed: {error!r}")
            finally:
                with self._wake:
                    self._busy = False
                    self._wake.notify_all()

    def _send(self, job: Record | Trail | _Derived) -> None:
        if isinstance(job, Record):
            self._send_record(job, fresh=True)
        elif isinstance(job, _Derived):
            self._send_derived(job)
        else:
            self._send_trail(job)

    def _send_derived(self, job: _Derived) -> None:
        payload = job.payload
        there = self.remote.derived((job.kind,), job.name).get(job.kind)
        if job.kind == "selectors":
            payload = merge_selectors(payload, there)
        if payload != there:
            self._write(*self.remote.store.derived.encoded(job.kind, job.name, payload))

    def _send_trail(self, trail: Trail) -> None:
        store = self._store()
        if store is None:
            return
        rows = [(s.stage, s.index, s.op, s.text) for s in trail.steps]
        name = definition_of(rows)
        there, data = self._there.get(name) or self.remote.trail(name)
        verifier = self.remote.store.objects.verifier
        steps = tuple(self._step_for_others(store, step) for step in trail.steps)
        trail = evolve(trail, steps=steps, facts=_merged(trail, store.facts.used_for(trail), there))
        # Labels may differ from build to build; what every machine finds stays the same.
        plain = evolve(trail, target=name, labels=())
        named = {
            trail.target: encode_trail(trail, verifier),
            name: encode_trail(plain, verifier),
        }
        if data == named[name]:
            self._there[name] = (there, data)
            return
        known = there.records() if there is not None else {}
        lacking = {
            key: record
            for key, record in trail.records().items()
            if known.get(key) != record and key not in self._sent
        }
        present = self.remote.records(list(lacking)) if lacking else {}
        for key, record in lacking.items():
            other = present.get(key)
            if other is None or other.generation < record.generation:
                self._send_record(record, fresh=False)
        remote = self.remote.store.objects.medium
        if isinstance(remote, Syncs):
            self.remote.call(remote.sync, write=True)  # what the trail names is there before it is
        for target, content in named.items():
            self._write(self.remote.store.trails.name(target), content)
        for beginning in () if there is not None else beginnings_of(rows):
            self._write(*self.remote.store.derived.beginning(beginning, name))
        self._there[name] = (trail, named[name])

    def _step_for_others(self, store: Local, step: TrailStep) -> TrailStep:
        """`step` as others can use it: its layer has an archive."""
        record = step.record
        if record is None or record.layer is None or not record.layer.is_open:
            return step
        try:
            return evolve(step, record=_for_others(store, record))
        except NotFound:
            return evolve(step, record=None)  # lost: a later build makes it and sends it

    def _send_record(self, record: Record, *, fresh: bool) -> None:
        store = self._store()
        if store is None:
            return
        record = _for_others(store, record)
        digests: dict[Digest, int] = {}
        if record.layer is not None:
            digests[record.layer.descriptor.digest] = record.layer.descriptor.size
        if record.log is not None:
            digests[record.log] = 0
        for _, digest in record.manifests:
            digests[digest] = 0
        for digest, size in digests.items():
            self._send_blob(digest, size, ask=not fresh or size >= _ASK_FIRST)
        remote = self.remote.store
        content = encode_record(record, remote.objects.verifier)
        self._write(remote.records.name(record.key), content)
        self._sent.add(record.key)

    def _send_blob(self, digest: Digest, size: int, *, ask: bool) -> None:
        store, remote = self._store(), self.remote.store
        if store is None or digest in self._blobs:
            return
        name = remote.blobs.name(digest)
        if ask and digest not in self._suspects:
            infos = self.remote.call(lambda: list(remote.objects.medium.list(name)))
            there = [i for i in infos if i.name == name and (not size or i.size == size)]
            # One that a collection there may soon take is sent again, and so renewed.
            if any(not is_old(info.stamp) for info in there):
                self._blobs.add(digest)
                return
        try:
            with store.blobs.open(digest) as content:
                while content.read(1 << 20):  # never send what would not verify
                    pass
            content = store.blobs.open(digest)
        except NotFound:
            if size:
                raise Unavailable(
                    f"can't upload the blob {digest}: it is not in the local cache"
                ) from None
            return  # only explanations need it
        transfer = Transfer()
        with content:
            watched = transfer.watch(content)
            self.remote.call(
                lambda: remote.objects.copy_in(name, watched), size, write=True, transfer=transfer
            )
        self._suspects.discard(digest)
        self._blobs.add(digest)

    def _write(self, name: str, data: bytes) -> None:
        import io

        write = self.remote.store.objects.copy_in
        self.remote.call(lambda: write(name, io.BytesIO(data)), len(data), write=True)


def _for_others(store: Local, record: Record) -> Record:
    """`record` with the archive of its layer: a remote holds nothing else."""
    if record.layer is None or not record.layer.is_open:
        return record
    return evolve(record, layer=store.blobs.sealed(record.layer))


def _merged(trail: Trail, used: tuple[Fact, ...], there: Trail | None) -> tuple[Fact, ...]:
    """The facts used now, and those there that are about the same states."""
    chains = {str(step.chain_id) for step in trail.steps}
    old = [fact for fact in (there.facts if there is not None else ()) if fact.subject in chains]
    found = {(f.subject, f.selector): f for f in (*old, *trail.facts, *used)}
    return tuple(found[name] for name in sorted(found))


def _at_exit(pusher: weakref.ref[Pusher]) -> None:
    """Give uploads that are under way a moment before the interpreter exits."""
    found = pusher()
    if found is not None and not found._stopped:
        found.flush(10.0)
