"""The events of a store: damage, repairs and failures, each told to its listeners once."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable

from layercache._base.classes import frozen
from layercache.errors import CacheError, CorruptObject

__all__ = ["StoreEvent", "StoreEvents"]


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


class StoreEvents:
    """Passes events on, from the thread that noticed them. Safe for threads."""

    def __init__(self, on_event: Callable[[StoreEvent], None] | None = None) -> None:
        self.on_event = on_event
        self._listeners: list[weakref.WeakMethod[Callable[[StoreEvent], None]]] = []
        self._guard = threading.Lock()
        self._failures: set[str] = set()
        self._consequences: set[str] = set()
        self._damaged: set[str] = set()

    def listen(self, listener: Callable[[StoreEvent], None]) -> None:
        """Call `listener`, a method, with every event too, for as long as its object lives.

        Does nothing if `on_event` was given: its function then receives all events.
        """
        if self.on_event is None:
            self._listeners.append(weakref.WeakMethod(listener))

    def report(self, kind: str, name: str, message: str) -> None:
        """Notify all listeners."""
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

    def failed(self, name: str, error: CacheError) -> None:
        """Report that the backend failed at the object `name`, once for each reason."""
        cause = error.__cause__
        reason = str(getattr(cause, "errno", None) or type(cause).__name__)
        with self._guard:
            known = reason in self._failures
            self._failures.add(reason)
        if not known:
            self.report("degraded", name, str(error))

    def degraded(self, name: str, consequence: str, error: Exception) -> None:
        """Report the consequence of a failure: once, not for each blob."""
        with self._guard:
            known = consequence in self._consequences
            self._consequences.add(consequence)
        if not known:
            self.report("degraded", name, f"{consequence}: {error}")

    def damaged(self, name: str, error: CorruptObject) -> None:
        """Report that the object `name` does not verify, once until it is written again."""
        with self._guard:
            known = name in self._damaged
            self._damaged.add(name)
        if not known:
            self.report(error.finding, name, str(error))

    def written(self, name: str) -> None:
        """Report the repair of the object `name` if it was damaged before."""
        with self._guard:
            healed = name in self._damaged
            self._damaged.discard(name)
        if healed:
            self.report("healed", name, "a damaged object was written again")
