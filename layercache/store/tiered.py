"""A local store with remote ones behind it: read through, written back while the build runs.

A remote can neither fail a build nor make it wrong: everything that it returns is verified, and
objects that do not arrive in time are misses. Objects that could not be uploaded are uploaded by a
later build of the same target: its trail is written last, and lists the uploaded objects.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Final, cast

from layercache.errors import UsageError
from layercache.store.backend import Backend
from layercache.store.parts import Cache
from layercache.store.push import Pusher
from layercache.store.remote import Remote
from layercache.store.store import Store
from layercache.store.tiered_content import Origins, TieredBlobs, TieredRecords
from layercache.store.tiered_predictions import (
    Predictions,
    TieredDerived,
    TieredFacts,
    TieredTrails,
)

__all__ = ["TieredStore", "tiered"]

DEADLINE: Final = 10.0
LINGER: Final = 60.0


class TieredStore:
    """The store `local`, with `cache_from` to read and `cache_to` to write behind it.

    Args:
        deadline: seconds that one call may take (content gets more, by its size).
        linger: seconds that `close` waits for uploads to finish.

    Looking a record up takes a remote one for a hit without fetching its layer; the layer comes
    when its bytes are needed, and stays.
    """

    def __init__(
        self,
        local: Store,
        *,
        cache_from: Sequence[Store] = (),
        cache_to: Sequence[Store] = (),
        deadline: float = DEADLINE,
        linger: float = LINGER,
    ) -> None:
        self._options: dict[str, Any] = {
            "local": local,
            "cache_from": tuple(cache_from),
            "cache_to": tuple(cache_to),
            "deadline": deadline,
            "linger": linger,
        }
        self.local = local
        self.events = local.events
        self.references = local.references
        self._linger = linger
        self._sources, targets = self._remotes(cache_from, cache_to, deadline)
        self._pushers = [Pusher(self, remote) for remote in targets]
        origins = Origins(local, self._sources)
        self._predictions = Predictions(local, origins, self._pushers)
        self.records = TieredRecords(local, origins, self._predictions, self._pushers)
        self.blobs = TieredBlobs(local, origins, self._pushers)
        self.trails = TieredTrails(local, self._predictions)
        self.facts = TieredFacts(local, self._predictions)
        self.derived = TieredDerived(local, self._sources, self._pushers)

    def _remotes(
        self, cache_from: Sequence[Store], cache_to: Sequence[Store], deadline: float
    ) -> tuple[list[Remote], list[Remote]]:
        """A remote for each store, the same where one is both read and written."""
        known: dict[tuple[int, str, int], Remote] = {}

        def remote_of(store: Store) -> Remote:
            name = (id(store.backend), store.objects.prefix, id(store.authority))
            if name not in known:
                known[name] = Remote(store, deadline=deadline, report=self.events.report)
            return known[name]

        return [remote_of(store) for store in cache_from], [remote_of(store) for store in cache_to]

    def __repr__(self) -> str:
        return f"TieredStore({self.backend!r})"

    def __getstate__(self) -> dict[str, object]:
        return self._options

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def __enter__(self) -> TieredStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def backend(self) -> Backend:
        """Where objects are kept on this side."""
        return self.local.backend

    def backends(self) -> tuple[Backend, ...]:
        """Where objects are kept: the local backend, then those behind it."""
        behind = [*self._sources, *(pusher.remote for pusher in self._pushers)]
        return (self.backend, *(remote.store.backend for remote in behind))

    def in_use(self) -> AbstractContextManager[None]:
        """As `Store.in_use`."""
        return self.local.in_use()

    def commit(self) -> bool:
        """As `Store.commit`; then what changed is sent to the remotes, in the background."""
        durable = self.local.commit()
        trails = self.trails.of_this_build()
        # Another build over this object may not have ended: it asks again.
        self.records.forget()
        self._predictions.forget()
        self.derived.forget()
        for pusher in self._pushers:
            for trail in trails:
                pusher.trail(trail)
        return durable

    def flush(self, seconds: float | None = None) -> bool:
        """Wait for all uploads, at most `seconds` (default: `linger`); returns whether everything
        was uploaded."""
        limit = self._linger if seconds is None else seconds
        done = [pusher.flush(limit) for pusher in self._pushers]
        return all(done)

    def close(self) -> None:
        """Wait for uploads, at most `linger` seconds; a later build uploads the rest."""
        for pusher in self._pushers:
            if not pusher.flush(self._linger):
                message = (
                    f"the upload to {pusher.remote.name} is incomplete; a later build uploads "
                    "the rest"
                )
                self.events.report("degraded", pusher.remote.name, message)
            pusher.stop()
        self.local.close()


def tiered(
    store: Cache,
    *,
    cache_from: Sequence[str | Cache | Backend] = (),
    cache_to: Sequence[str | Cache | Backend] = (),
    salt: str = "",
    deadline: float = DEADLINE,
    linger: float = LINGER,
) -> TieredStore:
    """`store` with others behind it: by URL, as backends or as stores of their own trust.

    Raises `UsageError` for what can't be a cache.
    """
    if not isinstance(store, Store):
        raise UsageError("this store has others behind it already")
    known: dict[str, Store] = {}

    def over(backend: Backend) -> Store:
        return Store(
            backend,
            verifier=store.authority,
            salt=salt or store.salt,
            namespace=store.namespace,
        )

    def open_one(where: str | Cache | Backend) -> Store:
        if isinstance(where, Store | TieredStore):
            return where.local
        if not isinstance(where, str):
            return over(cast(Backend, where))
        if where not in known:
            from layercache.store.backends import open_backend

            known[where] = over(open_backend(where))
        return known[where]

    return TieredStore(
        store,
        cache_from=[open_one(where) for where in cache_from],
        cache_to=[open_one(where) for where in cache_to],
        deadline=deadline,
        linger=linger,
    )
