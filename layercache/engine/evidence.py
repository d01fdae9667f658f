"""What one build knows of narrower keys, and what it adds to that."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from layercache._base.classes import evolve
from layercache.model.descriptors import SCRATCH
from layercache.model.digests import CacheKey, Digest
from layercache.model.keys import KeyMaterial, cache_key
from layercache.solver.narrowing import narrowed, weak_key

if TYPE_CHECKING:
    from layercache.inputs.inputs import Inputs
    from layercache.model.observations import Observations
    from layercache.model.records import Record
    from layercache.model.task import Task
    from layercache.store.parts import Cache
    from layercache.store.selectors_seen import Known

__all__ = ["MAX_OBSERVATIONS", "Evidence"]

MAX_OBSERVATIONS = 50_000
"""Observations beyond which a set is not kept: to check it costs more than it saves."""


class Evidence:
    """The narrower keys of one build. Safe for threads.

    What the build itself adds it does not use: whether a step is reused must not depend on
    which of two steps ended first. `replaced` has, for each key that it wrote under, the record
    that was there before.
    """

    def __init__(self, store: Cache, inputs: Inputs) -> None:
        self._store = store
        self._inputs = inputs
        self._lock = threading.Lock()
        self.before: dict[CacheKey, Known] = {}
        """What was known when the build first asked."""
        self.replaced: dict[CacheKey, Record | None] = {}

    def known(self, weak: CacheKey) -> Known:
        """What was known about a step, apart from its parent, when the build first asked."""
        with self._lock:
            found = self.before.get(weak)
            if found is None:
                found = self.before[weak] = self._inputs.known.get(weak)
            return found

    def barred(self, material: KeyMaterial) -> str:
        """Why a step is no longer traced; empty if it may be."""
        return self.known(weak_key(material)).barred

    def keep(
        self, record: Record, task: Task, observed: Observations, evidence: str, *, again: bool
    ) -> str:
        """Keep the record of an execution also under what the execution looked at.

        `again` replaces a record that is there. Gives the reason why nothing is kept, empty when
        it is. Raises `CacheError`.
        """
        weak = weak_key(record.material)
        known = self.known(weak)
        if known.barred:
            return known.barred
        if len(observed) > MAX_OBSERVATIONS:
            return f"it looked at too much ({len(observed)} paths; {MAX_OBSERVATIONS} at most)"
        parent = task.parent or SCRATCH
        values = self._inputs.values(parent, observed)
        candidate = self._inputs.known.keep(observed, values.shorten(), evidence)
        material = narrowed(record.material, candidate.selector, values.fingerprint)
        key = cache_key(material)
        blobs = [at for at in (candidate.set_at, candidate.values_at) if not isinstance(at, bytes)]
        narrow = evolve(
            record,
            key=key,
            material=material,
            manifests=(
                *record.manifests,
                *((values.fingerprint, Digest(blob)) for blob in blobs),
            ),
        )
        with self._lock:
            if key not in self.replaced:
                self.replaced[key] = self._store.records.lookup([key]).get(key)
            earlier = self.replaced[key]
        if earlier is not None:
            from layercache.store.seen_results import note_results

            note_results(self._store.derived, key, (earlier.layer, record.layer))
        self._store.records.put(narrow, replace=again)
        self._inputs.known.add(weak, candidate)
        return ""

    def refuse(self, record: Record, reason: str) -> None:
        """Remember why a traced execution is kept by its whole parent only."""
        weak = weak_key(record.material)
        self.known(weak)
        self._inputs.known.refuse(weak, reason)
