"""Records: immutable evidence of one execution, key → one layer."""

from __future__ import annotations

from layercache.descriptors import Layer
from layercache.digests import CacheKey, ChainID, Digest, Fingerprint
from layercache.keys import KeyMaterial
from layercache.values import frozen

__all__ = ["Record"]


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
    material: KeyMaterial
    layer: Layer | None
    parent: ChainID = ChainID("")
    seconds: float = 0.0
    created: float = 0.0
    generation: int = 0
    log: Digest | None = None
    manifests: tuple[tuple[Fingerprint, Digest], ...] = ()
