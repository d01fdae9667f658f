"""Sealed objects of one namespace and salt over a backend, read with verification.

The format marker, the names' prefix, staging and acknowledging are here; what the objects mean is
in `action_cache` (records), `small_objects` (trails, facts, derived objects, references) and
`blobs`.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import BinaryIO, Final

from layercache.errors import CacheError, CorruptObject, NotFound, UsageError
from layercache.store.backend import (
    Allowance,
    Backend,
    BatchReader,
    Holds,
    InDirectory,
    Releases,
    Stages,
    Stats,
    Syncs,
    Touches,
    read_bounded,
)
from layercache.store.codec import FORMAT, MARKER, Verifier, seal, unseal
from layercache.store.store_events import StoreEvent, StoreEvents

__all__ = ["SealedObjects", "segment"]


class SealedObjects:
    """Objects by name, as their bytes or sealed. Safe for threads."""

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
        self.events = StoreEvents(on_event)
        self.prefix = _prefix(namespace, salt)
        """What the names of all objects of this namespace and salt begin with."""
        self.verifier: Verifier | None = None
        """Authenticates the objects of this namespace and salt; None for no authentication."""
        if verifier is not None:
            from layercache.store.trust import ScopedVerifier

            self.verifier = ScopedVerifier(verifier, self.prefix)
        self.guard = threading.RLock()
        """Guards what a store remembers of its backend."""
        self._marking = threading.Lock()
        self._marked = False
        self._staged: dict[str, None] = {}
        self._unpublished: dict[str, bytes] = {}
        # Looking for a capability costs more than using it: once is enough.
        self.medium = medium = _medium_of(backend)
        """The backend, with all its errors converted to `CacheError`."""
        self.stats = medium if isinstance(medium, Stats) else None
        self.touches = medium if isinstance(medium, Touches) else None
        self.stages = medium if isinstance(medium, Stages) else None
        self._batches = medium if isinstance(medium, BatchReader) else None
        if self.stats is not None:
            self._check_format()

    # -- reading ------------------------------------------------------------------------------

    def read_many(self, names: Sequence[str]) -> Mapping[str, bytes]:
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

    def read(self, name: str) -> bytes | None:
        """The bytes, not verified; None if the object is missing or the backend fails."""
        own = self._unpublished.get(name)
        if own is not None:
            return own
        try:
            return self.read_many([name]).get(name)
        except CacheError as error:
            self.events.failed(name, error)
            return None

    def unsealed(self, kind: str, name: str, bound: str) -> bytes | None:
        """The payload of the object `name`, sealed as a `kind` bound to `bound`."""
        data = self.read(name)
        return None if data is None else self.opened(kind, name, bound, data)

    def opened(self, kind: str, name: str, bound: str, data: bytes) -> bytes | None:
        """The payload of such an object whose bytes are `data`; None, and an event, if it does
        not verify."""
        try:
            return unseal(kind, bound, data, self.verifier)
        except CorruptObject as error:
            self.events.damaged(name, error)
            return None

    # -- writing ------------------------------------------------------------------------------

    def sealed(self, kind: str, bound: str, payload: bytes) -> bytes:
        """The bytes of an object that `unsealed` opens."""
        return seal(kind, bound, payload, self.verifier)

    def put(self, name: str, data: bytes) -> None:
        """Write an object at once, unless it is there with these bytes."""
        if self.read(name) != data:
            self.write(name, data)

    def write(self, name: str, data: bytes, *, staged: bool = False, reread: bool = True) -> bool:
        """Write an object, or stage one that must become visible only after what it relies on.

        Returns whether the backend took it; what it did not take was reported. With `reread`, this
        object reads what it staged.
        """
        self.mark_format()
        try:
            if staged and self.stages is not None:
                self.stages.stage(name, data)
                with self.guard:
                    self._staged[name] = None
                    if reread:
                        self._unpublished[name] = data
            else:
                self.medium.write(name, io.BytesIO(data))
        except CacheError as error:
            self.events.failed(name, error)
            return False
        self.events.written(name)
        return True

    def copy_in(self, name: str, content: BinaryIO) -> None:
        """Write an object by its full name; raises `CacheError`. For code that copies stores."""
        self.mark_format()
        self.medium.write(name, content)

    def delete(self, name: str) -> None:
        """Remove an object, also one that is only staged; raises `CacheError`."""
        with self.guard:
            self._staged.pop(name, None)
            self._unpublished.pop(name, None)
        self.medium.delete(name)

    # -- acknowledging ------------------------------------------------------------------------

    def staged(self, prefix: str) -> list[str]:
        """The names below `prefix` that the next acknowledgement publishes."""
        with self.guard:
            return [name for name in self._staged if name.startswith(prefix)]

    def publish_too(self, name: str) -> None:
        """Publish an object that another build staged: this one relies on it now."""
        with self.guard:
            self._staged[name] = None

    def acknowledge(self, *, blobs: bool) -> None:
        """Return when all that was written is durable and all that was staged is visible.

        Does nothing if nothing was staged and no `blobs` were written. Raises `CacheError`; what
        was staged is then given up.
        """
        with self.guard:
            names, self._staged = list(self._staged), {}
        if names or blobs:
            self._make_durable(names)

    def _make_durable(self, names: Sequence[str]) -> None:
        """Blobs first, then what refers to them."""
        if self.stats is not None and self.stats.stat("format") is None:
            self._marked = False  # somebody removed the directory under us
            self.mark_format()
        if isinstance(self.medium, Syncs):
            self.medium.sync()
        if names and self.stages is not None:
            self.stages.publish(names)
            if isinstance(self.medium, Syncs):
                self.medium.sync()

    def forget(self) -> None:
        """Drop what was kept for reading it again."""
        with self.guard:
            self._unpublished.clear()

    def unhold(self) -> None:
        """Let collections take what was held."""
        if isinstance(self.medium, Holds):
            try:
                self.medium.unhold()
            except CacheError as error:
                self.events.failed("holds", error)

    def release(self) -> None:
        """Give up what the backend keeps open."""
        self.unhold()
        if isinstance(self.medium, Releases):
            try:
                self.medium.release()
            except CacheError as error:
                self.events.failed("close", error)

    # -- format -------------------------------------------------------------------------------

    def _check_format(self) -> None:
        """Refuse a store of a later format; its absence means a new one."""
        try:
            data = self.read_many(["format"]).get("format")
        except CacheError as error:
            self.events.failed("format", error)
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
            message = "the format marker is damaged; it is written again"
            self.events.report("corrupt", "format", message)
            return
        if int(text) > FORMAT:
            raise UsageError(
                f"the cache {self.backend!r} has format {int(text)}; this version of layercache "
                f"reads up to {FORMAT}: use a newer version, or another directory"
            )
        self._marked = int(text) == FORMAT

    def mark_format(self) -> None:
        """Mark the place as a cache of this format, before anything else is written there."""
        if self._marked:
            return
        if self.stats is None:
            self._check_format()
        with self._marking:  # no thread writes anything before the mark is there
            if not self._marked:
                try:
                    self.medium.write("format", io.BytesIO(MARKER + b"%d\n" % FORMAT))
                except CacheError as error:
                    self.events.failed("format", error)
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


def _prefix(namespace: str, salt: str) -> str:
    parts = []
    if namespace:
        parts.append("ns/" + segment(namespace))
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


def segment(text: str) -> str:
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
