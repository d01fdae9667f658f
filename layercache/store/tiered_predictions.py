"""What helps to find records, of a local store with remote ones behind it.

Trails, facts and derived objects of remotes are predictions: they choose what is looked up, and
nothing is stored because of them alone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from layercache.errors import CacheError
from layercache.model.digests import Fingerprint
from layercache.store.trails import Fact, Trail

if TYPE_CHECKING:
    from layercache.store.push import Pusher
    from layercache.store.remote import Remote
    from layercache.store.store import Store
    from layercache.store.tiered_content import Origins

__all__ = ["SHARED", "Predictions", "TieredDerived", "TieredFacts", "TieredTrails"]

SHARED: Final = ("untraced", "selectors")
"""Derived objects that are read and written at a distance: what steps of other machines looked at.

They choose between records, which are then checked. What is derived from a layer (its index, its
accounts) is not among them: it names paths and decides keys, so it is made from verified bytes."""

_LARGEST_DERIVED: Final = 4 << 20


class Predictions:
    """What remotes said in the trails that builds asked for: records, and facts about states."""

    def __init__(self, local: Store, origins: Origins, pushers: Sequence[Pusher]) -> None:
        self.facts: dict[tuple[str, str], Fingerprint] = {}
        """What the trails say of states, until it was seen here."""
        self._local = local
        self._origins = origins
        self._pushers = pushers
        self._guard = threading.Lock()
        self._asked: dict[str, Trail | None] = {}
        """What remotes said of the trails that this build asked for; emptied at the end of any."""
        self._announced: tuple[Sequence[str], Callable[[], Sequence[str]]] | None = None

    def announce(self, names: Sequence[str], beginnings: Callable[[], Sequence[str]]) -> None:
        """Fetch these trails as soon as something is missing here: a complete build asks none."""
        with self._guard:
            self._announced = (tuple(names), beginnings) if self._origins.sources else None

    def ask_as_announced(self) -> bool:
        """Fetch the announced trails once; returns whether this call did it."""
        with self._guard:
            announced, self._announced = self._announced, None
        if announced is None:
            return False
        self._fetch_trails(*announced)
        return True

    def trail(self, target: str) -> Trail | None:
        """The trail that a remote has for `target`."""
        self.ask_as_announced()
        if target not in self._asked:
            self._ask_for([target])
        return self._asked.get(target)

    def take(self, target: str) -> Trail | None:
        """As `trail`, once: who asks again asks the remotes again."""
        found = self.trail(target)
        self._asked.pop(target, None)
        return found

    def complete(self, trail: Trail) -> bool:
        """Whether everything that the trail predicts is here, or can be fetched."""
        records = list(trail.records())
        found = self._local.records.lookup(records, self._origins.obtainable)
        return bool(records) and len(found) == len(records)

    def forget(self) -> None:
        """Ask again in the next build."""
        self._asked.clear()
        self._announced = None

    def _fetch_trails(self, names: Sequence[str], beginnings: Callable[[], Sequence[str]]) -> None:
        own = [trail for name in names if (trail := self._local.trails.get(name)) is not None]
        here = {trail.target for trail in own if self.complete(trail)}
        wanted = [name for name in names if name not in here]
        self._ask_for(wanted)
        if here or any(self._asked.get(name) is not None for name in wanted):
            return
        starts = beginnings()
        for remote in self._origins.sources:
            try:
                target = remote.beginning(starts)
            except CacheError:
                continue  # said once by the remote
            if target is not None:
                self._ask_for([target])
                return

    def _ask_for(self, targets: Sequence[str]) -> None:
        """Look for the trails of these targets: one round trip for each remote, until all are
        found."""
        self._asked.update(dict.fromkeys(targets))
        for remote in self._origins.sources:
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
            self._origins.remember(remote, record)
        for fact in trail.facts:
            self.facts.setdefault((fact.subject, fact.selector), fact.fingerprint)


class TieredTrails:
    """Trails of the local store, else of remotes (`layercache.store.parts.TrailStore`)."""

    def __init__(self, local: Store, predictions: Predictions) -> None:
        self._local = local.trails
        self._predictions = predictions
        self._trails: dict[str, Trail] = {}

    def get(self, target: str) -> Trail | None:
        """The prediction for `target`; a remote is asked unless all of ours is here."""
        trail = self._local.get(target)
        if trail is None:
            return self._predictions.take(target)
        self._trails.setdefault(target, trail)
        if not self._predictions.complete(trail):
            self._predictions.trail(target)
        return trail

    def all(self) -> list[Trail]:
        """Every trail that is here and verifies."""
        return self._local.all()

    def prefetch(
        self, names: Sequence[str], beginnings: Callable[[], Sequence[str]] = tuple
    ) -> None:
        """Fetch trails and their records once something is not here."""
        self._predictions.announce(names, beginnings)

    def put(self, trail: Trail) -> None:
        """Store `trail` here; it is sent to the remotes when the build ends."""
        self._local.put(trail)
        self._trails[trail.target] = trail

    def renew(self, target: str) -> None:
        """Renew the stamp of the trail here."""
        self._local.renew(target)

    def of_this_build(self) -> list[Trail]:
        """The trails that were read or put since this was last called."""
        trails, self._trails = list(self._trails.values()), {}
        return trails


class TieredFacts:
    """Facts of the local store, else of remotes' trails (`layercache.store.parts.FactStore`)."""

    def __init__(self, local: Store, predictions: Predictions) -> None:
        self._local = local.facts
        self._predictions = predictions
        self._used: dict[tuple[str, str], Fingerprint] = {}

    def get(self, subject: str, selector: str) -> Fingerprint | None:
        """The fingerprint that was seen here, else the one that a remote's trail says."""
        fingerprint = self._local.get(subject, selector)
        if fingerprint is None:
            self._predictions.ask_as_announced()
            fingerprint = self._predictions.facts.get((subject, selector))
        if fingerprint is not None:
            self._used[subject, selector] = fingerprint
        return fingerprint

    def believes(self, subject: str, selector: str) -> bool:
        """Whether `get` gives what a remote's trail says."""
        predicted = (subject, selector) in self._predictions.facts
        return predicted and self._local.get(subject, selector) is None

    def put(self, subject: str, selector: str, fingerprint: Fingerprint) -> None:
        """Keep what was seen here."""
        self._local.put(subject, selector, fingerprint)
        self._predictions.facts.pop((subject, selector), None)
        self._used[subject, selector] = fingerprint

    def used_for(self, trail: Trail) -> tuple[Fact, ...]:
        """The facts that this object used about the states of `trail`, in a fixed order."""
        chains = {str(step.chain_id) for step in trail.steps}
        return tuple(
            Fact(subject, selector, fingerprint)
            for (subject, selector), fingerprint in sorted(self._used.items())
            if subject in chains
        )


class TieredDerived:
    """Derived objects of the local store; of `SHARED` kinds also those of remotes
    (`layercache.store.parts.DerivedStore`)."""

    def __init__(self, local: Store, sources: Sequence[Remote], pushers: Sequence[Pusher]) -> None:
        self._local = local.derived
        self._sources = sources
        self._pushers = pushers
        self._found: dict[tuple[str, str], bytes | None] = {}

    def get(self, kind: str, name: str) -> bytes | None:
        """A derived object of ours, else of the first remote that has it."""
        payload = self._local.get(kind, name)
        if payload is not None or kind not in SHARED:
            return payload
        if (kind, name) not in self._found:
            # They are always asked for together, so they are fetched together.
            found: dict[str, bytes] = {}
            for remote in self._sources:
                try:
                    found = remote.derived(SHARED, name)
                except CacheError:
                    continue
                if found:
                    break
            self._found.update({(one, name): found.get(one) for one in SHARED})
        # Another build over this object may have ended meanwhile, and what it forgets is absent.
        return self._found.get((kind, name))

    def put(self, kind: str, name: str, payload: bytes) -> None:
        """Keep a derived object; one of a `SHARED` kind is sent to the remotes too."""
        self._local.put(kind, name, payload)
        if kind in SHARED and len(payload) <= _LARGEST_DERIVED:
            for pusher in self._pushers:
                pusher.derived(kind, name, payload)

    def forget(self) -> None:
        """Ask the remotes again in the next build."""
        self._found.clear()
