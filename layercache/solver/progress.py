"""How far a walk is with each step, which steps share a key, and what that decides. Pure.

A step is at one place of this table; everything else that is known of it belongs to its key.

=========  =========================================  ============================
From       When                                       To
=========  =========================================  ============================
waiting    the fingerprints of all inputs are known   keyed
waiting    a fingerprint can't be computed            failed, or declined in a plan
keyed      a record is known for the key              bound
keyed      the execution ended without a record       failed, or declined in a plan
bound      the record was lost                        keyed
any        the state of an input was taken back       waiting if the key needs it,
                                                      otherwise keyed
=========  =========================================  ============================

A step that failed or was declined stays so while an input that is there can't be read.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from enum import Enum
from typing import Final, TypeAlias

from layercache.errors import LayerCacheError
from layercache.model.descriptors import State
from layercache.model.digests import CacheKey, Fingerprint
from layercache.model.graph import Step
from layercache.model.keys import KeyMaterial
from layercache.model.operations import PARENT
from layercache.model.records import Record
from layercache.model.selectors import EVERYTHING, ByKey, Selector
from layercache.solver.narrowing import Attempt, Narrowings
from layercache.solver.protocol import Decision

__all__ = ["Group", "Progress", "Sharers", "WalkedStep", "decision"]

Group: TypeAlias = tuple[CacheKey, bool]
"""A key, and whether the cache is bypassed: what is decided once for all steps that share it."""

_FEW: Final = 8
"""Inputs up to which fingerprints are kept in a tuple."""


class Progress(Enum):
    """How far the walk is with a step; the table of the module has the transitions."""

    WAITING = "waiting"
    """A fingerprint of an input is missing: the step has no key."""

    KEYED = "keyed"
    """It has a key: that is looked up, or executed once for all steps that share it."""

    BOUND = "bound"
    """It has its record, and a state that further steps read."""

    DECLINED = "declined"
    """What it needs was not done, because the driver declined to do it: a plan."""

    FAILED = "failed"
    """What it needs ended in an error."""


class WalkedStep:
    """What the walk knows of one step."""

    __slots__ = (
        "attempt",
        "chained",
        "error",
        "fingerprints",
        "group",
        "hit",
        "material",
        "missing",
        "record",
        "refused",
        "selectors",
        "state",
        "step",
    )

    def __init__(self, step: Step, selectors: tuple[Selector, ...]) -> None:
        self.step = step
        self.selectors = selectors
        self.chained = any(isinstance(selector, ByKey) for selector in selectors)
        self.missing = len(self.selectors)
        # Of few inputs a tuple: the cycle collector need not look at it, and walks hold many.
        unknown: tuple[Fingerprint | None, ...] = (None,) * self.missing
        self.fingerprints = unknown if self.missing <= _FEW else list(unknown)
        self.material: KeyMaterial | None = None
        self.group: Group | None = None
        self.record: Record | None = None
        self.hit = False
        self.attempt: Attempt | None = None
        self.state: State | None = None
        self.error: LayerCacheError | None = None
        self.refused = False

    def know(self, place: int, fingerprint: Fingerprint | None) -> None:
        """The fingerprint of one input is this, or not known any more."""
        found = self.fingerprints
        if isinstance(found, list):
            found[place] = fingerprint
        else:
            self.fingerprints = (*found[:place], fingerprint, *found[place + 1 :])

    @property
    def progress(self) -> Progress:
        """Where the step is in the table of the module."""
        if self.state is not None:
            return Progress.BOUND
        if self.refused:
            return Progress.DECLINED if self.error is None else Progress.FAILED
        return Progress.WAITING if self.group is None else Progress.KEYED


class Sharers:
    """The steps of each key: one, nearly always, and further ones where there are any."""

    __slots__ = ("_first", "_further")

    def __init__(self) -> None:
        self._first: dict[Group, int] = {}
        self._further: dict[Group, list[int]] = {}

    def join(self, group: Group, number: int) -> None:
        """A step has this key now."""
        if self._first.setdefault(group, number) != number:
            self._further.setdefault(group, []).append(number)

    def leave(self, group: Group, number: int) -> None:
        """It has this key no more."""
        further = self._further.get(group, [])
        if self._first[group] != number:
            further.remove(number)
        elif further:
            self._first[group] = further.pop(0)
        else:
            del self._first[group]
        if not further:
            self._further.pop(group, None)

    def of(self, group: Group) -> Sequence[int]:
        """The steps that have this key, the first that came first."""
        first = self._first.get(group)
        return () if first is None else (first, *self._further.get(group, ()))

    def shared(self, group: Group) -> bool:
        """Whether several steps have this key."""
        return group in self._further


def decision(
    number: int,
    vertex: WalkedStep | None,
    narrowings: Narrowings,
    open_keys: Set[CacheKey],
    blockers: dict[int, frozenset[int]],
) -> Decision:
    """What was decided for the step `number`, None where the targets do not need it.

    `open_keys` are those whose narrower ones could not all be tried. `blockers` has, for each
    step before this one that waits, the steps that must run first; this one is added.
    """
    if vertex is None:
        return Decision(vertex=number, outcome="skip")
    key = vertex.group[0] if vertex.group else None
    tried = narrowings.tried(key) if key is not None else ()
    attempt = vertex.attempt
    if vertex.state is not None and attempt is not None:
        return Decision(
            vertex=number,
            outcome="hit",
            key=attempt.key,
            material=attempt.material,
            record=vertex.record,
            state=vertex.state,
            evidence=attempt.selector.name,
        )
    if vertex.state is not None:
        return Decision(
            vertex=number,
            outcome="hit" if vertex.hit else "miss",
            key=key,
            material=vertex.material,
            record=vertex.record,
            state=vertex.state,
            evidence=_evidence(vertex) if vertex.hit else None,
            tried=() if vertex.hit else tried,
        )
    if vertex.progress is Progress.FAILED:
        return Decision(number, "miss", key, vertex.material, error=vertex.error, tried=tried)
    if vertex.refused and vertex.group is not None:
        blockers[number] = frozenset((number,))
        if key in open_keys:
            inputs = [
                None if edge.role == PARENT else fingerprint
                for edge, fingerprint in zip(vertex.step.inputs, vertex.fingerprints, strict=True)
            ]
            return Decision(number, "undetermined", key, inputs=tuple(inputs), tried=tried)
        return Decision(number, "would-run", key, vertex.material, tried=tried)
    waits: frozenset[int] = frozenset()
    for edge in vertex.step.inputs:
        above = blockers.get(edge.vertex)
        if above and not above <= waits:
            waits = waits | above if waits else above
    if waits or vertex.refused:
        blockers[number] = waits
        return Decision(
            number,
            "undetermined",
            key,
            until=tuple(sorted(waits)),
            inputs=tuple(vertex.fingerprints),
        )
    return Decision(number, "skip", key)


def _evidence(vertex: WalkedStep) -> str:
    for edge, selector in zip(vertex.step.inputs, vertex.selectors, strict=True):
        if edge.role == PARENT:
            return selector.name
    return EVERYTHING.name
