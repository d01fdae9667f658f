"""Small sealed objects over a backend: trails, facts, derived objects, references.

The common parts of the store's two caches are here too: the format marker, names, verified reading,
and reporting each problem once.
"""

from __future__ import annotations

import io
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import BinaryIO, Final

from layercache._base.classes import frozen
from layercache.errors import CacheError, CorruptObject, NotFound, UsageError
from layercache.model.digests import CacheKey, Fingerprint
from layercache.store.backend import (
    Allowance,
    Backend,
    BatchReader,
    InDirectory,
    Stages,
    Stats,
    Touches,
    read_bounded,
)
from layercache.store.codec import FORMAT, MARKER, Verifier, pack, seal, unpack, unseal
from layercache.store.trails import Trail, decode_trail, encode_trail

__all__ = ["Objects", "StoreEvent"]


@frozen
class StoreEvent:
    """Something the store noticed. `kind` is one of these words:

    `corrupt` (an object is damaged and counts as absent), `healed` (it was written again),
    `untrusted` (no trusted writer signed it), `newer` (of a later format), `degraded` (the
    backend fails; the build goes on without), `recovered`.
    """

    kind: str
    name: str
    message: str


class Objects:
    """Named, sealed, small objects of one namespace and salt. Safe for threads."""

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
        self.on_event = on_event
        self._listeners: list[weakref.WeakMethod[Callable[[StoreEvent], None]]] = []
        self.authority = verifier
        """What authenticates, as it was given; `verifier` is that for this namespace and salt."""
        self._prefix = _prefix(namespace, salt)
        self._verifier: Verifier | None = None
        if verifier is not None:
            from layercache.store.trust import ScopedVerifier

            self._verifier = ScopedVerifier(verifier, self._prefix)
        self._guard = threading.RLock()
        self._marking = threading.Lock()
        self._damaged: set[str] = set()
        self._staged: dict[str, None] = {}
        self._small: dict[str, bytes] = {}
        self._told: set[tuple[str, str]] = set()
        self._marked = False
        # Looking for a capability costs more than using it: once is enough.
        self.medium = medium = _medium_of(backend)
        """The backend, with all its errors converted to `CacheError`."""
        self._stats = medium if isinstance(medium, Stats) else None
        self._touches = medium if isinstance(medium, Touches) else None
        self._stages = medium if isinstance(medium, Stages) else None
        self._batches = medium if isinstance(medium, BatchReader) else None
        if self._stats is not None:
            self._check_format()

    # -- trails, facts, derived objects, references -------------------------------------------

    def get_trail(self, target: str) -> Trail | None:
        """The prediction for `target`; None if it is missing or does not verify."""
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
        names = [info.name.removeprefix(prefix) for info in self.medium.list(prefix)]
        return [trail for name in sorted(names) if (trail := self.get_trail(name)) is not None]

    def prefetch(
        self, names: Sequence[str], beginnings: Callable[[], Sequence[str]] = tuple
    ) -> None:
        """Fetch those trails of these names that remotes have, with their records.

        One round trip, a request for each name; nothing where there are no remotes. `definition_of`
        (`layercache.store.trails`) gives a name that is the same on every machine. Where no trail
        is found, that of a target is taken which begins alike (`beginnings_of`): one round trip
        more to find it and one to fetch it.
        """

    def put_trail(self, trail: Trail) -> None:
        """Store `trail`; if it equals the stored one, only its stamp is renewed."""
        name = f"{self._prefix}trails/{trail.target}"
        data = encode_trail(trail, self._verifier)
        if self._get_small(name) == data:
            self.renew_trail(trail.target)
        else:
            self._write_small(name, data, staged=False)

    def renew_trail(self, target: str) -> None:
        """A build came out as its trail says: it is the last one by its stamp, where that can be
        renewed without writing. Retention goes by that, nothing else."""
        if self._touches is not None:
            try:
                self._touches.touch([f"{self._prefix}trails/{target}"])
            except CacheError:
                pass  # a cache that can't be written is read as it is

    def get_fact(self, subject: str, selector: str) -> Fingerprint | None:
        """The fingerprint of the selector with this digest on the state with this chain ID."""
        name = self._fact_name(subject, selector)
        payload = self._get_sealed("fact", name, subject + " " + selector)
        return None if payload is None else Fingerprint(payload.decode("ascii", "replace"))

    def believes(self, subject: str, selector: str) -> bool:
        """Whether `get_fact` gives what somebody else said of the state, not what was seen here.

        Good enough to look a record up with; a result is stored only once it was seen here, too.
        """
        return False

    def put_fact(self, subject: str, selector: str, fingerprint: Fingerprint) -> None:
        """Keep a selection fact."""
        name = self._fact_name(subject, selector)
        sealed = seal("fact", subject + " " + selector, fingerprint.encode(), self._verifier)
        self._put_small(name, sealed)

    def get_derived(self, kind: str, name: str) -> bytes | None:
        """A derived object that was stored to avoid computing it again."""
        return self._get_sealed("derived", self._derived_name(kind, name), kind + " " + name)

    def get_beginning(self, names: Sequence[str]) -> str | None:
        """The target whose trail begins as the first of these names says that one has."""
        kept = {self._derived_name("beginnings", name): name for name in names}
        found = self.read_small(list(kept)) if kept else {}
        for stored, name in kept.items():
            if stored in found:
                target = self._opened("derived", stored, "beginnings " + name, found[stored])
                if target is not None and target.isascii():
                    return target.decode("ascii")
                if target is not None:
                    self._damage(stored, CorruptObject("the name of a target is not ASCII text"))
        return None

    def beginning(self, name: str, target: str) -> tuple[str, bytes]:
        """The object, by name and bytes, that says that the trail of `target` begins so."""
        return self.derived_object("beginnings", name, target.encode())

    def read_derived(self, kinds: Sequence[str], name: str) -> dict[str, bytes]:
        """As `get_derived` for several kinds at once; raises `CacheError`."""
        stored = {kind: self._derived_name(kind, name) for kind in kinds}
        data = self.read_small(list(stored.values()))
        opened = {
            kind: self._opened("derived", at, kind + " " + name, data[at])
            for kind, at in stored.items()
            if at in data
        }
        return {kind: payload for kind, payload in opened.items() if payload is not None}

    def put_derived(self, kind: str, name: str, payload: bytes) -> None:
        """Keep such a thing; `kind` is a word, `name` what it was computed from."""
        self._put_small(*self.derived_object(kind, name, payload))

    def derived_object(self, kind: str, name: str, payload: bytes) -> tuple[str, bytes]:
        """What `put_derived` writes, by name and bytes."""
        sealed = seal("derived", kind + " " + name, payload, self._verifier)
        return self._derived_name(kind, name), sealed

    def references(self) -> dict[str, bytes]:
        """All references by name. They are the roots that retention starts from."""
        found = {}
        prefix = f"{self._prefix}refs/"
        names = [info.name for info in self.medium.list(prefix)]
        with self._guard:
            names += [name for name in self._staged if name.startswith(prefix)]
        for name in dict.fromkeys(names):
            payload = self._get_sealed("reference", name, name.removeprefix(self._prefix))
            if payload is not None:
                try:
                    text, value = _reference(payload)
                    found[text] = value
                except CorruptObject as error:
                    self._damage(name, error)
        return dict(sorted(found.items()))

    def get_reference(self, name: str) -> bytes | None:
        """The payload of the reference `name`."""
        stored = self.reference_name(name)
        payload = self._get_sealed("reference", stored, stored.removeprefix(self._prefix))
        if payload is None:
            return None
        try:
            text, value = _reference(payload)
        except CorruptObject as error:
            self._damage(stored, error)
            return None
        return value if text == name else None

    def put_reference(self, name: str, payload: bytes) -> None:
        """Set the reference `name` to `payload`; acknowledged by `commit`.

        Raises `CacheError` if the backend does not accept it: the previous reference then stays.
        """
        stored = self.reference_name(name)
        bound = stored.removeprefix(self._prefix)
        data = seal("reference", bound, pack((name, payload)), self._verifier)
        if self._get_small(stored) != data and not self._write_small(stored, data, staged=True):
            raise CacheError(f"{name} can't be written in the cache {self.backend!r}")

    def delete_reference(self, name: str) -> bool:
        """Remove `name`; returns whether it existed. Raises `CacheError` on failure."""
        there = self.get_reference(name) is not None
        stored = self.reference_name(name)
        with self._guard:
            self._staged.pop(stored, None)
            self._small.pop(stored, None)
        self.medium.delete(stored)
        return there

    def write(self, name: str, content: BinaryIO) -> None:
        """Write an object by its full name; raises `CacheError`. For code that copies stores."""
        self._mark_format()
        self.medium.write(name, content)

    def report(self, kind: str, name: str, message: str) -> None:
        """Notify all listeners."""
        self._report(kind, name, message)

    @property
    def prefix(self) -> str:
        """What the names of all objects of this namespace and salt begin with."""
        return self._prefix

    @property
    def verifier(self) -> Verifier | None:
        """What authenticates objects of this namespace and salt, if anything does."""
        return self._verifier

    # -- events -------------------------------------------------------------------------------

    def listen(self, listener: Callable[[StoreEvent], None]) -> None:
        """Call `listener`, a method, with every event too, for as long as its object lives.

        Does nothing if `on_event` was given: its function then receives all events.
        """
        if self.on_event is None:
            self._listeners.append(weakref.WeakMethod(listener))

    def _report(self, kind: str, name: str, message: str) -> None:
        event = StoreEvent(kind, name, message)
        if self.on_event is not None:
            self.on_event(event)
            return
        for reference in list(self._listeners):
            listener = reference()
            if listener is None:
                self._listeners.remove(reference)
            else:
                listener(event)

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
        allowance = Allowance()
        for name in names:
            try:
                with self.medium.read(name) as content:
                    found[name] = read_bounded(content, name, allowance)
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
        return None if data is None else self._opened(kind, name, bound, data)

    def _opened(self, kind: str, name: str, bound: str, data: bytes) -> bytes | None:
        """The payload; None, and an event, where it is not right."""
        try:
            return unseal(kind, bound, data, self._verifier)
        except CorruptObject as error:
            self._damage(name, error)
            return None

    def _put_small(self, name: str, data: bytes) -> None:
        if self._get_small(name) != data:
            self._write_small(name, data, staged=False)

    def _write_small(self, name: str, data: bytes, *, staged: bool) -> bool:
        """Write, or stage what must not become visible before what it relies on is durable.

        Whether the backend took it; what it did not take was reported.
        """
        self._mark_format()
        try:
            if staged and self._stages is not None:
                self._stages.stage(name, data)
                with self._guard:
                    self._staged[name] = None
                    if not name.startswith(f"{self._prefix}ac/"):
                        self._small[name] = data
            else:
                self.medium.write(name, io.BytesIO(data))
        except CacheError as error:
            self._trouble(name, error)
            return False
        with self._guard:
            healed = name in self._damaged
            self._damaged.discard(name)
        if healed:
            self._report("healed", name, "a damaged object was written again")
        return True

    # -- names --------------------------------------------------------------------------------

    def record_name(self, key: CacheKey) -> str:
        """The object name of the record of `key`."""
        return f"{self._prefix}ac/{key[:2]}/{key}"

    def _fact_name(self, subject: str, selector: str) -> str:
        subject = subject.removeprefix("sha256:") or "scratch"
        return f"{self._prefix}facts/{subject[:2]}/{subject}-{selector}"

    def _derived_name(self, kind: str, name: str) -> str:
        return f"{self._prefix}{kind}/{name.replace(':', '-')}"

    def reference_name(self, name: str) -> str:
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
            backend = self.backend
            directory = backend.directory if isinstance(backend, InDirectory) else None
            from layercache.store.marker import foreign

            found = foreign(directory) if directory is not None else None
            if found is not None:
                raise UsageError(
                    f"{directory!r} is not a cache of layercache: it holds {found!r} and no "
                    "`format` object; name an empty directory, or one that does not exist yet"
                )
            return
        text = data[len(MARKER) :].strip()
        if not data.startswith(MARKER) or not text.isdigit():
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
        with self._marking:  # no thread writes anything before the mark is there
            if not self._marked:
                try:
                    self.medium.write("format", io.BytesIO(MARKER + b"%d\n" % FORMAT))
                except CacheError as error:
                    self._trouble("format", error)
                self._marked = True


_TRUE_TO_IT: Final = frozenset(
    {"layercache.store.backends.local", "layercache.store.backends.memory"}
)
"""Backends that raise nothing but `LayerCacheError`, and are called too often to look twice."""


def _medium_of(backend: Backend) -> Backend:
    if type(backend).__module__ in _TRUE_TO_IT:
        return backend
    from layercache.store.guarded import guarded

    return guarded(backend)


def _reference(payload: bytes) -> tuple[str, bytes]:
    value = unpack(payload)
    if type(value) is not tuple or [type(item) for item in value] != [str, bytes]:
        raise CorruptObject("a reference is malformed")
    return value


def _prefix(namespace: str, salt: str) -> str:
    parts = []
    if namespace:
        parts.append("ns/" + _escape(namespace))
    if salt:
        from blake3 import blake3

        context = "layercache 2026-11 store salt"
        parts.append(
            "salted/"
            + blake3(
                salt.encode("utf-8", "surrogateescape"), derive_key_context=context
            ).hexdigest()[:32]
        )
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
