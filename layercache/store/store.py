"""The store: an action cache (key → record), a CAS (digest → blob) and what helps to find records.

The reader verifies: every record by a checksum bound to its key, every blob by size and digest. An
object that is missing, damaged or stored under another key is a miss and an event, and is replaced
by the next write. A failure of the backend never fails a build: objects that it does not accept are
kept for the life of this object.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from layercache.errors import CacheError
from layercache.store.action_cache import Records
from layercache.store.backend import Backend
from layercache.store.blobs import GRACE
from layercache.store.codec import Verifier
from layercache.store.layer_blobs import LayerBlobs
from layercache.store.sealed_objects import SealedObjects
from layercache.store.small_objects import Derived, Facts, References, Trails
from layercache.store.store_events import StoreEvent

__all__ = ["GRACE", "Store", "StoreEvent"]


class Store:
    """The parts of a cache over `backend`. Safe for threads; any number may share a backend.

    `verifier` authenticates what is read and signs what is written. `salt` disowns everything
    written under another salt, `namespace` keeps writers apart. `on_event` is called from the
    thread that noticed. The methods of each part are described in `layercache.store.parts`.
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
        self.authority = verifier
        """The verifier as it was given; `objects.verifier` is the one bound to this namespace and
        salt."""
        self.salt = salt
        self.namespace = namespace
        self.objects = objects = SealedObjects(
            backend, verifier=verifier, salt=salt, namespace=namespace, on_event=on_event
        )
        self.events = objects.events
        self.derived = Derived(objects)
        self.blobs = LayerBlobs(objects, self.derived)
        self.records = Records(objects, self.blobs)
        self.trails = Trails(objects)
        self.facts = Facts(objects)
        self.references = References(objects)
        self._under_way = 0

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

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def local(self) -> Store:
        """The store that keeps objects on this side: this one."""
        return self

    def backends(self) -> tuple[Backend, ...]:
        """Where objects are kept: its own backend."""
        return (self.backend,)

    def commit(self) -> bool:
        """Return when all that was put is durable: blobs first, then what refers to them.

        Nothing is synced when no blob, record or reference was put; two syncs otherwise. A
        failure is an event, not an error: what was put then serves this object only. Returns
        whether all that the backend took is durable.
        """
        objects = self.objects
        with objects.guard:
            try:
                self.blobs.settle()
                objects.acknowledge(blobs=bool(self.blobs.written))
            except CacheError as error:
                objects.events.failed("commit", error)
                self.blobs.rescue()
                durable = False
            else:
                self.blobs.settled()
                durable = True
            self.records.acknowledged(durable=durable)
            objects.forget()
            if not self._under_way:
                objects.unhold()
        return durable

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """A build or a plan is under way: what it relies on is held until the last one ends,
        also when another acknowledges before it."""
        guard = self.objects.guard
        with guard:
            self._under_way += 1
        try:
            yield
        finally:
            with guard:
                self._under_way -= 1
                if not self._under_way:
                    self.objects.unhold()

    def forget(self) -> None:
        """Drop what this object remembers of the backend, after something was removed there."""
        self.records.forget()
        self.objects.forget()

    def close(self) -> None:
        """End the use of this object; what was not committed is not acknowledged."""
        self.objects.unhold()
        self.blobs.close()
        self.objects.release()
