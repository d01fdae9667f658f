"""Reuse on another parent: narrower keys for a step without a record for its whole-parent key.

A step without its parent (its *weak key*) is known to read only certain facts: each set of them is
a selector on the parent and gives a key of its own. They are tried in the order in which they are
known, the first alone, since it usually matches, then all others at once. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

from layercache._base.classes import evolve
from layercache.errors import UsageError
from layercache.model.descriptors import State
from layercache.model.digests import CacheKey, Fingerprint
from layercache.model.instruction import Field, Source
from layercache.model.keys import InputMaterial, KeyMaterial, cache_key
from layercache.model.operations import PARENT
from layercache.model.records import Record
from layercache.model.selectors import Selector
from layercache.solver.protocol import AskFingerprint

__all__ = ["Attempt", "Narrowings", "narrowed", "weak_key"]

_Wanted: TypeAlias = tuple[State | Source, Selector]

_UNKNOWN: Final = (Field("selector", "not known yet"),)


def narrowed(material: KeyMaterial, selector: Selector, fingerprint: Fingerprint) -> KeyMaterial:
    """`material` with the parent read by `selector` instead."""
    return _with_parent(material, tuple(selector.definition()), fingerprint)


def weak_key(material: KeyMaterial) -> CacheKey:
    """What the step is without its parent: the name under which selectors are known."""
    return cache_key(_with_parent(material, _UNKNOWN, Fingerprint("")))


def _with_parent(
    material: KeyMaterial, selector: tuple[Field, ...], fingerprint: Fingerprint
) -> KeyMaterial:
    inputs = tuple(
        InputMaterial(entry.role, selector, fingerprint) if entry.role == PARENT else entry
        for entry in material.inputs
    )
    return evolve(material, inputs=inputs)


class Attempt:
    """One selector tried: its material and key, once the fingerprint is known.

    `failed` if no fingerprint can be computed.
    """

    __slots__ = ("asked", "failed", "key", "material", "selector")

    def __init__(self, selector: Selector) -> None:
        self.selector = selector
        self.asked = False
        self.failed = False
        self.material: KeyMaterial | None = None
        self.key: CacheKey | None = None


class _Narrowing:
    """What is tried for one key by the whole parent, which is `subject`."""

    __slots__ = ("attempts", "material", "subject", "weak", "width")

    def __init__(self, material: KeyMaterial, subject: State) -> None:
        self.material = material
        self.subject = subject
        self.weak = weak_key(material)
        self.attempts: list[Attempt] | None = None
        self.width = 1

    def open(self) -> Sequence[Attempt]:
        """What is being tried."""
        return (self.attempts or [])[: self.width]

    def take(self, attempt: Attempt, fingerprint: Fingerprint | None) -> None:
        """Take a fingerprint, None for what there is none of."""
        if fingerprint is None:
            attempt.failed = True
        elif attempt.key is None:
            attempt.material = narrowed(self.material, attempt.selector, fingerprint)
            attempt.key = cache_key(attempt.material)


class Narrowings:
    """All narrowings of one walk, by key. `found` is what lookups have given so far, `looked`
    what they were asked; both belong to the walk.

    `selectors`, `fingerprints` and `lookups` collect what is to be asked next.
    """

    def __init__(self, looked: set[CacheKey], found: Mapping[CacheKey, Record | None]) -> None:
        self._looked = looked
        self._found = found
        self._by_key: dict[CacheKey, _Narrowing] = {}
        self._known: dict[CacheKey, Sequence[Selector]] = {}
        self._waiting: dict[CacheKey, list[CacheKey]] = {}
        self._wanting: dict[_Wanted, list[CacheKey]] = {}
        self._answers: dict[_Wanted, Fingerprint | None] = {}
        self._users: dict[CacheKey, list[CacheKey]] = {}
        self.selectors: list[CacheKey] = []
        self.fingerprints: list[AskFingerprint] = []
        self.lookups: list[CacheKey] = []

    # -- deciding ---------------------------------------------------------------------------

    def look(self, key: CacheKey, material: KeyMaterial, subject: State) -> Attempt | bool:
        """What `key` comes to: the attempt that has a record, True while answers are owed,
        False when nothing fits."""
        narrowing = self._by_key.get(key)
        if narrowing is None:
            narrowing = self._by_key[key] = _Narrowing(material, subject)
        if narrowing.attempts is None:
            if narrowing.weak not in self._known:
                self._ask_selectors(key, narrowing.weak)
                return True
            narrowing.attempts = [Attempt(s) for s in self._known[narrowing.weak]]
        while True:
            owed = False
            for attempt in narrowing.open():
                self._advance(key, narrowing, attempt)
                if attempt.failed:
                    continue
                if attempt.key is None or attempt.key not in self._found:
                    owed = True
                elif self._found[attempt.key] is not None and not owed:
                    return attempt
            if owed or narrowing.width >= len(narrowing.attempts):
                return owed
            narrowing.width = len(narrowing.attempts)

    def _ask_selectors(self, key: CacheKey, weak: CacheKey) -> None:
        waiting = self._waiting.setdefault(weak, [])
        if not waiting:
            self.selectors.append(weak)
        if key not in waiting:
            waiting.append(key)

    def _advance(self, key: CacheKey, narrowing: _Narrowing, attempt: Attempt) -> None:
        """Take what is known of an attempt, ask for what comes next."""
        if attempt.key is None and not attempt.failed:
            wanted: _Wanted = (narrowing.subject, attempt.selector)
            if wanted in self._answers:
                narrowing.take(attempt, self._answers[wanted])
            elif not attempt.asked:
                attempt.asked = True
                if wanted not in self._wanting:
                    self._wanting[wanted] = []
                    self.fingerprints.append(AskFingerprint(*wanted))
                self._wanting[wanted].append(key)
        if attempt.key is not None:
            users = self._users.setdefault(attempt.key, [])
            if key not in users:
                users.append(key)
            if attempt.key not in self._looked:
                self._looked.add(attempt.key)
                self.lookups.append(attempt.key)

    def tried(self, key: CacheKey) -> tuple[Selector, ...]:
        """The selectors that were tried for `key`."""
        narrowing = self._by_key.get(key)
        return () if narrowing is None else tuple(a.selector for a in narrowing.open())

    # -- answers; each gives the keys to look at again --------------------------------------

    def take_selectors(self, weak: CacheKey, selectors: Sequence[Selector]) -> Sequence[CacheKey]:
        """Take the selectors of a step without its parent; a later answer replaces it."""
        if weak not in self._waiting:
            raise UsageError(f"no selectors were asked for under the key {weak}")
        if weak in self._known:
            for key in self._waiting[weak]:
                self._by_key[key].attempts = None
        self._known[weak] = tuple(selectors)
        return tuple(self._waiting[weak])

    def take_fingerprint(
        self, ask: AskFingerprint, fingerprint: Fingerprint | None
    ) -> Sequence[CacheKey]:
        """Take a fingerprint; None if it can't be computed."""
        wanted = (ask.subject, ask.selector)
        keys = self._wanting.pop(wanted, None)
        if keys is None:
            raise UsageError(f"no such fingerprint was asked for: {ask.selector} of {ask.subject}")
        self._answers[wanted] = fingerprint
        return keys

    def ask_again(self, ask: AskFingerprint) -> Sequence[CacheKey]:
        """Forget that a fingerprint was asked."""
        keys = self._wanting.pop((ask.subject, ask.selector), [])
        for key in keys:
            for attempt in self._by_key[key].open():
                if attempt.selector == ask.selector:
                    attempt.asked = False
        return keys

    def users(self, key: CacheKey) -> Sequence[CacheKey]:
        """The keys by the whole parent that this narrower one may stand in for."""
        return self._users.get(key, ())
