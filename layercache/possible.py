"""Whether a record could still match a step whose inputs are not all known. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import attrs

from layercache.codec import redact
from layercache.digests import Fingerprint
from layercache.graph import Step
from layercache.keys import KeyMaterial, KeyStrategy
from layercache.records import Record

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
    """The material without the fingerprints that are not known."""
    kept = tuple(
        attrs.evolve(entry, fingerprint=Fingerprint("")) if value is None else entry
        for entry, value in zip(material.inputs, inputs, strict=True)
    )
    return attrs.evolve(material, inputs=kept)
