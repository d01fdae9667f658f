"""The selectors that are known for a step without its parent, stored as values.

    selectors/<weak key>   up to 16 observations, the newest first; why the last was not kept
    untraced/<weak key>    why the step is no longer traced

Small sets and their values are stored inline, larger ones as blobs. All of it is a prediction: a
missing or outdated entry costs an execution, and the key decides whether a record matches.
"""

from __future__ import annotations

import io
import threading
from typing import TYPE_CHECKING, Any, Final

from layercache._base.classes import evolve, frozen
from layercache.errors import CorruptObject
from layercache.model.digests import CacheKey, Digest, check_digest
from layercache.model.observations import Observations
from layercache.model.selectors import Observed
from layercache.store.codec import Packed, pack, unpack

if TYPE_CHECKING:
    from layercache.store.parts import ContentStore, DerivedStore

__all__ = ["MAX_SELECTORS", "Candidate", "Known", "KnownSelectors", "merge_selectors"]

MAX_SELECTORS: Final = 16
"""Sets of observations that are kept for one step, as in other systems with two phases."""

_INLINE: Final = 4096
"""Bytes up to which a set is kept with the list that names it: one request less."""

_KIND: Final = "selectors"
_BARRED: Final = "untraced"
_MEDIA_TYPE: Final = "application/vnd.layercache.model.observations.v1"


@frozen
class Candidate:
    """A selector that is known: `set_at` and `values_at` are the bytes, or their blob."""

    selector: Observed
    set_at: bytes | Digest
    values_at: bytes | Digest


@frozen
class Known:
    """The selectors known for a step: candidates, the newest first, and why there are none.

    `refusal` says why what was seen at the last execution was not kept; `barred` why the step
    is not traced any more.
    """

    candidates: tuple[Candidate, ...] = ()
    refusal: str = ""
    barred: str = ""


class KnownSelectors:
    """The selectors of one store, as one build sees them. Safe for threads."""

    def __init__(self, derived: DerivedStore, blobs: ContentStore) -> None:
        self._derived = derived
        self._blobs = blobs
        self._lock = threading.Lock()
        self._sets: dict[str, Observations] = {}
        self._places: dict[str, bytes | Digest] = {}

    def get(self, weak: CacheKey) -> Known:
        """The selectors known for the step whose key without its parent is `weak`."""
        barred = self._derived.get(_BARRED, weak)
        if barred is not None:
            return Known(barred=barred.decode("utf-8", "replace"))
        known = self._listed(weak)
        with self._lock:
            for candidate in known.candidates:
                self._places[candidate.selector.observations] = candidate.set_at
        return known

    def observations(self, selector: Observed) -> Observations:
        """The set behind a selector; raises `CorruptObject` or `NotFound`."""
        digest = selector.observations
        with self._lock:
            found = self._sets.get(digest)
            place = self._places.get(digest)
        if found is None:
            if place is None:
                raise CorruptObject(f"the observations {digest} are not known here")
            found = Observations.decode(self.read(place))
            if found.digest != digest:
                raise CorruptObject(f"the observations {digest} do not match their digest")
            with self._lock:
                self._sets[digest] = found
        return found

    def read(self, place: bytes | Digest) -> bytes:
        """The bytes of a set or of values."""
        return place if isinstance(place, bytes) else self._blobs.read(place)

    def keep(self, observations: Observations, values: bytes, evidence: str) -> Candidate:
        """Store a set and its values; the candidate that `add` takes."""
        selector = Observed(observations.digest, evidence)
        with self._lock:
            self._sets[selector.observations] = observations
        return Candidate(selector, self._put(observations.encode()), self._put(values))

    def _put(self, data: bytes) -> bytes | Digest:
        if len(data) <= _INLINE:
            return data
        return self._blobs.add(io.BytesIO(data), _MEDIA_TYPE).digest

    def add(self, weak: CacheKey, candidate: Candidate) -> None:
        """Make `candidate` the first that is tried for this step."""
        with self._lock:
            known = self._listed(weak)
            others = [c for c in known.candidates if c.selector != candidate.selector]
            kept = (candidate, *others)[:MAX_SELECTORS]
            self._derived.put(_KIND, weak, _encode(Known(kept)))

    def refuse(self, weak: CacheKey, reason: str) -> None:
        """Remember why what was seen is not kept; the candidates stay."""
        with self._lock:
            known = self._listed(weak)
            if known.refusal != reason:
                self._derived.put(_KIND, weak, _encode(evolve(known, refusal=reason)))

    def _listed(self, weak: CacheKey) -> Known:
        data = self._derived.get(_KIND, weak)
        if data is None:
            return Known()
        try:
            return _decode(data)
        except (CorruptObject, TypeError, ValueError):
            return Known()  # written again by the next execution

    def bar(self, weak: CacheKey, reason: str) -> None:
        """From now on the step is not traced, and no selector that is known of it is used.

        A name of its own: a machine that adds to the list at the same time can't undo it.
        """
        self._derived.put(_BARRED, weak, reason.encode("utf-8", "replace"))


def merge_selectors(ours: bytes, theirs: bytes | None) -> bytes:
    """The stored form of two lists of one step: ours first, then what only the other has."""
    try:
        mine, other = _decode(ours), Known() if theirs is None else _decode(theirs)
    except (CorruptObject, TypeError, ValueError):
        return ours
    known = {candidate.selector for candidate in mine.candidates}
    further = [c for c in other.candidates if c.selector not in known]
    kept = (*mine.candidates, *further)[:MAX_SELECTORS]
    return _encode(evolve(mine, candidates=kept))


def _encode(known: Known) -> bytes:
    rows: Packed = tuple(
        (c.selector.evidence, c.selector.observations, c.set_at, c.values_at)
        for c in known.candidates
    )
    return pack((rows, known.refusal))


def _decode(data: bytes) -> Known:
    rows, refusal = unpack(data)
    candidates = []
    for evidence, digest, set_at, values_at in rows:
        if type(evidence) is not str or type(digest) is not str or type(refusal) is not str:
            raise TypeError("a text is something else")
        candidates.append(Candidate(Observed(digest, evidence), _place(set_at), _place(values_at)))
    return Known(tuple(candidates[:MAX_SELECTORS]), refusal)


def _place(value: Any) -> bytes | Digest:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return check_digest(value)
    raise TypeError("neither bytes nor a digest")
