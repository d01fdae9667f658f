"""The store: an action cache (key → record) and a CAS (digest → blob) over one backend.

The reader verifies: every record by a checksum bound to its key, every blob by size and digest.
What is missing, damaged or of another key is a miss and an event, and is replaced by the next
write. A failure of the backend never fails a build: what it does not take is kept for the life
of this object.
"""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, BinaryIO, Final, cast

import attrs

from layercache.blobs import Blobs
from layercache.codec import (
    FORMAT,
    Verifier,
    decode_record,
    encode_record,
    pack,
    seal,
    unpack,
    unseal,
)
from layercache.descriptors import Descriptor
from layercache.digests import CacheKey, Digest, Fingerprint
from layercache.errors import CacheError, CorruptObject, NotFound, UsageError
from layercache.records import Record
from layercache.storage import (
    Backend,
    BatchReader,
    Holds,
    Locks,
    Releases,
    Stages,
    Stats,
    Syncs,
    Touches,
)
from layercache.trails import Trail, decode_trail, encode_trail

__all__ = ["Store", "StoreEvent"]

GRACE: Final = 86_400.0
"""Seconds for which a collection never removes what was written or relied on."""

_MARKER: Final = b"layercache store, format "
_LARGE: Final = 1 << 26  # no small object comes near; bounds what a damaged one may cost


@attrs.frozen
class StoreEvent:
    """Something the store noticed. `kind` is one of these words:

    `corrupt` (an object is damaged and counts as absent), `healed` (it was written again),
    `untrusted` (no trusted writer signed it), `newer` (of a later format), `degraded` (the
    backend fails; the build goes on without), `recovered`.
    """

    kind: str
    name: str
    message: str


class Store:
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
        self.backend = backend
        self.salt = salt
        self.namespace = namespace
        self._verifier = verifier
        self._prefix = _prefix(namespace, salt)
        self.on_event = on_event
        self._guard = threading.RLock()
        self._own: dict[CacheKey, Record] = {}
        self._failed: set[CacheKey] = set()
        self._damaged: set[str] = set()
        self._staged: dict[str, None] = {}
        self._small: dict[str, bytes] = {}
        self._told: set[tuple[str, str]] = set()
        self._marked = False
        # Looking for a capability costs more than using it: once is enough.
        self._stats = backend if isinstance(backend, Stats) else None
        self._stages = backend if isinstance(backend, Stages) else None
        self._batches = backend if isinstance(backend, BatchReader) else None
        self.blobs = Blobs(backend, self._prefix, self._report, self._trouble)
        if isinstance(backend, Stats):
            self._check_format()

    def __repr__(self) -> str:
        return f"Store({self.backend!r})"

    def __getstate__(self) -> dict[str, object]:
        return {
            "backend": self.backend,
            "verifier": self._verifier,
            "salt": self.salt,
            "namespace": self.namespace,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

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
        stages = self._stages is not None
        try:
            data = self.read_small([self.record_name(key) for key in ask])
        except CacheError as error:
            self._trouble(self.record_name(ask[0]), error)
            return found
        for key in ask:
            name = self.record_name(key)
            record = self._decode(key, name, data.get(name))
            if record is None and stages:
                record = self._staged_record(key, name)
            if record is not None and self._usable(record):
                found[key] = record
        return found

    def rely_on(self, records: Iterable[Record]) -> None:
        """A build relies on these: renew stamps older than half the grace period of collections.

        Costs two looks for each where looking is cheap, nothing elsewhere. A cache that can't
        be written is read as it is.
        """
        if self._stats is None or not isinstance(self.backend, Touches):
            return
        limit = time.time() - GRACE / 2
        names = []
        for record in records:
            names.append(self.record_name(record.key))
            if record.layer is not None:
                names.append(self.blobs.name(record.layer.descriptor.digest))
        try:
            old = [n for n in names if (info := self._stats.stat(n)) and info.stamp < limit]
            if old:
                self.backend.touch(old)
        except CacheError as error:
            self._trouble(names[0], error)

    def all_records(self, limit: int) -> list[Record] | None:
        """Every record that is there; None when there are more than `limit`, or when looking
        through them is not cheap (a backend at a distance)."""
        if not isinstance(self.backend, Stats):
            return None
        names = []
        for info in self.backend.list(f"{self._prefix}ac/"):
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
        """What another build of this boot made and has not acknowledged yet."""
        assert self._stages is not None
        try:
            data = self._stages.staged(name)
        except CacheError as error:
            self._trouble(name, error)
            return None
        record = self._decode(key, name, data)
        if record is not None:
            with self._guard:
                self._staged[name] = None  # ours to acknowledge too, once we rely on it
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
                    record = attrs.evolve(record, generation=generation)
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
            record = self._decode(key, name, self.read_small([name]).get(name))
        except CacheError as error:
            self._trouble(name, error)
            return None
        if record is None and self._stages is not None:
            record = self._staged_record(key, name)
        return record

    def lock(
        self, key: CacheKey, give_up: Callable[[], bool] | None = None
    ) -> AbstractContextManager[bool]:
        """Let one of many racers execute the step of `key` while the others wait.

        Saves work only. Gives False at once where the backend has no locks. A holder that dies
        lets go. `give_up` is asked while waiting; True ends the wait.
        """
        if not isinstance(self.backend, Locks):
            return nullcontext(False)
        return self.backend.lock(self.record_name(key), give_up)

    # -- CAS ----------------------------------------------------------------------------------

    def has_blob(self, descriptor: Descriptor) -> bool:
        """Whether the blob is there, by name and size; reads nothing."""
        return self.blobs.has(descriptor)

    def check_blob(self, descriptor: Descriptor) -> bool:
        """Whether the blob is there and intact; reads all of it."""
        try:
            self.blobs.check(descriptor)
        except CacheError as error:
            if not isinstance(error, NotFound | CorruptObject):
                self._trouble(self.blobs.name(descriptor.digest), error)
            return False
        return True

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

        What the backend does not take is kept for the life of this object; `CacheError` only
        when there is no room for that either.
        """
        self._mark_format()
        return self.blobs.add(content, media_type)

    def add_file(self, path: str, media_type: str, digest: Digest, size: int) -> Descriptor:
        """Store the complete file at `path`, whose digest the caller computed while writing.

        It is moved into place where that is possible, else copied and removed.
        """
        self._mark_format()
        return self.blobs.add_file(path, media_type, digest, size)

    # -- trails, facts, derived objects, references -------------------------------------------

    def get_trail(self, target: str) -> Trail | None:
        """The prediction for `target`, None when there is none that verifies."""
        name = f"{self._prefix}trails/{target}"
        data = self._get_small(name)
        if data is None:
            return None
        try:
            return decode_trail(target, data, self._verifier)
        except CorruptObject as error:
            self._damage(name, error)
            return None

    def trails(self) -> list[Trail]:
        """Every trail that verifies. Costs a request for each where the backend is remote."""
        prefix = f"{self._prefix}trails/"
        names = [info.name.removeprefix(prefix) for info in self.backend.list(prefix)]
        return [trail for name in sorted(names) if (trail := self.get_trail(name)) is not None]

    def prefetch(self, names: Sequence[str]) -> None:
        """Fetch the trail of the first of these names that a remote has, with its records.

        One request for each name tried; nothing where there are no remotes. `definition_of`
        (`layercache.trails`) gives a name that is the same on every machine.
        """

    def put_trail(self, trail: Trail) -> None:
        """Keep `trail`; nothing is written when it says what the stored one says."""
        name = f"{self._prefix}trails/{trail.target}"
        self._put_small(name, encode_trail(trail, self._verifier))

    def get_fact(self, subject: str, selector: str) -> Fingerprint | None:
        """What the selector of this digest picks from the state with this chain ID."""
        name = self._fact_name(subject, selector)
        payload = self._get_sealed("fact", name, subject + " " + selector)
        return None if payload is None else Fingerprint(payload.decode("ascii", "replace"))

    def put_fact(self, subject: str, selector: str, fingerprint: Fingerprint) -> None:
        """Keep a selection fact."""
        name = self._fact_name(subject, selector)
        sealed = seal("fact", subject + " " + selector, fingerprint.encode(), self._verifier)
        self._put_small(name, sealed)

    def get_derived(self, kind: str, name: str) -> bytes | None:
        """A thing computed from others that was kept to spare computing it again."""
        return self._get_sealed("derived", self._derived_name(kind, name), kind + " " + name)

    def put_derived(self, kind: str, name: str, payload: bytes) -> None:
        """Keep such a thing; `kind` is a word, `name` what it was computed from."""
        sealed = seal("derived", kind + " " + name, payload, self._verifier)
        self._put_small(self._derived_name(kind, name), sealed)

    def references(self) -> dict[str, bytes]:
        """All references by name. They are the roots that retention starts from."""
        found = {}
        prefix = f"{self._prefix}refs/"
        names = [info.name for info in self.backend.list(prefix)]
        names += [name for name in self._staged if name.startswith(prefix)]
        for name in dict.fromkeys(names):
            payload = self._get_sealed("reference", name, name.removeprefix(self._prefix))
            if payload is not None:
                try:
                    text, value = unpack(payload)
                    found[str(text)] = bytes(value)
                except (CorruptObject, TypeError, ValueError) as error:
                    self._damage(name, CorruptObject(f"a reference is malformed: {error}"))
        return dict(sorted(found.items()))

    def get_reference(self, name: str) -> bytes | None:
        """What `name` refers to."""
        stored = self._reference_name(name)
        payload = self._get_sealed("reference", stored, stored.removeprefix(self._prefix))
        if payload is None:
            return None
        try:
            text, value = unpack(payload)
        except (CorruptObject, TypeError, ValueError) as error:
            self._damage(stored, CorruptObject(f"a reference is malformed: {error}"))
            return None
        return bytes(value) if text == name else None

    def put_reference(self, name: str, payload: bytes) -> None:
        """Let `name` refer to `payload`; acknowledged by `commit`."""
        stored = self._reference_name(name)
        bound = stored.removeprefix(self._prefix)
        self._put_small(stored, seal("reference", bound, pack((name, payload)), self._verifier))

    def delete_reference(self, name: str) -> bool:
        """Forget `name`; whether it was there. Raises `CacheError` when it can't."""
        there = self.get_reference(name) is not None
        stored = self._reference_name(name)
        with self._guard:
            self._staged.pop(stored, None)
            self._small.pop(stored, None)
        self.backend.delete(stored)
        return there

    # -- acknowledging ------------------------------------------------------------------------

    def commit(self) -> None:
        """Return when all that was put is durable: blobs first, then what refers to them.

        Nothing is synced when no blob, record or reference was put; two syncs otherwise. A
        failure is an event, not an error: what was put then serves this object only.
        """
        with self._guard:
            names, self._staged = list(self._staged), {}
            if names or self.blobs.written:
                try:
                    self._acknowledge(names)
                except CacheError as error:
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
            if isinstance(self.backend, Holds):
                self.backend.unhold()

    def _acknowledge(self, names: Sequence[str]) -> None:
        if isinstance(self.backend, Syncs):
            self.backend.sync()
        if names and isinstance(self.backend, Stages):
            self.backend.publish(names)
            if isinstance(self.backend, Syncs):
                self.backend.sync()

    def _aside(self, record: Record) -> bool:
        """Whether the record's blob is with this object only."""
        return record.layer is not None and self.blobs.kept_aside(record.layer.descriptor.digest)

    def write(self, name: str, content: BinaryIO) -> None:
        """Write an object by its full name; raises `CacheError`. For those who copy stores."""
        self._mark_format()
        self.backend.write(name, content)

    def report(self, kind: str, name: str, message: str) -> None:
        """Tell whoever listens."""
        self._report(kind, name, message)

    @property
    def prefix(self) -> str:
        """What the names of all objects of this namespace and salt begin with."""
        return self._prefix

    @property
    def verifier(self) -> Verifier | None:
        """What authenticates records, if anything does."""
        return self._verifier

    def forget(self) -> None:
        """Drop what this object remembers of the backend, after something was removed there."""
        with self._guard:
            self._own.clear()
            self._small.clear()

    def close(self) -> None:
        """End the use of this object; what was not committed is not acknowledged."""
        if isinstance(self.backend, Holds):
            self.backend.unhold()
        self.blobs.close()
        if isinstance(self.backend, Releases):
            self.backend.release()

    # -- events -------------------------------------------------------------------------------

    def _report(self, kind: str, name: str, message: str) -> None:
        if self.on_event is not None:
            self.on_event(StoreEvent(kind, name, message))

    def _trouble(self, name: str, error: CacheError) -> None:
        """The backend failed: say so once for each reason."""
        cause = error.__cause__
        reason = str(getattr(cause, "errno", None) or type(cause).__name__)
        with self._guard:
            known = ("degraded", reason) in self._told
            self._told.add(("degraded", reason))
        if not known:
            self._report("degraded", name, str(error))

    def _damage(self, name: str, error: CorruptObject) -> None:
        with self._guard:
            known = name in self._damaged
            self._damaged.add(name)
        if not known:
            text = str(error)
            kind = "corrupt"
            if "trusted writer" in text:
                kind = "untrusted"
            elif "has format" in text:
                kind = "newer"
            self._report(kind, name, text)

    # -- small objects ------------------------------------------------------------------------

    def read_small(self, names: Sequence[str]) -> Mapping[str, bytes]:
        """The bytes, not verified, of those objects that are there; raises `CacheError`."""
        if self._batches is not None:
            return self._batches.read_many(names)
        found = {}
        for name in names:
            try:
                with self.backend.read(name) as content:
                    found[name] = content.read(_LARGE)
            except NotFound:
                continue
        return found

    def _get_small(self, name: str) -> bytes | None:
        own = self._small.get(name)
        if own is not None:
            return own
        try:
            return self.read_small([name]).get(name)
        except CacheError as error:
            self._trouble(name, error)
            return None

    def _get_sealed(self, kind: str, name: str, bound: str) -> bytes | None:
        data = self._get_small(name)
        if data is None:
            return None
        try:
            return unseal(kind, bound, data, self._verifier)
        except CorruptObject as error:
            self._damage(name, error)
            return None

    def _put_small(self, name: str, data: bytes) -> None:
        if self._get_small(name) != data:
            self._write_small(name, data, staged=name.startswith(f"{self._prefix}refs/"))

    def _write_small(self, name: str, data: bytes, *, staged: bool) -> None:
        """Write, or stage what must not become visible before what it relies on is durable."""
        self._mark_format()
        try:
            if staged and self._stages is not None:
                self._stages.stage(name, data)
                with self._guard:
                    self._staged[name] = None
                    if not name.startswith(f"{self._prefix}ac/"):
                        self._small[name] = data
            else:
                self.backend.write(name, io.BytesIO(data))
        except CacheError as error:
            self._trouble(name, error)
            return
        with self._guard:
            healed = name in self._damaged
            self._damaged.discard(name)
        if healed:
            self._report("healed", name, "a damaged object was written again")

    # -- names --------------------------------------------------------------------------------

    def record_name(self, key: CacheKey) -> str:
        """The object name of the record of `key`."""
        return f"{self._prefix}ac/{key[:2]}/{key}"

    def _fact_name(self, subject: str, selector: str) -> str:
        subject = subject.removeprefix("sha256:") or "scratch"
        return f"{self._prefix}facts/{subject[:2]}/{subject}-{selector}"

    def _derived_name(self, kind: str, name: str) -> str:
        return f"{self._prefix}{kind}/{name.replace(':', '-')}"

    def _reference_name(self, name: str) -> str:
        return f"{self._prefix}refs/{_escape(name)}"

    # -- format -------------------------------------------------------------------------------

    def _check_format(self) -> None:
        """Refuse a store of a later format; its absence means a new one."""
        try:
            data = self.read_small(["format"]).get("format")
        except CacheError as error:
            self._trouble("format", error)
            return
        if data is None:
            return
        text = data[len(_MARKER) :].strip()
        if not data.startswith(_MARKER) or not text.isdigit():
            self._report("corrupt", "format", "the format marker is damaged; it is written again")
            return
        if int(text) > FORMAT:
            raise UsageError(
                f"the cache {self.backend!r} has format {int(text)}; this version of layercache "
                f"reads up to {FORMAT}: use a newer version, or another directory"
            )
        self._marked = int(text) == FORMAT

    def _mark_format(self) -> None:
        if self._marked:
            return
        if self._stats is None:
            self._check_format()
        if not self._marked:
            self._marked = True
            try:
                self.backend.write("format", io.BytesIO(_MARKER + b"%d\n" % FORMAT))
            except CacheError as error:
                self._trouble("format", error)


def _prefix(namespace: str, salt: str) -> str:
    parts = []
    if namespace:
        parts.append("ns/" + _escape(namespace))
    if salt:
        from blake3 import blake3

        context = "layercache 2026-11 store salt"
        parts.append("salted/" + blake3(salt.encode(), derive_key_context=context).hexdigest()[:32])
    return "".join(part + "/" for part in parts)


_PLAIN: Final = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789-.")
_LONGEST: Final = 180


def _escape(text: str) -> str:
    """`text` as one segment of an object name; different texts give different segments."""
    data = text.encode("utf-8", "surrogateescape")
    escaped = "".join(chr(byte) if byte in _PLAIN else f"_{byte:02x}" for byte in data)
    if escaped.startswith("."):
        escaped = "_2e" + escaped[1:]
    if len(escaped) <= _LONGEST:
        return escaped
    from blake3 import blake3

    # A single "__" occurs in no short form, so the two kinds can't collide.
    return escaped[: _LONGEST - 70].rstrip("_") + "__" + blake3(data).hexdigest()


def _order(record: Record) -> tuple[int, bytes]:
    from blake3 import blake3

    return record.generation, blake3(encode_record(record)).digest()


def _read_exactly(source: io.FileIO, size: int) -> bytes:
    parts = []
    while size > 0 and (chunk := source.read(size)):
        parts.append(chunk)
        size -= len(chunk)
    return b"".join(parts)
