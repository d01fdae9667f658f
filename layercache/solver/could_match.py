"""Whether a record could still match a step whose inputs are not all known. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from layercache._base.classes import evolve
from layercache.model.digests import Fingerprint
from layercache.model.graph import Step
from layercache.model.keys import KeyMaterial, KeyStrategy
from layercache.model.operations import PARENT
from layercache.model.private import redact
from layercache.model.records import Record

__all__ = ["could_match"]


def could_match(
    step: Step,
    inputs: Sequence[Fingerprint | None],
    keys: KeyStrategy,
    records: Iterable[Record],
) -> bool:
    """Whether one of `records` is of this step for some value of the inputs that are None."""
    known = [Fingerprint("") if value is None else value for value in inputs]
    wanted = keys.material(step, known)
    for record in records:
        material = record.material
        if material.name != wanted.name or material.scheme != wanted.scheme:
            continue
        if len(material.inputs) == len(inputs):
            mine = _blank(redact(record.key, wanted), inputs)
            if mine == _blank(material, inputs):
                return True
    return False


def _blank(material: KeyMaterial, inputs: Sequence[Fingerprint | None]) -> KeyMaterial:
    """The material without the fingerprints that are not known, and without what of the parent
    they are of: a step may be reused by less of it than its strategy asks for first."""
    kept = []
    for entry, value in zip(material.inputs, inputs, strict=True):
        if value is None:
            selector = () if entry.role == PARENT else entry.selector
            entry = evolve(entry, fingerprint=Fingerprint(""), selector=selector)
        kept.append(entry)
    return evolve(material, inputs=tuple(kept))
