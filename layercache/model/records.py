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
    """Material as it is stored, opened when somebody asks: a hit needs none of it."""

    def open(self) -> KeyMaterial:
        """What it holds; raises `CorruptObject` where that is no material."""


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
    """What executing a step once gave.

    `layer` is None when the step changed nothing. `seconds` is what the execution took;
    `parent` is the chain ID of the state that the step was applied to, which a strategy that
    does not key by content checks before it trusts the record;
    `created` seconds since 1970, for people and retention only, never for order; `generation`
    orders records of one key (higher wins, then the digest). `log` is the digest of the step's
    output, `manifests` the stored listing behind a fingerprint, for explanations.
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
        """What the key was made of, private values as digests once it was stored.

        It explains and decides nothing: where somebody sealed another shape, it says nothing.
        """
        if not isinstance(self._material, KeyMaterial):
            object.__setattr__(self, "_material", _opened(self._material))
        return self._material  # type: ignore[return-value]

    @property
    def closed(self) -> Closed | None:
        """The material as it is stored, as long as nobody asked for it."""
        return None if isinstance(self._material, KeyMaterial) else self._material
