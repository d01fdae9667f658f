"""Records: immutable evidence of one execution, key → one layer."""

from __future__ import annotations

from typing import Protocol

from layercache._base.classes import field, frozen
from layercache.errors import CorruptObject
from layercache.model.descriptors import Layer
from layercache.model.digests import CacheKey, ChainID, Digest, Fingerprint
from layercache.model.keys import KeyMaterial

__all__ = ["Closed", "Record"]


class Closed(Protocol):
    """Material in its stored form, decoded on demand: a hit needs none of it."""

    def open(self) -> KeyMaterial:
        """The decoded material; raises `CorruptObject` if it is malformed."""


def _opened(material: KeyMaterial | Closed) -> KeyMaterial:
    if isinstance(material, KeyMaterial):
        return material
    try:
        return material.open()
    except CorruptObject:
        return _NOTHING_SAID


_NOTHING_SAID = KeyMaterial("", "", ())


@frozen
class Record:
    """The recorded result of one execution of a step.

    `layer` is None if the step changed nothing. `seconds` is the duration of the execution.
    `parent` is the chain ID of the state that the step was applied to; a strategy that does not
    key by content checks it before it trusts the record. `created` is in seconds since 1970, for
    people and retention only, never for order. `generation` orders records of one key (higher
    wins, then the digest). `log` is the digest of the step's output, `manifests` the stored
    listings behind fingerprints, for explanations.
    """

    key: CacheKey
    _material: KeyMaterial | Closed = field(eq=_opened)
    layer: Layer | None
    parent: ChainID = ChainID("")
    seconds: float = 0.0
    created: float = 0.0
    generation: int = 0
    log: Digest | None = None
    manifests: tuple[tuple[Fingerprint, Digest], ...] = ()

    @property
    def material(self) -> KeyMaterial:
        """The material of the key; in a stored record, private values are digests.

        It serves explanations only; malformed material counts as unknown.
        """
        if not isinstance(self._material, KeyMaterial):
            object.__setattr__(self, "_material", _opened(self._material))
        return self._material  # type: ignore[return-value]

    @property
    def closed(self) -> Closed | None:
        """The material in its stored form, until it is first decoded."""
        return None if isinstance(self._material, KeyMaterial) else self._material
