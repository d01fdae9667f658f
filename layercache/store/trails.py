"""Trails: predictions of the objects that a build will need, packed into one request.

A trail is never evidence. Each record in it is verified as if it had been fetched alone, and the
walk checks the chain link by link; a wrong, stale or missing trail costs time only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from blake3 import blake3

from layercache._base.classes import field, frozen
from layercache.errors import CorruptObject
from layercache.model.digests import CacheKey, ChainID, Fingerprint
from layercache.model.instruction import Field
from layercache.model.private import redact_fields
from layercache.model.records import Record
from layercache.store.codec import (
    Packed,
    Verifier,
    decode_record,
    encode_record,
    fields_from,
    pack,
    seal,
    unpack,
    unseal,
)

__all__ = [
    "Fact",
    "Trail",
    "TrailStep",
    "beginnings_of",
    "decode_trail",
    "definition_of",
    "encode_trail",
]

_TEXT: Final = {str}
_DEFINITION: Final = "layercache 2026-11 definition of a target 1"


@frozen
class Fact:
    """What a selector picks from a state: chain ID, selector digest, fingerprint."""

    subject: str
    selector: str
    fingerprint: Fingerprint


class _Sealed:
    """A record as it is stored, opened when somebody wants it: most builds want none."""

    __slots__ = ("_data", "_key", "_verifier")

    def __init__(self, key: CacheKey, data: bytes, verifier: Verifier | None) -> None:
        self._key = key
        self._data = data
        self._verifier = verifier

    def open(self) -> Record | None:
        try:
            return decode_record(self._key, self._data, self._verifier)
        except CorruptObject:
            return None  # the walk asks for it like for any other


def _opened(record: Record | _Sealed | None) -> Record | None:
    return record.open() if isinstance(record, _Sealed) else record


@frozen(kw_only=True)
class TrailStep:
    """One step as the last build left it.

    `stage`, `index`, `op` and `text` are for people; `text` is as written, before expansion. `key`
    and
    `chain_id` are empty if the step involved no decision. `fields` are further facts for
    explanations;
    only digests of private ones are stored.
    """

    stage: int
    index: int
    op: str
    text: str
    key: CacheKey = CacheKey("")
    chain_id: ChainID = ChainID("")
    _record: Record | _Sealed | None = field(default=None, eq=_opened)
    fields: tuple[Field, ...] = ()

    @property
    def record(self) -> Record | None:
        """The record by which the step was decided; None where it has none that verifies."""
        if isinstance(self._record, _Sealed):
            object.__setattr__(self, "_record", self._record.open())
        return self._record  # type: ignore[return-value]


@frozen
class Trail:
    """The last build of a target: its steps in order, the selection facts that it used, and the
    labels of its image, for retention."""

    target: str
    steps: tuple[TrailStep, ...] = ()
    facts: tuple[Fact, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()

    def records(self) -> dict[CacheKey, Record]:
        """The records packed with the trail, by key."""
        found = {step.key: step.record for step in self.steps}
        return {key: record for key, record in found.items() if record is not None}


def definition_of(rows: Iterable[tuple[int, int, str, str]]) -> str:
    """The name of a target that is the same on every machine: a digest of its steps.

    `rows` are (stage, index, op, text) of the steps that make decisions.
    """
    return blake3(pack(tuple(rows)), derive_key_context=_DEFINITION).hexdigest()


def beginnings_of(rows: Sequence[tuple[int, int, str, str]]) -> tuple[str, ...]:
    """The names of the first 2, 4, 8, … steps of a target, the longest first, all apart.

    Two targets that begin alike share the name of at least half of what they share.
    """
    lengths = [1 << power for power in range(1, len(rows).bit_length())]
    return tuple(definition_of(rows[:length]) for length in reversed(lengths))


def encode_trail(trail: Trail, verifier: Verifier | None = None) -> bytes:
    """The stored form of `trail`, bound to its target; each record is sealed by itself."""
    steps: Packed = tuple(
        (
            step.stage,
            step.index,
            step.op,
            step.text,
            step.key,
            step.chain_id,
            None if step.record is None else encode_record(step.record, verifier),
            tuple(
                (field.label, field.value, field.private)
                for field in redact_fields(step.key, step.fields)
            ),
        )
        for step in trail.steps
    )
    facts: Packed = tuple((fact.subject, fact.selector, fact.fingerprint) for fact in trail.facts)
    whole: Packed = (steps, facts, trail.labels) if trail.labels else (steps, facts)
    return seal("trail", trail.target, pack(whole), verifier)


def decode_trail(target: str, data: bytes, verifier: Verifier | None = None) -> Trail:
    """The trail of `target`; raises `CorruptObject`.

    A single record that does not verify is left out, the rest of the trail stays.
    """
    value = unpack(unseal("trail", target, data, verifier))
    try:
        steps, facts, *labels = value
        return Trail(
            target,
            tuple([_step(row, verifier) for row in steps]),
            tuple([Fact(*_texts(*row)) for row in facts]),
            tuple([_texts(name, text) for rows in labels for name, text in rows]),
        )
    except (TypeError, ValueError, AttributeError) as error:
        raise CorruptObject(f"trail {target} has another shape: {error}") from error


def _step(row: Any, verifier: Verifier | None) -> TrailStep:
    stage, index, op, text, key, chain_id, record, fields = row
    if record is not None and type(record) is not bytes:
        raise TypeError("a record is something else")
    if type(stage) is not int or type(index) is not int:
        raise TypeError("a number is something else")
    if {type(op), type(text), type(key), type(chain_id)} != _TEXT:
        raise TypeError("a text is something else")
    return TrailStep(
        stage=stage,
        index=index,
        op=op,
        text=text,
        key=key,
        chain_id=chain_id,
        record=None if record is None else _Sealed(key, record, verifier),
        fields=fields_from(fields) if fields else (),
    )


def _texts(*values: Any) -> Any:
    for value in values:
        if type(value) is not str:
            raise TypeError("a text is something else")
    return values
